"""Ticks become runs: by a worker that looks for those that are due, and by people who ask for some.

All of it happens under the lock of the schedule's row, and what is started counts only with the commit that moves the
schedule on. A lost answer needs no care: whoever looks next finds the schedule moved, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from perdure.schedules import Line, Overlap, Plan, Standing, Turn, in_line, run_id
from perdure.store.arrays import Bigints, Blobs, Booleans, Texts
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.operations import Note
from perdure.store.schedules import Change, Locked, standing_of
from perdure.store.workers import SCHEDULE_SLOT
from perdure.ticks import first_ticks, jittered, next_tick

SCHEDULES_AT_ONCE: Final = 1000
BACKFILLED_AT_ONCE: Final = 500
OTHERS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class TickStart:
    """The run of a tick, about to be started.

    Attributes:
        plan: of its schedule.
        tick: nominal time, in UTC.
        ready: when it may begin.
        key: the run's.
        context: what travels with it, for middleware.
        counts: whether the schedule's next ticks wait for it.
    """

    plan: Plan
    tick: datetime
    ready: datetime
    key: int
    context: dict[str, Any] = field(default_factory=dict)
    counts: bool = True

    @property
    def id(self) -> str:
        """The run's id."""
        return run_id(self.plan.name, self.tick)

    def options(self) -> str:
        """What the database is to make of the start, as JSON text."""
        given = {
            **self.plan.options,
            "queue": self.plan.queue,
            "context": self.context or None,
        }
        return msgspec.json.encode(
            {name: value for name, value in given.items() if value is not None}
        ).decode()


def ready_at(plan: Plan, tick: datetime) -> datetime:
    """When the run of a tick may begin: later than the tick by its share of the jitter, but before the next tick."""
    if not plan.jitter:
        return tick
    following = next_tick(plan.timing, tick)
    gap = None if following is None else following - tick
    return tick + jittered(plan.name, tick, plan.jitter, gap)


# -- by a worker -------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What one look found: seconds to the next tick, whether ticks wait for runs, and whether one of those may begin."""

    due_in: float | None
    waits: bool
    ready: bool

    @property
    def something(self) -> bool:
        """Whether there is something to do."""
        return self.ready or (self.due_in is not None and self.due_in <= 0)


def look(database: Database, put_off: Sequence[str]) -> Look:
    """Whether there is something to do, and when: one statement."""
    return Look(*database.run("look_at_schedules", {"put_off": Texts(list(put_off))})[0])


class Advance(NamedTuple):
    """What is to become of one schedule that was taken."""

    plan: Plan
    turn: Turn
    starts: list[TickStart]


Decide = Callable[[Sequence[Standing], datetime, set[str]], list[Advance]]


class Round:
    """One transaction that moves schedules on.

    Args:
        connection: the worker's own for it.
        database: where.
        worker: its number.
        lock_timeout: seconds to wait for a stranger's lock, such as on a run's id.

    Attributes:
        taken: names of the schedules that are locked.
        broken: what is wrong with those whose rows make no sense.
    """

    def __init__(self, connection: Connection, database: Database, worker: int, lock_timeout: float) -> None:
        self._connection, self._sql = connection, database.statements
        self._worker, self._lock_timeout = worker, lock_timeout
        self.taken: list[str] = []
        self.broken: dict[str, str] = {}

    def move(self, decide: Decide, put_off: Sequence[str], limit: int = SCHEDULES_AT_ONCE) -> list[Advance]:
        """Lock what is due or waits, have it decided, start runs, move the schedules on; return what was done."""
        given = {"put_off": Texts(list(put_off)), "limit": limit}
        with self._connection.transaction():
            self._do(
                "begin_batch",
                lock_timeout=f"{max(1, int(self._lock_timeout * 1000))}ms",
                plans="auto",
                worker=self._worker,
                slot=SCHEDULE_SLOT,
            )
            rows = self._do("take_due_schedules", **given)
            rows += self._do("take_waiting_schedules", **given)[: max(0, limit - len(rows))]
            standings = self._read(rows)
            if not standings:
                return []
            names = [standing.plan.name for standing in standings if standing.plan.overlap != "allow"]
            busy = {name for (name,) in self._do("busy_schedules", names=Texts(names))} if names else set()
            advances = decide(standings, rows[0][21].astimezone(UTC), busy)
            starts = [start for advance in advances for start in advance.starts]
            if starts:
                self._do("start_ticks", **start_columns(starts), worker=self._worker)
            self._do("advance_schedules", **_advance_columns(advances))
        return advances

    def _read(self, rows: Sequence[tuple[Any, ...]]) -> list[Standing]:
        found: dict[str, Standing] = {}
        for row in rows:
            try:
                found[row[0]] = standing_of(row)
            except ValueError as error:
                self.broken[row[0]] = str(error)
        self.taken = list(found)
        return list(found.values())

    def _do(self, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(self._sql[name], parameters)
        return cursor.fetchall() if cursor.description else []


def others(database: Database, name: str, *, at_once: bool) -> list[int]:
    """Keys of the runs that are to stop for a schedule's next tick, and were not told yet."""
    given = {"name": name, "at_once": at_once, "limit": OTHERS_AT_ONCE}
    return [key for (key,) in database.run("others_of_schedule", given)]


def start_columns(starts: Sequence[TickStart]) -> dict[str, Any]:
    """Starts as the columns of `start_ticks`, by id: the one thing that a stranger may hold."""
    starts = sorted(starts, key=lambda start: start.id)
    return {
        "key": Bigints([start.key for start in starts]),
        "id": Texts([start.id for start in starts]),
        "schedule": Texts([start.plan.name for start in starts]),
        "counts": Booleans([start.counts for start in starts]),
        "workflow": Texts([start.plan.workflow for start in starts]),
        "input": Blobs([start.plan.input for start in starts]),
        "tick": [start.tick for start in starts],
        "ready": [start.ready for start in starts],
        "options": Texts([start.options() for start in starts]),
    }


def _advance_columns(advances: Sequence[Advance]) -> dict[str, Any]:
    turns = [advance.turn for advance in advances]
    return {
        "name": Texts([advance.plan.name for advance in advances]),
        "next": [turn.next for turn in turns],
        "pending": Texts([_moments(turn.pending) for turn in turns]),
        "last": [max(turn.start, default=None) for turn in turns],
        "skipped": Bigints([turn.skipped for turn in turns]),
        "missed": Bigints([turn.missed for turn in turns]),
    }


def _moments(ticks: Sequence[datetime]) -> str:
    return msgspec.json.encode([tick.isoformat() for tick in ticks]).decode()


# -- by people ---------------------------------------------------------------------------------------

Prepare = Callable[[Plan, datetime, datetime, bool], TickStart]
"""Makes the start of a tick: its plan, itself, when it is ready, whether next ticks wait for it."""


class Triggered(NamedTuple):
    """What became of a trigger: the tick that it is, whether its run began, and whether it waits."""

    tick: datetime
    started: bool
    waits: bool


def trigger(
    database: Database, name: str, overlap: Overlap | None, prepare: Prepare, note: Note
) -> Triggered | None:
    """Have a schedule's workflow run now; None if there is no such schedule."""
    made: list[TickStart] = []

    def work(operation: Change, locked: Locked) -> Triggered:
        standing = locked.standing
        if made and operation.do("keys_of_runs", keys=Bigints([made[-1].key])):
            return Triggered(made[-1].tick, started=True, waits=False)  # by a try whose answer was lost
        policy = standing.plan.overlap if overlap is None else overlap
        ((now,),) = operation.do("clock")
        tick = _free_moment(operation, standing, now.astimezone(UTC))
        if policy == "allow":
            line = Line((tick,), standing.pending)
        else:
            busy = bool(operation.do("busy_schedules", names=Texts([name])))
            line = in_line(policy, standing.pending, [tick], busy=busy)
        starts = [prepare(standing.plan, each, now, True) for each in line.start]
        made[:] = [start for start in starts if start.tick == tick]
        if starts:
            operation.do("start_ticks", **start_columns(starts), worker=None)
        turn = Turn(line.start, line.pending, standing.next, line.skipped)
        operation.do("advance_schedules", **_advance_columns([Advance(standing.plan, turn, starts)]))
        operation.noted("schedule trigger", tick=tick.isoformat(), overlap=overlap)
        return Triggered(tick, started=tick in line.start, waits=tick in line.pending)

    return Change(database, name, note).run(work)


def _free_moment(operation: Change, standing: Standing, now: datetime) -> datetime:
    """A moment, now or microseconds ago, that is no tick of the schedule, waits for nothing, and has no run."""
    moments = [now - timedelta(microseconds=number) for number in range(100)]
    ids = {run_id(standing.plan.name, moment): moment for moment in moments}
    taken = {id for (id,) in operation.do("taken_ids", ids=list(ids))}
    ticks = {*standing.pending, *first_ticks(standing.plan.timing, moments[-1], now, len(moments))}
    return next(moment for id, moment in ids.items() if id not in taken and moment not in ticks)


def backfill(
    database: Database,
    name: str,
    first: datetime,
    until: datetime,
    queue: str | None,
    prepare: Prepare,
    note: Note,
) -> tuple[int, datetime | None] | None:
    """Start runs for some past ticks of a schedule; return for how many there was none, and where to go on, if at all.

    They are those from one moment up to before another, but not too many in one transaction. Runs that are started so are of the schedule, but its next ticks do not wait for them.
    """
    keys: list[int] = []

    def work(operation: Change, locked: Locked) -> tuple[int, datetime | None]:
        ((now,),) = operation.do("clock")
        plan = locked.standing.plan if queue is None else replace(locked.standing.plan, queue=queue)
        last = min(until - timedelta(microseconds=1), now.astimezone(UTC))
        wanted = first_ticks(plan.timing, first, last, BACKFILLED_AT_ONCE)
        starts = [prepare(plan, tick, now, False) for tick in wanted]
        born = operation.do("start_ticks", **start_columns(starts), worker=None) if starts else []
        before = (
            operation.do("keys_of_runs", keys=Bigints(keys)) if keys else []
        )  # by tries without an answer
        keys.extend(start.key for start in starts)
        if starts:
            operation.noted(
                "schedule backfill", first=wanted[0].isoformat(), last=wanted[-1].isoformat(), queue=queue
            )
        more = len(wanted) == BACKFILLED_AT_ONCE
        return len(born) + len(before), wanted[-1] + timedelta(microseconds=1) if more else None

    return Change(database, name, note).run(work)
