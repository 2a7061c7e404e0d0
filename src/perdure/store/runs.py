"""Runs as seen from outside: found, listed, described, cancelled, resumed; one function for each command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from perdure.errors import WorkflowNotFound
from perdure.models import (
    Kind,
    MessageInfo,
    RunDetail,
    RunFilter,
    RunInfo,
    Status,
    StepInfo,
    VersionInfo,
)
from perdure.serial import encode_failure
from perdure.store import workers
from perdure.store.arrays import Bigints
from perdure.store.database import Database
from perdure.store.filters import parameters
from perdure.store.why import described, waits_of, why

End = tuple[Status, bytes]
"""How a run ended: its status, and its result or error as they are stored."""
DELETED: Final[End] = (Status.FAILED, encode_failure(WorkflowNotFound("the run was deleted")))
SHOWN_MESSAGES: Final = 100
"""Messages not yet received that a detail has."""


def key_of(database: Database, id: str) -> tuple[int, str] | None:
    """Key and workflow of the run that has this id now."""
    rows = database.run("key_of", {"id": id})
    return (rows[0][0], rows[0][1]) if rows else None


def was_sent(database: Database, id: str, topic: str, key: str) -> bool:
    """Whether a run of this id, in any of its lives, was sent the message with this key."""
    return bool(database.run("was_sent", {"id": id, "topic": topic, "key": key}))


def find_ended(database: Database, keys: Iterable[int]) -> list[tuple[int, Status, bytes]]:
    """How these runs ended, of those that have."""
    rows = database.run("find_ended", {"keys": Bigints(list(keys))})
    return [(key, Status.of(status), bytes(value)) for key, status, value in rows]


def find_silent(database: Database, keys: Iterable[int]) -> list[tuple[int, End | str]]:
    """Which of these runs say no more: why they are parked, or, of those that were deleted, an end that says so."""
    rows = database.run("find_silent", {"keys": Bigints(list(keys))})
    return [(key, DELETED if reason is None else reason) for key, reason in rows]


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
    waits = tuple(f"{wait.position}: {described(wait)}" for wait in waits_of(database, info.key))
    owners = {step.worker for step in steps} | ({info.worker} if info.worker is not None else set())
    known = workers.names(database, sorted(owners)) if owners else {}
    info = replace(info, why=why(database, info))
    ended = bytes(output) if output is not None else None
    return RunDetail(info, bytes(input), ended, steps, waits, known, _unread(database, info))


def _unread(database: Database, run: RunInfo) -> tuple[MessageInfo, ...]:
    rows = database.run("list_unread", {"run": run.key, "limit": SHOWN_MESSAGES})
    return tuple(MessageInfo(topic, key, bytes(value), sent) for topic, key, value, sent in rows)


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
