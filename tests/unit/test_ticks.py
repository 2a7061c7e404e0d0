"""When schedules are due: against a clock on the wall that is read second by second, and from any point of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.ticks import (
    COUNTED,
    Timing,
    count_ticks,
    first_ticks,
    jittered,
    last_ticks,
    next_tick,
    ticks,
    zone_of,
)

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # moves by half an hour
    "Asia/Beirut",  # at midnight, in spring
    "Africa/Cairo",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Apia",  # left out a day in 2011
    "Africa/Casablanca",  # where winter time is in Ramadan
)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))

CHANGES = [
    datetime.fromisoformat(f"{text}+00:00")
    for text in (
        "2026-03-29T01:00",
        "2026-10-25T01:00",
        "2026-03-08T07:00",
        "2026-11-01T06:00",
        "2026-04-04T15:00",
        "2026-10-03T15:30",
        "2011-12-30T10:00",
        "2026-03-28T22:00",
        "2026-04-23T22:00",
        "2026-10-29T21:00",
    )
]
"""When clocks were put forward or back, in one zone or another."""

moments = st.one_of(
    st.timedeltas(timedelta(0), 14_000 * DAY).map(lambda span: datetime(2000, 1, 1, tzinfo=UTC) + span),
    st.sampled_from(CHANGES).flatmap(
        lambda day: st.timedeltas(-36 * HOUR, 3 * HOUR).map(lambda more: day + more)
    ),
)
"""Aware times, many of them near a change of the clocks."""


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    return st.one_of(
        st.just("*"),
        st.integers(2, 30).map(lambda step: f"*/{step}"),
        number,
        st.lists(number, min_size=2, max_size=3).map(",".join),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda span: f"{min(span)}-{max(span)}"
        ),
    )


minutely = st.tuples(
    field(0, 59),
    field(0, 23),
    st.sampled_from(["*", "*", "*", "1-15", "L"]),
    st.just("*"),
    st.sampled_from(["*", "*", "*", "MON-FRI", "sun", "7"]),
)
expressions = minutely.map(" ".join)
timings = st.one_of(
    st.builds(lambda cron, zone: Timing(cron, timezone=zone), expressions, st.sampled_from(ZONES)),
    st.builds(
        lambda seconds, anchor: Timing(every=timedelta(seconds=seconds), anchor=anchor),
        st.floats(1, 200_000).map(lambda seconds: round(seconds, 3)),
        moments,
    ),
)


def matches(cron: str, wall: datetime) -> bool:
    """Whether a wall time matches, field by field."""
    minute, hour, day, month, weekday = cron.upper().split()
    tomorrow = wall + DAY
    days = of(day, wall.day, 1, 31) or (day == "L" and tomorrow.day == 1)
    names = {"MON-FRI": "1-5", "SUN": "0"}.get(weekday, weekday)
    number = wall.isoweekday()
    week = of(names, number, 0, 7) or of(names, number % 7, 0, 7)
    both = days and week if "*" in (day[0], weekday[0]) else days or week
    return (
        of(minute, wall.minute, 0, 59)
        and of(hour, wall.hour, 0, 23)
        and of(month, wall.month, 1, 12)
        and both
    )


def of(text: str, value: int, low: int, high: int) -> bool:
    """Whether a field has a value."""
    if text == "L":
        return False
    if "," in text:
        return any(of(part, value, low, high) for part in text.split(","))
    if text.startswith("*"):
        step = int(text[2:] or "1") if text != "*" else 1
        return (value - low) % step == 0
    first, _, last = text.partition("-")
    return int(first) <= value <= int(last or first)


def shown(cron: str, zone: str, begin: datetime, minutes: int) -> list[datetime]:
    """Every minute in which the clock on the wall shows a time that matches."""
    place = zone_of(zone)
    every = (begin + number * MINUTE for number in range(minutes))
    return [each for each in every if matches(cron, each.astimezone(place).replace(tzinfo=None))]


def is_fixed(cron: str) -> bool:
    return not any(part.startswith("*") for part in cron.split()[:2])


@settings(deadline=None, max_examples=100)
@given(expressions, st.sampled_from(ZONES), moments)
@example("*/30 * * * *", "Europe/Berlin", datetime(2026, 10, 24, 20, tzinfo=UTC))
@example("0 */2 * * *", "Australia/Lord_Howe", datetime(2026, 4, 4, 0, tzinfo=UTC))
@example("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC))
@example("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC))
@example("0 0 * * *", "Asia/Beirut", datetime(2026, 3, 28, 12, tzinfo=UTC))
def test_ticks_are_when_the_wall_shows_them(cron: str, zone: str, moment: datetime) -> None:
    """Repeating ones are exactly those; of fixed ones a second coming is not, and what is skipped is after the gap."""
    begin, minutes = moment.replace(second=0, microsecond=0), 48 * 60
    found = first_ticks(Timing(cron, timezone=zone), begin, begin + (minutes - 1) * MINUTE, 10_000)
    wall = shown(cron, zone, begin, minutes)
    if not is_fixed(cron):
        assert found == wall
        return
    place = zone_of(zone)
    once = [each for each in wall if not each.astimezone(place).fold]
    assert [each for each in found if each in wall] == once
    for tick in set(found) - set(wall):  # the first minute after a gap
        before = (tick - MINUTE).astimezone(place).utcoffset()
        assert before is not None
        assert before < (tick.astimezone(place).utcoffset() or before)


@settings(deadline=None, max_examples=100)
@given(timings, moments, st.integers(1, 30))
def test_ticks_grow_and_do_not_depend_on_where_one_begins(
    timing: Timing, moment: datetime, number: int
) -> None:
    """Each follows from the one before it, and from any moment in between."""
    found = list(islice(ticks(timing, moment), number))
    assert all(tick.tzinfo is UTC for tick in found)
    assert all(earlier < later for earlier, later in pairwise([moment, *found]))
    for earlier, later in pairwise([moment, *found]):
        assert next_tick(timing, earlier) == later
        assert next_tick(timing, earlier + (later - earlier) / 2) == later
        assert next_tick(timing, later - timedelta(microseconds=1)) == later


@settings(deadline=None, max_examples=100)
@given(timings, moments, st.timedeltas(timedelta(0), 3 * DAY), st.integers(1, 5))
def test_first_last_and_number_agree(timing: Timing, first: datetime, span: timedelta, most: int) -> None:
    """The last ticks and the count are those of the whole list."""
    until = first + span
    every = first_ticks(timing, first, until, 10**6)
    assert first_ticks(timing, first, until, most) == every[:most]
    assert last_ticks(timing, first, until, most) == every[-most:]
    assert count_ticks(timing, first, until) == min(COUNTED, len(every))


def test_the_last_ticks_of_a_long_time_cost_little() -> None:
    """Of every second of twenty years the last two are found at once, and the count stops where it says."""
    timing = Timing("* * * * * *")
    begin, until = datetime(2006, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert last_ticks(timing, begin, until, 2) == [until - SECOND, until]
    assert count_ticks(timing, begin, until) == COUNTED
    assert count_ticks(Timing(every=SECOND), begin, until) == COUNTED


@pytest.mark.parametrize(
    ("cron", "zone", "begin", "expected"),
    [
        # 02:30 is skipped on 29 March: it comes when the hour is over, at 03:00 summer time
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        # of the two 02:30 on 25 October the first counts
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        # several fixed times in a skipped hour are one tick
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        # the seconds of a fixed time change nothing of that
        ("15 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30:15"]),
        # one that repeats comes in both hours, and not in one that is skipped
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:59", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
        # counted from within the first of the two
        ("15 * * * *", "Europe/Berlin", "2026-10-25T00:45", ["2026-10-25T01:15", "2026-10-25T02:15"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:29", ["2026-03-29T00:30", "2026-03-29T01:00"]),
        # midnight does not come where clocks are put forward at midnight
        ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00", ["2026-03-28T22:00", "2026-03-29T21:00"]),
        # a day that was left out
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00", ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"]),
        ("0 0 L * *", "UTC", "2028-02-01T00:00", ["2028-02-29T00:00", "2028-03-31T00:00"]),
        ("0 9 * * MON#2", "UTC", "2026-03-01T00:00", ["2026-03-09T09:00", "2026-04-13T09:00"]),
        ("0 9 LW JAN,mar *", "UTC", "2026-01-01T00:00", ["2026-01-30T09:00", "2026-03-31T09:00"]),
        ("0 9 * * 5L", "UTC", "2026-01-01T00:00", ["2026-01-30T09:00", "2026-02-27T09:00"]),
        ("*/20 0 0 1 1 *", "UTC", "2026-01-01T00:00", ["2026-01-01T00:00:20", "2026-01-01T00:00:40"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
    ],
)  # fmt: skip
def test_known_ticks(cron: str, zone: str, begin: str, expected: list[str]) -> None:
    """The rules for clock changes, and what cronsim reads."""
    after = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    wanted = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in expected]
    assert list(islice(ticks(Timing(cron, timezone=zone), after), len(wanted))) == wanted


@pytest.mark.parametrize(
    "cron",
    ["", "x", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "0 0 30 2 *", "* * * * MON#6", "*/0 * * * *",
     "5-1 * * * *", "@daily", "* * * * L", "* * 1#2 * *", "0 0 * * * /", "0 0 31 4 *", "1" * 600, "* * LW-2 * *"],
)  # fmt: skip
def test_bad_expressions_are_refused(cron: str) -> None:
    """What cannot be read, or never comes, says so."""
    with pytest.raises(ValueError, match="cron"):
        Timing(cron)


@given(st.text(st.sampled_from("0123456789*/,-#LW MONJAN"), max_size=30))
def test_whatever_text_is_refused_or_has_ticks(cron: str) -> None:
    """Nothing else is raised, now or when it is asked for a tick."""
    try:
        timing = Timing(cron)
    except ValueError:
        return
    assert next_tick(timing, datetime(2026, 1, 1, tzinfo=UTC)) is not None


@pytest.mark.parametrize(
    "given",
    [{}, {"cron": "* * * * *", "every": HOUR}, {"every": timedelta(0)}, {"every": timedelta(days=40_000)},
     {"every": HOUR, "anchor": datetime.fromisoformat("2026-01-01")}, {"cron": "* * * * *", "timezone": "Europe/Atlantis"},
     {"cron": "* * * * *", "timezone": ""}, {"cron": "* * * * *", "timezone": "../zone"},
     {"cron": "* * * * *", "timezone": "Europe"}],
)  # fmt: skip
def test_what_cannot_be_is_refused(given: dict[str, object]) -> None:
    """Neither or both, no interval, a time without a zone, no such zone."""
    with pytest.raises(ValueError, match=r"cron|every|anchor|zone"):
        Timing(**given)  # type: ignore[arg-type]  # on purpose


@given(st.text(max_size=20), moments, st.timedeltas(timedelta(0), DAY), st.timedeltas(SECOND, DAY))
def test_jitter_is_bounded_and_always_the_same(
    name: str, tick: datetime, jitter: timedelta, gap: timedelta
) -> None:
    """It stays below what was asked for, and before the next tick."""
    delay = jittered(name, tick, jitter, gap)
    assert timedelta(0) <= delay <= min(jitter, gap)
    assert delay == jittered(name, tick, jitter, gap)
    assert not jitter or delay < gap


def test_the_calendar_ends() -> None:
    """There is no tick after the year 9999, and no error either."""
    late = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert list(ticks(Timing(every=HOUR), late)) == []
    assert next_tick(Timing("0 0 1 1 *"), late) is None
