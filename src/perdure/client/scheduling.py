"""What can be done to schedules, each verb as one operation for both colours; noted in `audit` under their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from perdure.client.current import App
from perdure.client.managing import note_of
from perdure.client.operations import Operation, arguments_of, read
from perdure.core.registry import schedules as declared
from perdure.core.registry import workflows
from perdure.core.ticks import tick_start
from perdure.declare.schedules import CHECKED, Schedule, checked, timing_of
from perdure.errors import ScheduleNotFound
from perdure.schedules import OVERLAPS, Overlap, Plan, ScheduleInfo, run_id
from perdure.serial import Payload, check_size, check_text
from perdure.store import schedules as stored
from perdure.store import ticks
from perdure.store.ticks import TickStart, Triggered
from perdure.ticks import EPOCH

_NOTHING: Final = Payload.of(type(None))
_COUNT: Final = Payload.of(int)
_NAMES: Final = Payload.of(tuple[str, ...])
_TIMED: Final = ("cron", "every", "anchor", "timezone")
_KNOWN: Final = frozenset((*CHECKED, *_TIMED, "args", "kwargs"))


def plans_of(app: App, given: Sequence[Schedule]) -> list[Plan]:
    """What is stored of these schedules; of none given, of all that the code has declared."""
    if not given:
        return [definition.plan() for definition in declared.values()]
    plans = [schedule.plan(app.runtime.name_of_instance) for schedule in given]
    names = [plan.name for plan in plans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two schedules are called {twice[0]!r}: give them names with name=...")
    return plans


def applying(app: App, given: Sequence[Schedule]) -> Operation:
    """Declare schedules; the operation returns the names of those of which that was new."""
    plans = plans_of(app, given)

    def work() -> tuple[str, ...]:
        changed = stored.declare(app.database, plans)
        if changed:
            app.rescheduled()
        return tuple(changed)

    return read("schedules.apply", work, _NAMES)


def listing(
    app: App, *, workflow: str | None, paused: bool | None, limit: int, after: str | None
) -> Operation:
    """Schedules by name."""
    if not 1 <= limit <= 10_000:
        raise ValueError("limit= is between 1 and 10,000; use after= for the next page")
    return read(
        "schedules.list",
        lambda: stored.list_schedules(
            app.database, workflow=workflow, paused=paused, limit=limit, after=after
        ),
    )


def getting(app: App, name: str) -> Operation:
    """One schedule."""
    return read("schedules.get", lambda: found(name, stored.find(app.database, name)))


def found(name: str, info: ScheduleInfo | None) -> ScheduleInfo:
    """A schedule that was looked for.

    Raises:
        ScheduleNotFound: there is none of this name.
    """
    if info is None:
        raise _missing(name)
    return info


def pausing(app: App, name: str, note: str | None, *, paused: bool) -> Operation:
    """Have a schedule rest, or go on."""
    return _editing(
        app, name, "pause" if paused else "resume", lambda plan: replace(plan, paused=paused), note
    )


def updating(app: App, name: str, changes: Mapping[str, Any], reason: str | None) -> Operation:
    """Change a schedule until its declaration changes.

    Raises:
        TypeError: there is no such field.
        ValueError: a field has a value that it cannot have.
    """
    if unknown := sorted(set(changes) - _KNOWN):
        raise TypeError(
            f"a schedule has no {unknown[0]!r} that could be changed: {', '.join(sorted(_KNOWN))}"
        )
    if not changes:
        raise TypeError("say what to change, such as cron='0 3 * * *'")
    checked(changes)
    return _editing(app, name, "update", lambda plan: _changed(plan, changes), reason, fields=sorted(changes))


def _changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    fields = checked(changes)
    if "options" in fields:
        kept = {option: value for option, value in plan.options.items() if option not in changes}
        fields["options"] = kept | fields["options"]
    if any(name in changes for name in _TIMED):
        timing = plan.timing
        other = {"cron": "every", "every": "cron"}
        now: dict[str, Any] = {name: changes.get(name, getattr(timing, name)) for name in _TIMED}
        for name in ("cron", "every"):
            if changes.get(name) is not None and other[name] not in changes:
                now[other[name]] = None
        fields["timing"] = timing_of(now["cron"], now["every"], now["anchor"] or EPOCH, now["timezone"])
    if "args" in changes or "kwargs" in changes:
        definition = workflows.get(plan.workflow)
        input = arguments_of(definition, changes.get("args") or (), changes.get("kwargs") or {})
        fields["input"] = check_size(input, what="the arguments")
    return replace(plan, **fields)


def _editing(
    app: App, name: str, verb: str, change: Callable[[Plan], Plan], reason: str | None, **detail: Any
) -> Operation:
    note = note_of(app, reason)

    def work() -> None:
        if stored.edit(app.database, name, verb, change, note, **detail) is None:
            raise _missing(name)
        app.rescheduled()

    return read(f"schedules.{verb}", work, _NOTHING)


def deleting(app: App, name: str, reason: str | None) -> Operation:
    """Delete a schedule."""
    note = note_of(app, reason)

    def work() -> None:
        if not stored.delete(app.database, name, note):
            raise _missing(name)

    return read("schedules.delete", work, _NOTHING)


def triggering(app: App, name: str, overlap: Overlap | None, reason: str | None) -> Operation:
    """Have a schedule's workflow run now; the operation returns the id of the run, or None if it was skipped."""
    if overlap is not None and overlap not in OVERLAPS:
        raise ValueError(f"overlap= is one of {', '.join(OVERLAPS)}, not {overlap!r}")
    note, prepare = note_of(app, reason), _prepare(app)

    def work() -> str | None:
        done: Triggered | None = ticks.trigger(app.database, name, overlap, prepare, note)
        if done is None:
            raise _missing(name)
        app.rescheduled()
        return run_id(name, done.tick) if done.started or done.waits else None

    return read("schedules.trigger", work, Payload.of(str | None))


def backfilling(
    app: App,
    name: str,
    first: datetime,
    until: datetime,
    queue: str | None,
    reason: str | None,
    progress: Callable[[int], None] | None,
) -> Operation:
    """Start runs for the ticks of a span that have none; the operation returns how many."""
    for moment in (first, until):
        if moment.tzinfo is None:
            raise ValueError("a backfill needs aware datetimes, such as datetime(2026, 1, 1, tzinfo=UTC)")
    if queue is not None:
        check_text(queue, "queue=")
    note, prepare = note_of(app, reason), _prepare(app)

    def work() -> int:
        begun, place = 0, first
        while True:
            done = ticks.backfill(app.database, name, place, until, queue, prepare, note)
            if done is None:
                raise _missing(name)
            count, further = done
            begun += count
            if count:
                app.rescheduled()
            if progress is not None:
                progress(begun)
            if further is None:
                return begun
            place = further

    return read("schedules.backfill", work, _COUNT)


def _prepare(app: App) -> Callable[[Plan, datetime, datetime, bool], TickStart]:
    def prepare(plan: Plan, tick: datetime, ready: datetime, counts: bool) -> TickStart:
        return tick_start(app.runtime, plan, tick, ready, counts=counts)

    return prepare


def _missing(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"no schedule has the name {name!r}")
