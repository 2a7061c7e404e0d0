"""Schedules as rows: declared, edited, paused, deleted, listed; each change under the row's lock, and noted in `audit`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from perdure.schedules import Plan, ScheduleInfo, Standing
from perdure.store.arrays import Blobs, Booleans, Texts
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.operations import Note
from perdure.ticks import Timing, first_ticks, next_tick

AT_ONCE: Final = 500
"""Schedules that are declared in one transaction."""
UPCOMING: Final = 5
RUNNING: Final = 20
_FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class Locked(NamedTuple):
    """A schedule whose row is locked: as it stands, its note, what the code said last, and the database's time."""

    standing: Standing
    note: str | None
    declared: Any
    now: datetime


# -- reading -----------------------------------------------------------------------------------------


def standing_of(row: Sequence[Any]) -> Standing:
    """A schedule by its row.

    Raises:
        ValueError: its timing is none: it was changed by hand, or this machine does not know its zone.
    """
    (
        name,
        workflow,
        cron,
        every,
        anchor,
        timezone,
        overlap,
        jitter,
        catch_up,
        input,
        queue,
        options,
        paused,
    ) = row[:13]
    timing = Timing(cron, every, anchor.astimezone(UTC), timezone)
    plan = Plan(name, workflow, timing, bytes(input), overlap, jitter, catch_up, queue, dict(options), paused)
    return Standing(plan, _utc(row[14]), tuple(tick.astimezone(UTC) for tick in row[15]))


def info_of(row: Sequence[Any]) -> ScheduleInfo:
    """What is known of a schedule by its row, which need not make sense."""
    (
        name,
        workflow,
        cron,
        every,
        anchor,
        timezone,
        overlap,
        jitter,
        catch_up,
        input,
        queue,
        options,
        paused,
    ) = row[:13]
    note, next, pending, last, skipped, missed, created, changed = row[13:21]
    return ScheduleInfo(
        name=name,
        workflow=workflow,
        cron=cron,
        every=every,
        anchor=anchor.astimezone(UTC),
        timezone=timezone,
        overlap=overlap,
        jitter=jitter,
        catch_up=catch_up,
        queue=queue,
        options=options,
        input=bytes(input),
        paused=paused,
        note=note,
        next=None if paused else _utc(next),
        pending=tuple(tick.astimezone(UTC) for tick in pending),
        last=_utc(last),
        skipped=skipped,
        missed=missed,
        created=created.astimezone(UTC),
        changed=changed.astimezone(UTC),
    )


def list_schedules(
    database: Database,
    *,
    names: Sequence[str] | None = None,
    workflow: str | None = None,
    paused: bool | None = None,
    after: str | None = None,
    limit: int = 1000,
) -> list[ScheduleInfo]:
    """Schedules by name."""
    given = {
        "names": None if names is None else Texts(list(names)),
        "workflow": workflow,
        "paused": paused,
        "after": after,
        "limit": limit,
    }
    return [info_of(row) for row in database.run("list_schedules", given)]


def find(database: Database, name: str) -> ScheduleInfo | None:
    """One schedule, with its unfinished runs and its next ticks."""
    for info in list_schedules(database, names=[name]):
        runs = database.run("runs_of_schedule", {"name": name, "limit": RUNNING})
        upcoming: tuple[datetime, ...] = ()
        if info.next is not None:
            timing = Timing(info.cron, info.every, info.anchor, info.timezone)
            upcoming = tuple(first_ticks(timing, info.next, _FAR, UPCOMING))
        return replace(info, running=tuple(id for (id,) in runs), upcoming=upcoming)
    return None


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


# -- declaring ---------------------------------------------------------------------------------------


def declare(database: Database, plans: Sequence[Plan]) -> list[str]:
    """Have the database know what the code says of schedules; return the names of those of which that is new."""
    plans = sorted(plans, key=lambda plan: plan.name)
    changed: list[str] = []
    for place in range(0, len(plans), AT_ONCE):
        some = {plan.name: plan for plan in plans[place : place + AT_ONCE]}
        known = dict(database.run("declared_schedules", {"names": Texts(list(some))}))
        new = [plan for name, plan in some.items() if known.get(name) != _said(plan)]
        if new:
            changed += _declare(database, new)
    return changed


def _said(plan: Plan) -> Any:
    """What a declaration is after the way to the database and back."""
    return msgspec.json.decode(msgspec.json.encode(plan.document()))


def _declare(database: Database, plans: Sequence[Plan]) -> list[str]:
    def once(connection: Connection) -> list[str]:
        with connection.transaction():
            ((now,),) = connection.execute(database.statements["clock"], ()).fetchall()
            locked = lock(connection, database, [plan.name for plan in plans])
            columns = _columns(plans, [_next(locked.get(plan.name), plan, now) for plan in plans])
            return [
                name
                for (name,) in connection.execute(database.statements["put_schedules"], columns).fetchall()
            ]

    return database.repeat(once)


def _next(known: Locked | None, plan: Plan, now: datetime) -> datetime | None:
    """The next tick of a plan: one that is due already stays so, unless the timing is another now."""
    if known is not None and known.standing.plan.timing == plan.timing:
        return known.standing.next
    return next_tick(plan.timing, now)


def _columns(plans: Sequence[Plan], nexts: Sequence[datetime | None]) -> dict[str, Any]:
    return {
        "name": Texts([plan.name for plan in plans]),
        "workflow": Texts([plan.workflow for plan in plans]),
        "cron": Texts([plan.timing.cron for plan in plans]),
        "every": [plan.timing.every for plan in plans],
        "anchor": [plan.timing.anchor for plan in plans],
        "timezone": Texts([plan.timing.timezone for plan in plans]),
        "overlap": Texts([plan.overlap for plan in plans]),
        "jitter": [plan.jitter for plan in plans],
        "catch_up": [plan.catch_up for plan in plans],
        "input": Blobs([plan.input for plan in plans]),
        "queue": Texts([plan.queue for plan in plans]),
        "options": Texts([_json(plan.options) for plan in plans]),
        "declared": Texts([_json(plan.document()) for plan in plans]),
        "paused": Booleans([plan.paused for plan in plans]),
        "next": list(nexts),
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- changing ----------------------------------------------------------------------------------------


class Change:
    """One transaction on a schedule, tried again if its answer was lost."""

    def __init__(self, database: Database, name: str, note: Note) -> None:
        self.database, self.name, self._note = database, name, note
        self.tries, self._command = 0, uuid.uuid4()
        self._connection: Connection | None = None

    def run(self, work: Callable[[Change, Locked], T]) -> T | None:
        """Do the work while the schedule is locked; None if there is no such schedule."""

        def once(connection: Connection) -> T | None:
            self.tries += 1
            self._connection = connection
            with connection.transaction():
                locked = lock(connection, self.database, [self.name]).get(self.name)
                return None if locked is None else work(self, locked)

        return self.database.repeat(once)

    def do(self, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a named statement."""
        assert self._connection is not None
        cursor = self._connection.execute(self.database.statements[name], parameters)
        return cursor.fetchall() if cursor.description else []

    def noted(self, verb: str, **detail: Any) -> None:
        """Note what was done."""
        told = {name: value for name, value in detail.items() if value is not None}
        self.do(
            "audit_schedule",
            who=self._note.who,
            verb=verb,
            name=self.name,
            reason=self._note.reason,
            detail=_json(told) if told else None,
            command=self._command,
        )


def lock(connection: Connection, database: Database, names: Sequence[str]) -> dict[str, Locked]:
    """Lock those of these schedules that are there."""
    rows = connection.execute(
        database.statements["lock_schedules"], {"names": Texts(sorted(names))}
    ).fetchall()
    return {row[0]: Locked(standing_of(row), row[13], row[21], row[22].astimezone(UTC)) for row in rows}


def edit(
    database: Database, name: str, verb: str, change: Callable[[Plan], Plan], note: Note, **detail: Any
) -> Plan | None:
    """Change a schedule, until the code says something else of it; None if there is no such schedule."""

    def work(operation: Change, locked: Locked) -> Plan:
        standing, now = locked.standing, locked.now
        plan = change(standing.plan)
        # A schedule that has rested goes on with what comes; one that is told the same again is not moved.
        fresh = plan.timing != standing.plan.timing or plan.paused != standing.plan.paused
        paused = note.reason if plan.paused and verb == "pause" else locked.note
        ((now,),) = operation.do("clock")
        operation.do(
            "edit_schedule",
            **_row(plan),
            note=paused if plan.paused else None,
            next=next_tick(plan.timing, now) if fresh else standing.next,
        )
        operation.noted(f"schedule {verb}", **detail)
        return plan

    return Change(database, name, note).run(work)


def _row(plan: Plan) -> Mapping[str, Any]:
    return {
        "name": plan.name,
        "workflow": plan.workflow,
        "cron": plan.timing.cron,
        "every": plan.timing.every,
        "anchor": plan.timing.anchor,
        "timezone": plan.timing.timezone,
        "overlap": plan.overlap,
        "jitter": plan.jitter,
        "catch_up": plan.catch_up,
        "input": plan.input,
        "queue": plan.queue,
        "options": _json(plan.options),
        "paused": plan.paused,
    }


def delete(database: Database, name: str, note: Note) -> bool:
    """Delete a schedule; False if there is none."""

    def work(operation: Change, _locked: Locked) -> bool:
        operation.do("delete_schedules", names=Texts([name]))
        operation.noted("schedule delete")
        return True

    change = Change(database, name, note)
    return bool(change.run(work)) or change.tries > 1
