"""What becomes of ticks: each policy, catching up, and the bounds of both."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.schedules import (
    CATCH_UP,
    MOST_PENDING,
    OVERLAPS,
    Due,
    Line,
    Overlap,
    Plan,
    Standing,
    find_due,
    in_line,
    run_id,
    turn,
)
from perdure.ticks import COUNTED, Timing, first_ticks

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
A, B, C, D = (NOON + number * HOUR for number in range(4))
HOURLY = Timing("0 * * * *")
MOST = 1000


def plan(overlap: Overlap = "skip", timing: Timing = HOURLY, catch_up: timedelta | None = None) -> Plan:
    return Plan("hourly", "shop.sync", timing, overlap=overlap, catch_up=catch_up)


@pytest.mark.parametrize(
    ("overlap", "pending", "due", "busy", "expected"),
    [
        ("allow", (), (A, B), True, Line((A, B))),
        ("allow", (A,), (B,), True, Line((A, B))),
        ("skip", (), (A,), False, Line((A,))),
        ("skip", (), (A, B), False, Line((B,), skipped=1)),
        ("skip", (), (A, B), True, Line(skipped=2)),
        ("skip", (A,), (B,), True, Line((), (A,), 1)),
        ("skip", (A,), (B,), False, Line((A,), (), 1)),
        ("buffer_one", (), (A,), False, Line((A,))),
        ("buffer_one", (), (A, B, C), False, Line((B,), (C,), 1)),
        ("buffer_one", (A,), (), False, Line((A,))),
        ("buffer_one", (A,), (B,), True, Line((), (B,), 1)),
        ("buffer_all", (), (A, B, C), False, Line((A,), (B, C))),
        ("buffer_all", (A,), (B,), True, Line((), (A, B))),
        ("cancel_other", (), (A,), False, Line((A,))),
        ("cancel_other", (A,), (B, C), True, Line((), (C,), 2, stop=True)),
        ("cancel_other", (A,), (), False, Line((A,))),
        ("terminate_other", (), (A,), True, Line((), (A,), 0, stop=True)),
        ("terminate_other", (A,), (B,), False, Line((B,), (), 1)),
    ],
)
def test_each_policy(
    overlap: Overlap, pending: tuple[datetime, ...], due: tuple[datetime, ...], busy: bool, expected: Line
) -> None:
    """Which begin, which wait, how many are skipped."""
    assert in_line(overlap, pending, due, busy=busy) == expected


several = st.lists(st.integers(0, 2000), max_size=12, unique=True).map(
    lambda numbers: tuple(NOON + number * HOUR for number in sorted(numbers))
)


@given(st.sampled_from(OVERLAPS), several, several, st.booleans())
def test_every_tick_has_one_fate(
    overlap: Overlap, pending: tuple[datetime, ...], due: tuple[datetime, ...], busy: bool
) -> None:
    """None is lost or doubled; only `allow` starts more than one, or any beside another; nobody is skipped in vain."""
    line = in_line(overlap, pending, due, busy=busy)
    kept = [*line.start, *line.pending]
    ticks = {*pending, *due}
    assert len(set(kept)) == len(kept)
    assert set(kept) <= ticks
    assert len(kept) + line.skipped == len(ticks)
    assert list(line.pending) == sorted(line.pending)
    if overlap != "allow":
        assert len(line.start) <= (0 if busy else 1)
        assert bool(line.start) == (bool(ticks) and not busy)
    if overlap in ("allow", "buffer_all"):
        assert not line.skipped
    assert line.stop == (busy and bool(ticks) and overlap in ("cancel_other", "terminate_other"))


def test_the_line_has_an_end() -> None:
    """Beyond a thousand the newest are skipped."""
    line = [NOON + number * HOUR for number in range(MOST_PENDING + 5)]
    found = in_line("buffer_all", line[:MOST_PENDING], line[MOST_PENDING:], busy=True)
    assert (found.pending, found.skipped) == (tuple(line[:MOST_PENDING]), 5)


def test_what_is_not_due_stays() -> None:
    """Before its next tick a schedule is not moved, also if the clock was put back."""
    assert find_due(plan(), B, A, MOST) == Due([], B)
    assert find_due(plan(), None, A, MOST) == Due([], None)


@pytest.mark.parametrize(
    ("overlap", "ticks", "skipped"),
    [
        ("skip", [D], 3),
        ("buffer_one", [C, D], 2),
        ("buffer_all", [A, B, C, D], 0),
        ("allow", [A, B, C, D], 0),
        ("cancel_other", [D], 3),
        ("terminate_other", [D], 3),
    ],
)
def test_of_several_that_are_due_each_policy_takes_its_own(
    overlap: Overlap, ticks: list[datetime], skipped: int
) -> None:
    """Where not all can be had it is the newest."""
    assert find_due(plan(overlap), A, D, MOST) == Due(ticks, D + HOUR, skipped)


def test_what_is_too_old_is_missed() -> None:
    """Within the window they are made up, before it they are counted."""
    now = NOON + 10 * HOUR
    found = find_due(plan("allow", catch_up=3 * HOUR), NOON, now, MOST)
    assert found == Due([now - 3 * HOUR, now - 2 * HOUR, now - HOUR, now], now + HOUR, missed=7)


def test_a_window_of_nothing_still_bears_a_late_worker() -> None:
    """A tick is on time for a minute."""
    late = timedelta(seconds=59)
    assert find_due(plan(catch_up=timedelta(0)), NOON, NOON + late, MOST).ticks == [NOON]
    gone = find_due(plan(catch_up=timedelta(0)), NOON, NOON + timedelta(seconds=61), MOST)
    assert gone == Due([], NOON + HOUR, missed=1)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_by_default_the_newest_is_made_up_whatever_its_age(overlap: Overlap) -> None:
    """The monthly run of an outage of three days is not lost; of the older ones none is made up."""
    monthly = Timing("0 0 1 * *")
    first, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 4, tzinfo=UTC)
    found = find_due(plan(overlap, monthly), first, now, MOST)
    assert found == Due([datetime(2026, 4, 1, tzinfo=UTC)], datetime(2026, 5, 1, tzinfo=UTC), missed=3)
    told = find_due(plan(overlap, monthly, CATCH_UP), first, now, MOST)
    assert told == Due([], datetime(2026, 5, 1, tzinfo=UTC), missed=4)


def test_allow_goes_on_where_it_was_cut() -> None:
    """No more than so many begin at a time; the next turn begins with the next."""
    every = first_ticks(HOURLY, NOON, NOON + 20 * HOUR, MOST)
    next: datetime | None = NOON
    found: list[datetime] = []
    while next is not None and next <= every[-1]:
        due = find_due(plan("allow"), next, every[-1], 6)
        assert len(due.ticks) <= 6
        found += due.ticks
        next = due.next
    assert found == every


def test_a_clock_that_leaps_costs_little() -> None:
    """After fifty years of every second only what is of use is made up, and the count has an end."""
    timing = Timing("* * * * * *")
    now = NOON + 18_000 * DAY
    found = find_due(plan(timing=timing), NOON, now, MOST)
    assert (found.ticks, found.missed) == ([now], COUNTED)
    all_of_them = find_due(plan("buffer_all", timing), NOON, now, MOST)
    assert len(all_of_them.ticks) == MOST_PENDING + 1
    assert all_of_them.next == now + timedelta(seconds=1)


@given(
    st.sampled_from(OVERLAPS),
    st.integers(0, 100),
    st.one_of(st.none(), st.integers(0, 60).map(lambda hours: hours * HOUR)),
    st.booleans(),
)
def test_a_turn_accounts_for_every_tick(
    overlap: Overlap, hours: int, catch_up: timedelta | None, busy: bool
) -> None:
    """Started, waiting, skipped or missed; and `next` is after now."""
    now = NOON + hours * HOUR
    found = turn(Standing(plan(overlap, catch_up=catch_up), NOON), now, busy=busy, most=MOST)
    assert len(found.start) + len(found.pending) + found.skipped + found.missed == hours + 1
    assert found.next == now + HOUR


def test_the_last_tick_of_all() -> None:
    """A schedule whose calendar is over has no next tick."""
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert find_due(plan(), last, last, MOST) == Due([last], None)


def test_the_id_of_a_run_is_of_its_tick() -> None:
    """In UTC, whatever zone the tick is told in; microseconds only where there are some."""
    assert run_id("nightly", NOON.astimezone()) == "nightly@2026-03-02T12:00:00Z"
    assert run_id("nightly", NOON + timedelta(microseconds=5)) == "nightly@2026-03-02T12:00:00.000005Z"
