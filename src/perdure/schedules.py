"""What a schedule is, and what becomes of its ticks: values, and decisions without a clock or a database.

Where a policy keeps only some of several ticks, it keeps the newest: whoever was away wants what is due now, not the
oldest of what he has missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

from perdure.ticks import Timing, count_ticks, first_ticks, last_ticks, next_tick

Overlap = Literal["skip", "buffer_one", "buffer_all", "allow", "cancel_other", "terminate_other"]
"""What becomes of a tick while a run of its schedule has not ended."""

OVERLAPS: Final = get_args(Overlap)
LONGEST_NAME: Final = 400
"""Characters of a schedule's name, so that a run's id has room for the tick."""
MOST_PENDING: Final = 1000
"""Ticks of one schedule that wait; what comes beyond it is skipped."""
ON_TIME: Final = timedelta(minutes=1)
"""A tick that is seen so late is no missed one: workers look every ten seconds, and a failover takes its time."""
CATCH_UP: Final = timedelta(days=1)
"""How old a missed tick may be to be made up, if nothing else was said; the newest one may be older."""
_KEPT: Final = {"skip": 1, "buffer_one": 2, "cancel_other": 1, "terminate_other": 1}


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule as it was declared or changed.

    Attributes:
        name: of the schedule.
        workflow: stored name of the workflow.
        timing: when it is due.
        input: its arguments, encoded.
        overlap: what becomes of a tick while a run has not ended.
        jitter: the most that a run begins after its tick.
        catch_up: how old a missed tick may be to be made up; None: `CATCH_UP`, and the newest whatever its age.
        queue: in which its runs wait; None is `default`.
        options: further options of the start, those that were given: key, priority, expires and timeout (seconds), version, tags.
        paused: whether it rests.
    """

    name: str
    workflow: str
    timing: Timing
    input: bytes = b"{}"
    overlap: Overlap = "skip"
    jitter: timedelta = timedelta(0)
    catch_up: timedelta | None = None
    queue: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    paused: bool = False

    def document(self) -> dict[str, Any]:
        """All of it as JSON values, to be compared with what the code says another time."""
        timing = self.timing
        return {
            "workflow": self.workflow,
            "cron": timing.cron,
            "every": None if timing.every is None else timing.every.total_seconds(),
            "anchor": timing.anchor.astimezone(UTC).isoformat(),
            "timezone": timing.timezone,
            "input": self.input.decode(),
            "overlap": self.overlap,
            "jitter": self.jitter.total_seconds(),
            "catch_up": None if self.catch_up is None else self.catch_up.total_seconds(),
            "queue": self.queue,
            "options": dict(self.options),
            "paused": self.paused,
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """A schedule as it stands: its plan, the next tick that is not decided, and those that wait."""

    plan: Plan
    next: datetime | None
    pending: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """What is known of a schedule at one moment.

    Attributes:
        name: of the schedule.
        workflow: stored name of the workflow that its runs are of.
        cron: its expression, or None.
        every: its interval, or None.
        anchor: a tick of the interval.
        timezone: in which the expression is read.
        overlap: what becomes of a tick while a run has not ended.
        jitter: the most that a run begins after its tick.
        catch_up: how old a missed tick may be to be made up; None: a day, and the newest whatever its age.
        queue: in which its runs wait; None is `default`.
        options: further options of its starts.
        input: arguments, as they are stored.
        paused: whether it rests, and `note` says why.
        note: given by whoever paused it.
        next: the next tick, in UTC; None if it is paused, or there is none any more.
        pending: ticks that wait for the end of a run, oldest first.
        last: the newest tick that a run was started for.
        skipped: ticks without a run, because one had not ended or too many waited.
        missed: ticks without a run, because no worker was there in time. Both are counted up to 10,000 at a time.
        created: when it was first declared.
        changed: when it was last declared otherwise, edited, paused or resumed.
        running: ids of runs that its ticks wait for, the first twenty; only where one schedule is asked for.
        upcoming: the next five ticks; only where one schedule is asked for.
    """

    name: str
    workflow: str
    cron: str | None
    every: timedelta | None
    anchor: datetime
    timezone: str
    overlap: Overlap
    jitter: timedelta
    catch_up: timedelta | None
    queue: str | None
    options: Mapping[str, Any]
    input: bytes = field(repr=False)
    paused: bool
    note: str | None
    next: datetime | None
    pending: tuple[datetime, ...]
    last: datetime | None
    skipped: int
    missed: int
    created: datetime
    changed: datetime
    running: tuple[str, ...] = ()
    upcoming: tuple[datetime, ...] = ()


def run_id(name: str, tick: datetime) -> str:
    """The id of the run for a tick: there is one, whoever starts it."""
    return f"{name}@{tick.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


# -- what becomes of ticks ---------------------------------------------------------------------------


class Line(NamedTuple):
    """What a policy makes of the ticks that stand in line.

    Attributes:
        start: those whose runs begin.
        pending: those that wait.
        skipped: how many have no run.
        stop: whether what still runs is to be stopped.
    """

    start: tuple[datetime, ...] = ()
    pending: tuple[datetime, ...] = ()
    skipped: int = 0
    stop: bool = False


def in_line(overlap: Overlap, pending: Sequence[datetime], due: Sequence[datetime], *, busy: bool) -> Line:
    """Decide which ticks begin, wait and are skipped.

    Args:
        overlap: the policy.
        pending: ticks that wait already, oldest first.
        due: ticks that come now, oldest first.
        busy: whether a run of the schedule has not ended.
    """
    waiting, ticks = tuple(pending), tuple(sorted({*pending, *due}))
    if not ticks:
        return Line()
    begin = 0 if busy else 1
    match overlap:
        case "allow":
            return Line(start=ticks)
        case "skip":  # what waits was told to, by another policy or with a trigger
            if busy or waiting:
                return Line(waiting[:begin], waiting[begin:], len(ticks) - len(waiting))
            return Line(ticks[-1:], skipped=len(ticks) - 1)
        case "buffer_one":
            kept = ticks[-1 - begin :]
            return Line(kept[:begin], kept[begin:], len(ticks) - len(kept))
        case "buffer_all":
            kept = ticks[: MOST_PENDING + begin]
            return Line(kept[:begin], kept[begin:], len(ticks) - len(kept))
        case "cancel_other" | "terminate_other":
            kept = ticks[-1:]
            return Line(kept[:begin], kept[begin:], len(ticks) - 1, stop=busy)


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a schedule now: which runs begin, which ticks wait, and what its next tick is."""

    start: tuple[datetime, ...]
    pending: tuple[datetime, ...]
    next: datetime | None
    skipped: int = 0
    missed: int = 0
    stop: bool = False


def turn(standing: Standing, now: datetime, *, busy: bool, most: int) -> Turn:
    """Decide on a schedule whose tick is due, or of which a tick waits.

    Args:
        standing: the schedule.
        now: by the database's clock.
        busy: whether a run of the schedule has not ended.
        most: the most ticks to start; where that cuts them short, `next` is the first that is left.
    """
    plan = standing.plan
    due = find_due(plan, standing.next, now, most)
    line = in_line(plan.overlap, standing.pending, due.ticks, busy=busy)
    return Turn(line.start, line.pending, due.next, line.skipped + due.skipped, due.missed, line.stop)


class Due(NamedTuple):
    """The ticks of a schedule that are due: those of use to its policy, and how many are not."""

    ticks: list[datetime]
    next: datetime | None
    skipped: int = 0
    missed: int = 0


def find_due(plan: Plan, next: datetime | None, now: datetime, most: int) -> Due:
    """The ticks from the next undecided one up to now that are to be made up."""
    timing = plan.timing
    if next is None or next > now:
        return Due([], next)
    first, missed, newest = next, 0, []
    begin = now - max(CATCH_UP if plan.catch_up is None else plan.catch_up, ON_TIME)
    if first < begin:
        missed = count_ticks(timing, first, begin - timedelta(microseconds=1))
        if plan.catch_up is None and missed and not last_ticks(timing, begin, now, 1):
            newest = last_ticks(timing, first, begin, 1)
            missed -= 1
        first = begin
    if plan.overlap == "allow":
        ticks = newest or first_ticks(timing, first, now, most)
        cut = len(ticks) == most and ticks[-1] < now
        return Due(ticks, next_tick(timing, ticks[-1] if cut else now), missed=missed)
    if plan.overlap == "buffer_all":
        ticks = newest or first_ticks(timing, first, now, MOST_PENDING + 1)
    else:
        ticks = newest or last_ticks(timing, first, now, _KEPT[plan.overlap])
    skipped = 0 if newest else count_ticks(timing, first, now) - len(ticks)
    return Due(ticks, next_tick(timing, now), max(0, skipped), missed)
