"""Queues in the database: declared, changed, looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.queues import Queue, QueueInfo, Rate
from perdure.store.arrays import Texts
from perdure.store.database import Database


def declare(database: Database, queues: Sequence[Queue]) -> None:
    """Write what code says of its queues; what was changed by hand since it last said so stays."""
    for queue in sorted(queues, key=lambda queue: queue.name):
        limits = queue.limits()
        declared = msgspec.json.encode(limits, order="sorted").decode()
        weights = msgspec.json.encode(limits["weights"]).decode()
        parameters = {**limits, "name": queue.name, "weights": weights, "declared": declared}
        database.run("declare_queue", parameters)


def change(database: Database, name: str, changes: Mapping[str, Any]) -> None:
    """Change these columns of a queue's row."""
    database.run("change_queue", {"name": name, "changes": msgspec.json.encode(dict(changes)).decode()})


def forget(database: Database, name: str) -> bool:
    """Forget what is known of a queue; whether anything was."""
    return bool(database.run("forget_queue", {"name": name}))


def listed(database: Database, names: Sequence[str] | None = None) -> list[QueueInfo]:
    """Queues with what is in them."""
    rows = database.run("list_queues", {"names": None if names is None else Texts(list(names))})
    return [
        QueueInfo(
            name,
            paused,
            concurrency,
            worker_concurrency,
            key_concurrency,
            _rate(rate, rate_per),
            _rate(key_rate, key_rate_per),
            size,
            weights,
            *counts,
        )
        for (
            name, paused, concurrency, worker_concurrency, key_concurrency, rate, rate_per, key_rate, key_rate_per,
            size, weights, *counts,
        ) in rows
    ]  # fmt: skip


def sized(database: Database) -> frozenset[str]:
    """The queues that have a size."""
    return frozenset(name for (name,) in database.run("sized_queues", {}))


def _rate(limit: int | None, per: float | None) -> Rate | None:
    return None if limit is None or per is None else Rate(limit, per)
