"""When a schedule is due: cron expressions in time zones, intervals, jitter. Pure arithmetic, no clock.

The expression is matched against wall time without a zone, by cronsim; what a wall time is in UTC is decided here, in one
place, because it is where schedules go wrong twice a year:

- A schedule for *fixed times* (neither its minutes nor its hours begin with `*`, and it has one second) happens once for
  each wall time that matches: of a time that comes twice the first counts, and one that is skipped happens when the
  skipped hour is over.
- Any other is *repeating*: it happens whenever the clock on the wall shows a time that matches, so twice in an hour that
  comes twice, and not at all in one that is skipped.

Ticks are in UTC and only ever grow, and do not depend on where one begins to count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST_INTERVAL: Final = timedelta(seconds=1)
LONGEST_INTERVAL: Final = timedelta(days=36_525)
LONGEST_CRON: Final = 500
COUNTED: Final = 10_000
"""Ticks up to which they are counted; beyond it a number says "at least so many"."""
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due: by a cron expression, or every so often.

    Args:
        cron: minute, hour, day of month, month, day of week; or six fields, with seconds first.
        every: the time from one tick to the next.
        anchor: a moment that is a tick of the interval; the others follow from it.
        timezone: name of the zone in which the expression is read.

    Raises:
        ValueError: both or none are given, the expression cannot be read or never comes, there is no such zone, or the
            interval is too short.
    """

    cron: str | None = None
    every: timedelta | None = None
    anchor: datetime = EPOCH
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        zone_of(self.timezone)
        if (self.cron is None) == (self.every is None):
            raise ValueError("a schedule has a cron expression or every=, and not both")
        if self.anchor.tzinfo is None:
            raise ValueError("anchor= needs an aware datetime, such as datetime(2026, 1, 1, tzinfo=UTC)")
        if self.cron is not None:
            check_cron(self.cron)
        elif self.every is not None and not SHORTEST_INTERVAL <= self.every <= LONGEST_INTERVAL:
            raise ValueError(f"every= is between a second and a century, not {self.every}")


def check_cron(cron: str) -> None:
    """Refuse an expression that cannot be read, or never comes.

    Raises:
        ValueError: it is one.
    """
    from cronsim import CronSim, CronSimError  # here, so that programs without schedules do without it

    if not isinstance(cron, str):
        raise ValueError(f"a cron expression is a text such as '0 2 * * *', not {cron!r}")  # noqa: TRY004
    if len(cron) > LONGEST_CRON:
        raise ValueError(f"a cron expression has at most {LONGEST_CRON} characters")
    try:
        found = next(CronSim(cron, datetime(2000, 1, 1)), None)  # noqa: DTZ001  (wall time)
    except CronSimError as error:
        raise ValueError(
            f"the cron expression {cron!r} cannot be read: {str(error).lower()}; its fields are minute, hour, day of "
            "month, month, day of week, with seconds before them if there are six"
        ) from None
    except (AssertionError, TypeError, IndexError) as error:  # what it meets in strange steps, such as 5L/2
        raise ValueError(f"the cron expression {cron!r} cannot be read ({error})") from None
    if found is None:
        raise ValueError(f"the cron expression {cron!r} never comes: there is no such day")


@lru_cache(256)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise ValueError(
            f"there is no time zone {name!r}: give a name of the IANA database, such as 'Europe/Berlin'"
        ) from None


# -- ticks -------------------------------------------------------------------------------------------


def ticks(timing: Timing, after: datetime) -> Iterator[datetime]:
    """The ticks after a moment, in UTC, one after the other, for as long as there are some."""
    after = after.astimezone(UTC)
    try:
        for tick in _of_cron(timing, after) if timing.cron is not None else _of_interval(timing, after):
            if tick > after:
                after = tick
                yield tick
    except OverflowError:  # the calendar is over
        return


def next_tick(timing: Timing, after: datetime) -> datetime | None:
    """The first tick after a moment; None if there is none any more."""
    return next(ticks(timing, after), None)


def first_ticks(timing: Timing, first: datetime, until: datetime, most: int) -> list[datetime]:
    """The ticks from one moment up to another, both included, but at most so many."""
    found: list[datetime] = []
    for tick in islice(ticks(timing, first - timedelta(microseconds=1)), most):
        if tick > until:
            break
        found.append(tick)
    return found


def last_ticks(timing: Timing, first: datetime, until: datetime, most: int) -> list[datetime]:
    """Of the ticks from one moment up to another the last ones, oldest first; cheap however many there are."""
    if until < first:
        return []
    span = timedelta(minutes=1)
    while True:
        begin = max(first, until - span) if until - first > span else first
        # Intervals and expressions come at most once a second, so that what is found stays within a few times `most`.
        found = list(_until(timing, begin, until))
        if len(found) >= most or begin == first:
            return found[-most:]
        span *= 2


def count_ticks(timing: Timing, first: datetime, until: datetime) -> int:
    """How many ticks there are from one moment up to another; counted up to `COUNTED`."""
    if until < first:
        return 0
    if timing.every is not None:
        before = first - timedelta(microseconds=1)
        return min(COUNTED, _number(timing, until) - _number(timing, before))
    return sum(1 for _ in islice(_until(timing, first, until), COUNTED))


def jittered(name: str, tick: datetime, jitter: timedelta, gap: timedelta | None = None) -> timedelta:
    """How much later than its tick a run begins: always the same for this schedule and tick.

    Args:
        name: of the schedule.
        tick: nominal time.
        jitter: the most.
        gap: time to the next tick, which it stays below.
    """
    most = jitter if gap is None else min(jitter, gap)
    digest = hashlib.sha256(f"{name}@{tick.isoformat()}".encode()).digest()
    return most * (int.from_bytes(digest[:6]) / 2**48)


def _until(timing: Timing, first: datetime, until: datetime) -> Iterator[datetime]:
    for tick in ticks(timing, first - timedelta(microseconds=1)):
        if tick > until:
            return
        yield tick


def _number(timing: Timing, moment: datetime) -> int:
    """The number, from the anchor on, of an interval's last tick up to a moment."""
    assert timing.every is not None
    return (moment - timing.anchor) // timing.every


def _of_interval(timing: Timing, after: datetime) -> Iterator[datetime]:
    assert timing.every is not None
    tick = timing.anchor.astimezone(UTC) + (_number(timing, after) + 1) * timing.every
    while True:
        yield tick
        tick += timing.every


def _of_cron(timing: Timing, after: datetime) -> Iterator[datetime]:
    from cronsim import CronSim

    assert timing.cron is not None
    zone = zone_of(timing.timezone)
    here = after.astimezone(zone)
    wall = here.replace(tzinfo=None, fold=0)
    early, late = _offsets(wall, zone)
    if early > late and not here.fold:
        wall -= early - late  # what the wall has shown in this hour comes once more
    walls = CronSim(timing.cron, wall - _SECOND)
    minutes, hours = walls.parts[1], walls.parts[2]
    fixed = len(walls.seconds) == 1 and not minutes.startswith("*") and not hours.startswith("*")
    return _fixed(walls, zone) if fixed else _repeating(walls, zone)


def _fixed(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    for wall in walls:
        before, after = _offsets(wall, zone)
        yield (
            _end_of_gap(wall, before, after, zone) if before < after else (wall - before).replace(tzinfo=UTC)
        )


def _repeating(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    again: list[datetime] = []  # second comings, in order
    for wall in walls:
        before, after = _offsets(wall, zone)
        if before < after:
            continue  # no clock shows it
        tick = (wall - before).replace(tzinfo=UTC)
        while again and again[0] < tick:
            yield again.pop(0)
        yield tick
        if before > after:
            again.append((wall - after).replace(tzinfo=UTC))
    yield from again


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """Offsets from UTC of a wall time: of its first and its second coming, if there are two.

    Where the clock skips it they are those before and after the gap, the smaller one first.
    """
    first, second = wall.replace(tzinfo=zone).utcoffset(), wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert first is not None
    assert second is not None
    return first, second


def _end_of_gap(wall: datetime, before: timedelta, after: timedelta, zone: ZoneInfo) -> datetime:
    """The first moment after the gap in which a wall time lies."""
    low, high = (wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC)
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
