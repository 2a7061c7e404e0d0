"""Why a run does not go on, in one line: what an operator asks first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from perdure.models import RunInfo, Status
from perdure.policy import SUSPECT_AFTER
from perdure.store.arrays import Bigints
from perdure.store.database import Database

UPDATE, ANSWER = "!update/", "!answer/"
SHOWN = 3
"""Waits that are named; of the others their number."""


class Worker(NamedTuple):
    """A worker that is registered: whether its lease holds, and what it takes."""

    id: int
    name: str
    queues: Sequence[str]
    version: str | None
    lives: bool


class Wait(NamedTuple):
    """What a call of a run waits for."""

    position: str
    due: datetime | None
    target: str | None
    topic: str | None


def why(database: Database, run: RunInfo) -> str | None:
    """What has to happen for a run to go on, in one line; None for one that has ended."""
    if run.status.final:
        return None
    if run.status is Status.SCHEDULED:
        return f"begins at {_time(run.wakes)}"
    if run.status is Status.PARKED:
        return f"parked: {run.reason or 'no reason given'}"
    workers = [Worker(*row) for row in database.run("why_workers")]
    if run.worker is not None:
        return _owned(run, workers)
    if run.status is Status.WAITING:
        return waiting(waits_of(database, run.key))
    limits = database.run("why_queue", {"key": run.key})
    return (_limited(run, *limits[0]) if limits else None) or _queued(
        run, [worker for worker in workers if worker.lives]
    )


def _limited(
    run: RunInfo,
    paused: bool,
    concurrency: int | None,
    running: int,
    key: str,
    key_concurrency: int | None,
    key_running: int,
    rate: int | None,
    per: float | None,
    begun: int,
    key_rate: int | None,
    key_per: float | None,
    key_begun: int,
) -> str | None:
    """Which limit of its queue holds a run back, if one does."""
    of = f"of queue {run.queue!r}"
    if paused:
        return f"waits for queue {run.queue!r} to be resumed: it is paused"
    if concurrency is not None and running >= concurrency:
        return f"waits for a slot {of}: {running} of {concurrency} are taken"
    if key_concurrency is not None and key_running >= key_concurrency:
        return f"waits for a slot {of} for key {key!r}: {key_running} of {key_concurrency} are taken"
    if rate is not None and begun >= rate:
        return f"waits for the rate {of}: {begun} runs began in the last {per:g} s, which is what it allows"
    if key_rate is not None and key_begun >= key_rate:
        return f"waits for the rate {of} for key {key!r}: {key_begun} runs began in the last {key_per:g} s"
    return None


def waits_of(database: Database, key: int) -> list[Wait]:
    """What one run waits for, the soonest first."""
    return [Wait(*row[1:]) for row in database.run("why_waits", {"keys": Bigints([key])})]


def waiting(waits: Sequence[Wait]) -> str:
    """Several waits in one line."""
    told = list(dict.fromkeys(map(described, waits)))
    more = f", and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return " or ".join(told[:SHOWN]) + more or "waits"


def described(wait: Wait) -> str:
    """One wait in words."""
    until = f" (until {_time(wait.due)})" if wait.due is not None else ""
    if wait.target is not None and wait.topic is not None:
        what = "the answer to an update" if wait.topic.startswith(ANSWER) else f"event {wait.topic!r}"
        return f"waits for {what} of run {wait.target}{until}"
    if wait.target is not None:
        return f"waits for the end of run {wait.target}{until}"
    if wait.topic is not None and wait.topic.startswith(UPDATE):
        return f"waits for an update {wait.topic.removeprefix(UPDATE)!r}{until}"
    if wait.topic is not None:
        return f"waits for a message on topic {wait.topic!r}{until}"
    return f"asleep until {_time(wait.due)}"


def _owned(run: RunInfo, workers: Sequence[Worker]) -> str:
    what = "was told to stop; runs" if run.cancel_requested else "runs"
    for worker in workers:
        if worker.id == run.worker:
            if worker.lives:
                return f"{what} on worker {worker.id} ({worker.name})"
            return f"its worker {worker.id} ({worker.name}) has not been heard of for its lease; others take it over"
    return f"its worker {run.worker} is dead; the next worker that looks takes it over"


def _queued(run: RunInfo, workers: Sequence[Worker]) -> str:
    serving = [worker for worker in workers if run.queue in worker.queues]
    fitting = [
        worker for worker in serving if None in (run.version, worker.version) or worker.version == run.version
    ]
    if not workers:
        return "waits for a worker: none is alive"
    if not serving:
        return f"waits for a worker that serves queue {run.queue!r}: none does"
    if not fitting:
        there = ", ".join(sorted({str(worker.version) for worker in serving}))
        return f"waits for a worker of version {run.version!r} (or one that accepts it); alive are {there}"
    if run.recoveries >= SUSPECT_AFTER:
        return (
            f"is suspected of killing its workers ({run.recoveries} died while it ran): it is run alone, when a worker "
            "has time for that"
        )
    # Which code a worker has is not in the database: it may be that none has it.
    return f"waits for a worker of queue {run.queue!r} that has the code of {run.workflow} and a free place"


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}" if moment is not None else "?"
