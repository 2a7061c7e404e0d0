"""Queues and their limits, as code declares them and as `app.queues` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from perdure.models import Duration, seconds_of

LARGEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rate:
    """How many runs may begin in a time: in no span of `per` more than `limit`, by the database's clock.

    Args:
        limit: runs, at least 1.
        per: seconds or a `timedelta`, one second by default.

    Raises:
        ValueError: a number is out of its range.
    """

    limit: int
    per: Duration = 1

    def __post_init__(self) -> None:
        _count("Rate(limit=...)", self.limit)
        if not seconds_of(self.per, "Rate(per=...)"):
            raise ValueError("Rate(per=...) is a span of time: more than 0 seconds")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with limits; one that is used without being declared has none.

    A limit on concurrency counts the runs that a worker owns: one that waits durably (asleep, for a message, for a child)
    holds no slot, and takes one again when it wakes, before those of its key that arrived after it. A rate counts runs
    that begin, not those that go on. Runs that were started without `queue=` count for nothing.

    Args:
        name: what `options(queue=...)` names.
        concurrency: runs at a time, over all workers.
        worker_concurrency: runs at a time in each worker.
        key_concurrency: runs at a time of each `options(key=...)`; 1 makes a key's runs begin one after the other, in
            the order in which they were started.
        rate: how many runs may begin in a time.
        key_rate: the same for each key.
        weights: shares of keys where there is more work than room: a key of weight 3 begins three runs for each one of
            weight 1, which is that of keys not named here.
        size: runs that wait to begin; beyond it a start raises `QueueFull`.

    Raises:
        ValueError: a limit is below 1, a weight not above 0, or the name empty.

    Example:
        Perdure(queues=[Queue("mail", concurrency=20, rate=Rate(100, per=60), weights={"gold": 3})])
    """

    name: str
    concurrency: int | None = None
    worker_concurrency: int | None = None
    key_concurrency: int | None = None
    rate: Rate | None = None
    key_rate: Rate | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name or len(self.name) > 512:
            raise ValueError(f"a queue's name has 1 to 512 characters and no NUL, unlike {self.name[:40]!r}")
        for name in ("concurrency", "worker_concurrency", "key_concurrency", "size"):
            if getattr(self, name) is not None:
                _count(f"Queue({name}=...)", getattr(self, name))
        check_weights(self.weights)

    def limits(self) -> dict[str, Any]:
        """Its limits by the names of their columns."""
        return limits_of(
            concurrency=self.concurrency,
            worker_concurrency=self.worker_concurrency,
            key_concurrency=self.key_concurrency,
            rate=self.rate,
            key_rate=self.key_rate,
            weights=self.weights,
            size=self.size,
        )


class QueueInfo(NamedTuple):
    """A queue as it is now; limits that are None do not exist."""

    name: str
    paused: bool
    concurrency: int | None
    worker_concurrency: int | None
    key_concurrency: int | None
    rate: Rate | None
    key_rate: Rate | None
    size: int | None
    weights: Mapping[str, float]
    workers: int
    """Living workers that serve it."""
    scheduled: int
    queued: int
    running: int
    waiting: int
    parked: int
    oldest: float | None
    """Seconds since the first of the queued runs was started."""


def limits_of(**limits: Any) -> dict[str, Any]:
    """Limits by the names of their columns, of those that are given; None takes one away.

    Raises:
        ValueError: a limit has a value that it cannot have.
        TypeError: there is no such limit, or a rate is no `Rate`.
    """
    columns: dict[str, Any] = {}
    for name, value in limits.items():
        if name in ("rate", "key_rate"):
            if value is not None and not isinstance(value, Rate):
                raise TypeError(f"{name}= is a Rate(limit, per), not {value!r}")
            columns[name] = value and value.limit
            columns[f"{name}_per"] = value and seconds_of(value.per, "per=")
        elif name == "weights":
            columns[name] = check_weights(value)
        elif name in ("concurrency", "worker_concurrency", "key_concurrency", "size"):
            columns[name] = None if value is None else _count(f"{name}=", value)
        else:
            raise TypeError(f"a queue has no limit {name!r}")
    return columns


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Refuse weights that are not above 0.

    Raises:
        ValueError: one is not a number between 0.001 and 1000.
    """
    for key, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.001 <= weight <= 1000:
            raise ValueError(f"weights= of {key!r} is {weight!r}: it must be a number from 0.001 to 1000")
    return dict(weights)


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise ValueError(f"{what} must be a whole number of at least 1, not {value!r}")
    return value
