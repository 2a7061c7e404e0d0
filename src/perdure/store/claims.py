"""What an owner reads: claimed runs with their histories, timers that are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from perdure.models import CancelReason, Status
from perdure.store.arrays import Bigints, Integers, Texts
from perdure.store.connection import Connection
from perdure.store.database import Database

PAGE_ROWS: Final = 5000
"""Rows of history in one answer; the next page is another statement."""
FIRST_KEY: Final = -(2**63)
"""No run's key is smaller: those of runs that were started from SQL are negative."""


@dataclass(slots=True)
class ClaimedRun:
    """A run that this worker has just become the owner of."""

    key: int
    id: str
    workflow: str
    input: bytes
    begun: bool
    recoveries: int
    cancel: CancelReason
    claim: int
    remaining: float | None
    context: Mapping[str, Any]
    seed: str | None = None
    """What its randomness is seeded with, where that is not its own key."""
    scheduled_at: datetime | None = None
    """The tick of a schedule that it is for."""
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    waits: dict[str, float] = field(default_factory=dict)
    intents: dict[str, bytes | None] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    """The next place of each of its streams."""
    group: tuple[str, int, str] = ("", 0, "")
    """Queue, priority and key in which it was claimed."""
    arrival: int = 0
    written: dict[str, dict[str, int]] = field(default_factory=dict)
    """From which place on the body at a position wrote on which stream."""


def load_histories(connection: Connection, database: Database, runs: Sequence[ClaimedRun]) -> None:
    """Read what was recorded of runs, in statements after the claim, page by page."""
    if not runs:
        return
    by_key = {run.key: run for run in runs}
    keys = Bigints(sorted(by_key))
    place = (FIRST_KEY, "")
    while True:
        parameters = {"keys": keys, "run": place[0], "position": place[1], "limit": PAGE_ROWS}
        rows = database.fetch(connection, "load_steps", parameters)
        for row in rows:
            by_key[row[0]].steps.append(row[1:])
        if len(rows) < PAGE_ROWS:
            break
        place = (rows[-1][0], rows[-1][1])
    for run, position, _, remaining in database.fetch(connection, "load_waits", {"keys": keys}):
        by_key[run].waits[position] = max(0.0, remaining or 0.0)
    for run, position, detail in database.fetch(connection, "load_intents", {"keys": keys}):
        by_key[run].intents[position] = None if detail is None else bytes(detail)
    for run, key, position, last, first in database.fetch(connection, "load_streams", {"keys": keys}):
        streams = by_key[run].streams
        streams[key] = max(streams.get(key, 0), last + 1)
        if position is not None and first is not None:
            by_key[run].written.setdefault(position, {})[key] = first


def look_at(database: Database, keys: Sequence[int]) -> list[tuple[ClaimedRun, Status | None]]:
    """Runs with their histories, as of one moment, without claiming them; and how they ended, of those that have."""

    def look(connection: Connection) -> list[tuple[ClaimedRun, Status | None]]:
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            found: list[tuple[ClaimedRun, Status | None]] = []
            rows = database.fetch(connection, "look_at_runs", {"keys": Bigints(keys)})
            for key, id, workflow, input, begun, recoveries, cancel, claim, context, seed, status, at in rows:
                reason = CancelReason(cancel)
                run = ClaimedRun(
                    key,
                    id,
                    workflow,
                    bytes(input),
                    begun,
                    recoveries,
                    reason,
                    claim,
                    None,
                    context or {},
                    seed,
                    utc(at),
                )
                found.append((run, None if status is None else Status.of(status)))
            load_histories(connection, database, [run for run, _ in found])
        return found

    return database.repeat(look)


def utc(moment: datetime | None) -> datetime | None:
    """A moment in UTC, whatever the zone of the session that read it."""
    return None if moment is None else moment.astimezone(UTC)


def owned(connection: Connection, database: Database, worker: int) -> list[int]:
    """Runs that are this worker's by the database."""
    return [key for (key,) in database.fetch(connection, "owned_runs", {"worker": worker})]


def hand_over(connection: Connection, database: Database, worker: int, keys: Sequence[int]) -> None:
    """Give runs back to the queue."""
    parameters = {"keys": Bigints(list(keys)), "claims": Integers([None] * len(keys)), "worker": worker}
    database.fetch(connection, "hand_over", parameters)


def due(
    database: Database, waits: Sequence[tuple[int, str]]
) -> tuple[dict[tuple[int, str], float], datetime | None]:
    """Seconds that these waits still take, by the database's clock, and its time."""
    columns = {
        "run": Bigints([run for run, _ in waits]),
        "position": Texts([position for _, position in waits]),
    }
    rows = database.run("due_waits", columns)
    remaining = {(run, position): seconds for run, position, seconds, _ in rows}
    return remaining, rows[0][3] if rows else None


def find_bereaved(database: Database, parents: Sequence[int]) -> list[int]:
    """Unfinished runs that are to end with one of these, which have ended."""
    return [key for (key,) in database.run("find_bereaved", {"keys": Bigints(list(parents))})]


def wake_waiters(database: Database, keys: Sequence[int], news: Sequence[int] = ()) -> list[int]:
    """Wake runs that wait for the end of one of `keys`, which have ended, or for an event of one of `news`."""
    batch = {"keys": Bigints(list(keys)), "news": Bigints(list(news))}
    if not database.run("has_waiters", batch):
        return []
    _, woken = database.transaction(("lock_waiters", batch), ("wake_waiters", batch))
    return [key for (key,) in woken]
