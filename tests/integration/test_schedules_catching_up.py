"""What becomes of ticks that nobody was there for, of a clock that leaps or steps back, and of triggers and backfills."""

from __future__ import annotations

from datetime import timedelta

import pytest

import perdure
from perdure import Status
from perdure.testing import Clock
from tests.api_tools import rows, until
from tests.schedule_tools import (
    HOUR,
    LEASE,
    NOON,
    at_noon,
    away_at_noon,
    counts,
    end,
    held,
    hourly,
    note,
    settled,
    ticks_of,
    until_ticks,
)

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("overlap", "ticks", "skipped"),
    [("skip", ["17:00"], 4), ("buffer_all", ["13:00"], 0), ("allow", ["13:00", "14:00", "15:00", "16:00", "17:00"], 0)],
)  # fmt: skip
def test_an_outage_is_made_up(database_url: str, overlap: str, ticks: list[str], skipped: int) -> None:
    """After five hours without a worker: the newest, one after the other, or all, by policy."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap=overlap))
        clock.advance(5 * HOUR)
        with perdure.sync.Perdure(database_url, grace=0, lease=LEASE):
            until_ticks(database_url, *ticks)
            assert counts(app) == (skipped, 0)


def test_what_is_older_than_the_window_is_missed(database_url: str) -> None:
    """Of ten hours the last three are made up, the others are counted."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(overlap="allow", catch_up=2.5 * HOUR))
        clock.advance(10 * HOUR)
        with perdure.sync.Perdure(database_url, grace=0, lease=LEASE):
            until_ticks(database_url, "20:00", "21:00", "22:00")
            assert counts(app) == (0, 7)


def test_a_long_outage_makes_up_the_newest(database_url: str) -> None:
    """After a month a weekly tick of days ago has its run."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(perdure.Schedule(note, "0 7 * * MON", name="hourly"))
        clock.advance(31 * DAY)
        with perdure.sync.Perdure(database_url, grace=0, lease=LEASE):
            until(
                lambda: (
                    rows(database_url, "select id from perdure.runs") == [("hourly@2026-03-30T07:00:00Z",)]
                )
            )
            assert counts(app) == (0, 3)


def test_a_clock_that_steps_back_fires_nothing_twice(database_url: str) -> None:
    """`next` only grows: the same hours pass again without a tick."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(overlap="allow"), hourly(name="witness"))
        for _ in range(2):
            clock.advance(HOUR)
            settled(database_url)
        assert ticks_of(database_url) == ["13:00", "14:00"]
        rows(database_url, "delete from perdure.runs")  # so that only the schedule itself can know
        clock.set(NOON)
        app.schedules.delete("witness")
        app.schedules.apply(hourly(name="witness"))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", name="witness")
        assert ticks_of(database_url) == []
        assert app.schedules.get("hourly").next == NOON + 3 * HOUR
        clock.set(NOON + 3 * HOUR)
        until_ticks(database_url, "15:00")


def test_a_trigger_runs_now(database_url: str) -> None:
    """Several at one moment are runs of their own, and none takes the place of a tick."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(overlap="allow", paused=True))
        handles = [app.schedules.trigger("hourly", reason="to see") for _ in range(3)]
        assert [handle.result(timeout=20) for handle in handles if handle] == ["11:59"] * 3
        assert len({handle.id for handle in handles if handle}) == 3
        app.schedules.resume("hourly")
        clock.advance(HOUR)
        app.schedules.trigger("hourly")
        until_ticks(database_url, "11:59", "11:59", "11:59", "12:59", "13:00")
        assert app.handle("hourly@2026-03-02T13:00:00Z").result(timeout=20) == "13:00"
        audit = app.runs.audit("hourly")
        assert (audit[-1].verb, audit[-1].reason) == ("schedule trigger", "to see")


def test_a_trigger_obeys_the_policy(database_url: str) -> None:
    """It is skipped, waits, or begins beside the other, as it is told; what waits is not lost to `skip`."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held))
        first = app.schedules.trigger("hourly")
        assert first is not None
        assert app.schedules.trigger("hourly") is None
        beside = app.schedules.trigger("hourly", overlap="allow")
        assert beside is not None
        until(lambda: beside.status() == "waiting")
        waits = app.schedules.trigger("hourly", overlap="buffer_one")
        assert waits is not None
        clock.advance(HOUR)
        settled(database_url)
        with pytest.raises(perdure.WorkflowNotFound):
            waits.status()
        assert counts(app) == (2, 0)
        for id in (first.id, beside.id):
            end(app, id)
        until(lambda: app.runs.count(ids=[waits.id]) == 1)
        end(app, waits.id)


def test_a_trigger_can_stop_the_other(database_url: str) -> None:
    """`cancel_other`, for this once: the schedule's own policy says whether a waiting tick stops anything."""
    with at_noon(database_url) as (app, _):
        app.schedules.apply(hourly(held, overlap="cancel_other"))
        first = app.schedules.trigger("hourly")
        second = app.schedules.trigger("hourly")
        assert first is not None
        assert second is not None
        until(lambda: app.runs.count(ids=[second.id]) == 1)
        assert first.status() is Status.CANCELLED


def test_a_backfill_gives_each_past_tick_one_run(database_url: str) -> None:
    """Repeated, overlapping, while the schedule itself works: once each; what lies ahead is not begun."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(overlap="allow"))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        seen: list[int] = []
        begin = NOON - 3 * HOUR
        assert app.schedules.backfill("hourly", begin, NOON + DAY, progress=seen.append) == 4
        assert seen == [4]
        assert app.schedules.backfill("hourly", begin, NOON + DAY) == 0
        assert app.schedules.backfill("hourly", begin - HOUR, begin) == 1
        assert ticks_of(database_url) == ["08:00", "09:00", "10:00", "11:00", "12:00", "13:00"]
        clock.advance(HOUR)
        until_ticks(database_url, "08:00", "09:00", "10:00", "11:00", "12:00", "13:00", "14:00")


def test_ticks_do_not_wait_for_a_backfill(database_url: str) -> None:
    """Its runs stand beside those of the schedule, in a queue of their own."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held))
        app.schedules.backfill("hourly", NOON - 2 * HOUR, NOON, queue="slow")
        clock.advance(HOUR)
        until_ticks(database_url, "10:00", "11:00", "13:00")
        assert app.runs.count(queue="slow", status="queued") == 2
        assert app.schedules.get("hourly").running == ("hourly@2026-03-02T13:00:00Z",)


def test_ten_thousand_ticks_are_backfilled_in_batches(database_url: str) -> None:
    """A year of hours, five hundred in one transaction."""
    with away_at_noon(database_url) as (app, _):
        app.schedules.apply(hourly())
        seen: list[int] = []
        assert app.schedules.backfill("hourly", NOON - 10_000 * HOUR, NOON, progress=seen.append) == 10_000
        assert seen[:2] == [500, 1000]
        assert app.runs.count(status="queued") == 10_000


def test_a_backfill_needs_a_zone(database_url: str) -> None:
    """A time without one is refused before anything is done."""
    with away_at_noon(database_url) as (app, _), pytest.raises(ValueError, match="aware"):
        app.schedules.backfill("hourly", NOON.replace(tzinfo=None), NOON)


def test_the_tick_stays_with_the_run_through_all_its_lives(database_url: str) -> None:
    """On replay, in the next life after `continue_as_new`, after a restart, in a fork, and loaded elsewhere."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(onward))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        run = app.handle("hourly@2026-03-02T13:00:00Z")
        until(lambda: rows(database_url, "select 1 from perdure.waits"))
        clock.advance(timedelta(seconds=30))  # the first life sleeps, is put away and replayed
        assert run.result(timeout=20) == ["13:00", "13:00", "13:00"]
        app.runs.restart(run.id)
        until(lambda: run.status() == "succeeded")
        assert run.result(timeout=20) == ["13:00", "13:00", "13:00"]
        assert app.runs.fork(run.id).result(timeout=20) == ["13:00", "13:00", "13:00"]
        document = app.runs.export(run.id)
        assert all(found.agrees for found in perdure.testing.replay(document))
        app.runs.load(document, prefix="copy-")
        copies = rows(database_url, "select schedule, scheduled_at from perdure.runs where id like 'copy-%'")
        assert set(copies) == {("hourly", NOON + HOUR)}


@perdure.workflow
def onward(seen: tuple[str, ...] = ()) -> list[str]:
    """Sleeps once, goes on as new, and tells which tick each life was for."""
    seen = (*seen, f"{perdure.info().scheduled_at:%H:%M}")
    if len(seen) == 1:
        perdure.sync.sleep(30)
        seen = (*seen, f"{perdure.info().scheduled_at:%H:%M}")
        perdure.sync.continue_as_new(seen)
    return list(seen)


def test_the_next_tick_waits_for_every_life(database_url: str) -> None:
    """A run that goes on as new has not ended, and one that is resumed runs again."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(twice))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        end_first = app.handle("hourly@2026-03-02T13:00:00Z")
        end_first.send("next", None)
        until(lambda: len(rows(database_url, "select 1 from perdure.runs")) == 2)
        clock.advance(HOUR)
        settled(database_url)
        assert counts(app) == (1, 0)
        end_first.send("next", None)
        with pytest.raises(perdure.WorkflowFailed, match="twice"):
            end_first.result(timeout=20)
        app.runs.resume(end_first.id)
        with pytest.raises(perdure.WorkflowFailed, match="twice"):
            end_first.result(timeout=20)
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", "15:00")


class TwiceError(Exception):
    """It was twice."""


@perdure.workflow
def twice(again: bool = True) -> None:
    """Waits, goes on as new, waits, and fails."""
    perdure.sync.receive("next")
    if again:
        perdure.sync.continue_as_new(False)
    raise perdure.WorkflowFailed("twice")


def test_the_clock_of_a_test_wakes_the_scheduler(database_url: str) -> None:
    """Advancing it does not wait for a poll."""
    with perdure.sync.Perdure(database_url, grace=0, lease=LEASE) as app:
        until(lambda: not app.engine.scheduler.waits)
        with Clock(database_url) as clock:
            clock.set(NOON)
            app.schedules.apply(hourly())
            clock.advance(HOUR)
            until_ticks(database_url, "13:00")
