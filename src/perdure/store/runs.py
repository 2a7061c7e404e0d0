"""Runs as seen from outside: found, listed, described, cancelled, resumed; one function for each command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from perdure.models import (
    CancelReason,
    Kind,
    RunDetail,
    RunFilter,
    RunInfo,
    Status,
    StepInfo,
    VersionInfo,
)
from perdure.store import workers
from perdure.store.arrays import Bigints
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.filters import parameters

AT_ONCE: Final = 500
"""Runs changed in one transaction by a bulk command."""


def key_of(database: Database, id: str) -> tuple[int, str] | None:
    """Key and workflow of the run that has this id now."""
    rows = database.run("key_of", {"id": id})
    return (rows[0][0], rows[0][1]) if rows else None


def find_ended(database: Database, keys: Iterable[int]) -> list[tuple[int, Status, bytes]]:
    """How these runs ended, of those that have."""
    rows = database.run("find_ended", {"keys": Bigints(list(keys))})
    return [(key, Status.of(status), bytes(value)) for key, status, value in rows]


def find_parked(database: Database, keys: Iterable[int]) -> list[tuple[int, str]]:
    """Which of these runs are parked, and why."""
    return [(key, reason or "") for key, reason in database.run("find_parked", {"keys": Bigints(list(keys))})]


def list_runs(database: Database, where: RunFilter) -> list[RunInfo]:
    """Runs that match, newest first."""
    return [_info(row) for row in _found(database, "list_runs", where)]


def count_runs(database: Database, where: RunFilter) -> int:
    """How many runs match, whatever the filter's limit."""
    return int(_found(database, "count_runs", where)[0][0])


def list_versions(database: Database) -> list[VersionInfo]:
    """What still lives on each version of the code, the unnamed one first."""
    runs: dict[str | None, dict[Status, int]] = {}
    workers: dict[str | None, int] = {}
    for version, status, count, living in database.run("list_versions"):
        found = runs.setdefault(version, {})
        workers[version] = workers.get(version, 0) + living
        if status is not None:
            found[Status.of(status)] = count
    names = sorted(runs, key=lambda name: (name is not None, name or ""))
    return [VersionInfo(name, runs[name], workers[name]) for name in names]


def detail(database: Database, info: RunInfo) -> RunDetail:
    """Everything recorded of one run."""
    input, output = database.run("input_of", {"key": info.key})[0]
    steps = tuple(
        StepInfo(
            position,
            group,
            Kind(kind).name.lower(),
            name,
            failed,
            bytes(value),
            attempts,
            seconds,
            worker,
            at,
        )
        for position, group, _, kind, name, failed, value, attempts, seconds, worker, at in database.run(
            "list_steps", {"key": info.key}
        )
    )
    waits = tuple(_wait(*row) for row in database.run("list_waits", {"key": info.key}))
    owners = {step.worker for step in steps} | ({info.worker} if info.worker is not None else set())
    known = workers.names(database, sorted(owners)) if owners else {}
    return RunDetail(info, bytes(input), bytes(output) if output is not None else None, steps, waits, known)


def cancel(database: Database, keys: Sequence[int], reason: CancelReason, value: bytes) -> list[int]:
    """Cancel runs; return the keys of those that were not too late. `value` is the recorded error."""
    reached: list[int] = []
    for some in _chunks(keys):
        reached += database.repeat(_Cancel(database, some, reason, value))
    return reached


class _Cancel:
    """One transaction that cancels; tried again, it knows the runs that its first try, which had no answer, has ended."""

    def __init__(self, database: Database, keys: Sequence[int], reason: CancelReason, value: bytes) -> None:
        self._statements, self._tries = database.statements, 0
        self._keys = {"keys": Bigints(keys)}
        self._unbegun = self._keys | {"value": value, "at_once": reason is CancelReason.AT_ONCE}
        self._begun = self._keys | {"cancel": int(reason)}

    def __call__(self, connection: Connection) -> list[int]:
        self._tries += 1
        with connection.transaction():
            connection.execute(self._statements["lock_runs_for_cancel"], self._keys)
            rows = connection.execute(self._statements["cancel_unbegun"], self._unbegun).fetchall()
            rows += connection.execute(self._statements["ask_cancel"], self._begun).fetchall()
            if self._tries > 1:
                rows += connection.execute(self._statements["find_cancelled"], self._keys).fetchall()
        return sorted({key for (key,) in rows})


def resume(database: Database, keys: Sequence[int]) -> list[int]:
    """Unpark parked runs and revive failed ones; return the keys of those."""
    resumed: list[int] = []
    for some in _chunks(keys):
        batch = {"keys": Bigints(some)}
        _, unparked, revived = database.transaction(
            ("forget_last_failure", batch), ("unpark_runs", batch), ("revive_failed", batch)
        )
        resumed += [key for (key,) in (*unparked, *revived)]
    return resumed


def set_tags(database: Database, keys: Sequence[int], tags: Mapping[str, Any]) -> list[int]:
    """Merge tags into those of runs, also of ended ones; return the keys of those that there are.

    Args:
        database: where they are.
        keys: of the runs.
        tags: names to JSON values; one that is None is taken away.
    """
    change = {
        "given": Jsonb({name: value for name, value in tags.items() if value is not None}),
        "gone": [name for name, value in tags.items() if value is None],
    }
    changed: list[int] = []
    for some in _chunks(keys):
        batch = {"keys": Bigints(some)}
        _, rows = database.transaction(("lock_runs_for_tags", batch), ("set_tags", batch | change))
        changed += [key for (key,) in rows]
    return changed


def _chunks(keys: Sequence[int]) -> Iterable[list[int]]:
    ordered = sorted(keys)
    return (ordered[first : first + AT_ONCE] for first in range(0, len(ordered), AT_ONCE))


def _found(database: Database, name: str, where: RunFilter) -> list[tuple[Any, ...]]:
    """The rows of a statement with the conditions of a filter, planned for just these."""
    parents = None
    if where.parent is not None:
        parents = [key for (key,) in database.run("keys_of_id", {"id": where.parent})]
    return database.run(name, parameters(where, parents), prepare=False)


def _info(row: tuple[Any, ...]) -> RunInfo:
    (key, id, workflow, status, queue, version, tags, worker, created, finished, ready, deadline) = row[:12]
    (recoveries, reason, cancel, parent, takeovers) = row[12:]
    return RunInfo(
        id=id,
        key=key,
        workflow=workflow,
        status=Status.of(status),
        queue=queue,
        version=version,
        tags=tags if tags is None or isinstance(tags, Mapping) else {},
        worker=worker,
        created=created,
        finished=finished,
        wakes=ready,
        deadline=deadline,
        recoveries=recoveries or 0,
        takeovers=takeovers,
        reason=reason,
        parent=parent,
        cancel_requested=bool(cancel),
    )


def _wait(position: str, due: datetime | None, target: str | None) -> str:
    parts = ([f"until {due:%Y-%m-%d %H:%M:%S %Z}"] if due else []) + (
        [f"for the end of {target}"] if target else []
    )
    return f"{position}: {' or '.join(parts)}"
