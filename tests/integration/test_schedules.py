"""Schedules: ticks become runs, by what was declared, whatever policy they have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import Perdure, Schedule, ScheduleNotFound, Status
from tests.api_tools import on_loop, rows, until, until_true
from tests.schedule_tools import (
    HOUR,
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


def test_a_tick_becomes_a_run(database_url: str) -> None:
    """Its id is made of name and tick, its arguments are the schedule's, and its code reads the tick."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(args=("at ",)))
        info = app.schedules.get("hourly")
        assert (info.next, info.last) == (NOON + HOUR, None)
        assert info.upcoming[:2] == (NOON + HOUR, NOON + 2 * HOUR)
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        run = app.handle("hourly@2026-03-02T13:00:00Z")
        assert run.result(timeout=20) == "at 13:00"
        info = app.schedules.get("hourly")
        assert (info.next, info.last) == (NOON + 2 * HOUR, NOON + HOUR)
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", "14:00")


def test_an_interval_counts_from_its_anchor(database_url: str) -> None:
    """Every 40 minutes, with a tick at noon."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(
            Schedule(note, every=timedelta(minutes=40), anchor=NOON, name="hourly", overlap="allow")
        )
        clock.advance(timedelta(minutes=40))
        until_ticks(database_url, "12:40")
        clock.advance(timedelta(minutes=39))
        settled(database_url)
        clock.advance(timedelta(minutes=1))
        until_ticks(database_url, "12:40", "13:20")


def test_skip_leaves_out_what_comes_while_a_run_has_not_ended(database_url: str) -> None:
    """The tick is counted, and the next one after the end begins."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        clock.advance(HOUR)
        settled(database_url)
        assert ticks_of(database_url) == ["13:00"]
        assert counts(app) == (1, 0)
        assert app.schedules.get("hourly").running == ("hourly@2026-03-02T13:00:00Z",)
        end(app, "hourly@2026-03-02T13:00:00Z")
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", "15:00")


def test_buffer_one_keeps_the_newest(database_url: str) -> None:
    """One tick waits; a newer one takes its place; it begins when the run has ended."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap="buffer_one"))
        for _ in range(3):
            clock.advance(HOUR)
            settled(database_url)
        assert app.schedules.get("hourly").pending == (NOON + 3 * HOUR,)
        assert counts(app) == (1, 0)
        end(app, "hourly@2026-03-02T13:00:00Z")
        until_ticks(database_url, "13:00", "15:00")


def test_buffer_all_keeps_every_tick_in_order(database_url: str) -> None:
    """Each begins when the one before it has ended."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap="buffer_all"))
        for _ in range(3):
            clock.advance(HOUR)
            settled(database_url)
        assert ticks_of(database_url) == ["13:00"]
        end(app, "hourly@2026-03-02T13:00:00Z")
        until_ticks(database_url, "13:00", "14:00")
        end(app, "hourly@2026-03-02T14:00:00Z")
        until_ticks(database_url, "13:00", "14:00", "15:00")
        assert counts(app) == (0, 0)


def test_allow_starts_every_tick(database_url: str) -> None:
    """Runs of one schedule stand side by side."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap="allow"))
        for _ in range(2):
            clock.advance(HOUR)
            settled(database_url)
        assert ticks_of(database_url) == ["13:00", "14:00"]
        assert app.runs.count(status=["queued", "running", "waiting"]) == 2


@pytest.mark.parametrize("overlap", ["cancel_other", "terminate_other"])
def test_the_other_is_stopped_first(database_url: str, overlap: str) -> None:
    """The run that is there is cancelled, and the new one begins when it has gone."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap=overlap))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        first = app.handle("hourly@2026-03-02T13:00:00Z")
        until(lambda: first.status() == "waiting")
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", "14:00")
        assert first.status() is Status.CANCELLED
        (audit,) = app.runs.audit(first.id)
        assert (audit.who, audit.verb) == ("schedule hourly", "cancel")


def test_a_paused_schedule_rests(database_url: str) -> None:
    """What comes meanwhile is not made up; it goes on with the next tick."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(), hourly(name="other"))
        app.schedules.pause("hourly", "the shop is closed")
        info = app.schedules.get("hourly")
        assert (info.paused, info.note, info.next) == (True, "the shop is closed", None)
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", name="other")
        assert ticks_of(database_url) == []
        app.schedules.resume("hourly")
        assert app.schedules.get("hourly").next == NOON + 2 * HOUR
        clock.advance(HOUR)
        until_ticks(database_url, "14:00")
        verbs = [line.verb for line in app.runs.audit("hourly")]
        assert verbs == ["schedule resume", "schedule pause"]


def test_jitter_delays_a_run_and_is_the_same_for_every_worker(database_url: str) -> None:
    """The run is there at its tick, scheduled, and begins within the jitter."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(jitter=timedelta(minutes=30)))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        ((status, wakes),) = rows(database_url, "select status, wakes from perdure.run_list")
        assert status == "scheduled"
        assert NOON + HOUR < wakes < NOON + HOUR + timedelta(minutes=30)
        clock.set(wakes)
        assert app.handle("hourly@2026-03-02T13:00:00Z").result(timeout=20) == "13:00"


def test_unknown_names_are_told(database_url: str) -> None:
    """Every verb says that there is no such schedule."""
    with away_at_noon(database_url) as (app, _):
        for verb in (app.schedules.get, app.schedules.pause, app.schedules.resume, app.schedules.delete,
                     app.schedules.trigger):  # fmt: skip
            with pytest.raises(ScheduleNotFound, match="'nobody'"):
                verb("nobody")
        with pytest.raises(ScheduleNotFound):
            app.schedules.update("nobody", cron="* * * * *")
        with pytest.raises(ScheduleNotFound):
            app.schedules.backfill("nobody", NOON, NOON)


def test_they_are_listed_by_name_and_deleted(database_url: str) -> None:
    """A page at a time; a deleted one has no further ticks."""
    with away_at_noon(database_url) as (app, _):
        app.schedules.apply(hourly(name="b"), hourly(held, name="a"), hourly(name="c", paused=True))
        assert [info.name for info in app.schedules.list()] == ["a", "b", "c"]
        assert [info.name for info in app.schedules.list(limit=1, after="a")] == ["b"]
        assert [info.name for info in app.schedules.list(paused=True)] == ["c"]
        assert [info.name for info in app.schedules.list(workflow=held.definition.name)] == ["a"]
        app.schedules.delete("b")
        assert [info.name for info in app.schedules.list()] == ["a", "c"]


@on_loop
async def test_async_code_does_the_same(database_url: str) -> None:
    """Every verb, awaited."""
    async with Perdure(database_url, grace=0) as app:
        start = datetime(2020, 1, 1, tzinfo=UTC)
        assert await app.schedules.apply(hourly()) == ("hourly",)
        assert await app.schedules.apply(hourly()) == ()
        assert [info.name for info in await app.schedules.list()] == ["hourly"]
        await app.schedules.pause("hourly")
        await app.schedules.resume("hourly")
        await app.schedules.update("hourly", cron="30 * * * *", args=("x ",))
        assert (await app.schedules.get("hourly")).cron == "30 * * * *"
        handle = await app.schedules.trigger("hourly")
        assert handle is not None
        assert str(await handle.result(timeout=20)).startswith("x ")
        assert await app.schedules.backfill("hourly", start, start + 3 * HOUR) == 3

        async def ended() -> bool:
            return await app.runs.count(status="succeeded") == 4

        await until_true(ended)
        await app.schedules.delete("hourly")
        with pytest.raises(ScheduleNotFound):
            await app.schedules.get("hourly")


def test_others_have_no_tick(database_url: str) -> None:
    """A run that was started by hand has no `scheduled_at`."""
    with perdure.sync.Perdure(database_url, grace=0):
        assert note("by hand") == "by hand"
