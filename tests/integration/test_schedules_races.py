"""Each tick has one run: with many schedulers at once, killed processes, lost answers, bad rows and strangers."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import perdure
from perdure import Schedule, workflow
from perdure.store import ticks, workers
from perdure.store.ticks import Advance, Round
from perdure.testing import Clock
from perdure.worker.scheduler import Scheduler
from tests.api_tools import rows, until
from tests.process_tools import processes, say
from tests.protocol_tools import Proxy, RawWorker, in_thread, stranger, take_id
from tests.schedule_tools import (
    HOUR,
    LEASE,
    NOON,
    at_noon,
    away_at_noon,
    counts,
    held,
    hourly,
    settled,
    ticks_of,
    until_ticks,
)
from tests.servers import TestServer


@workflow
def quick() -> None:
    """Ends at once."""


def everything(url: str) -> Counter[tuple[str, Any]]:
    """How many runs each tick has, by schedule."""
    found = rows(url, "select schedule, scheduled_at from perdure.runs where not superseded")
    return Counter((name, at) for name, at in found)


def all_settled(url: str) -> None:
    until(lambda: not rows(url, "select 1 from perdure.schedules where next <= perdure.clock() limit 1"))


def test_four_schedulers_share_the_ticks(database_url: str) -> None:
    """Three hundred schedules, ten ticks each, four apps that look all the time: each tick has one run."""
    with at_noon(database_url, threads=4) as (app, clock), ExitStack() as stack:
        app.schedules.apply(
            *(hourly(quick, name=f"s{number:03}", overlap="allow", queue="none") for number in range(300))
        )
        apps = [app]
        for _ in range(3):
            more = perdure.sync.Perdure(database_url, grace=0, lease=LEASE, threads=4)
            apps.append(stack.enter_context(more))
        for hour in range(10):
            clock.advance(HOUR)
            for number in range(len(apps)):  # another one first each time
                apps[(hour + number) % len(apps)].engine.scheduler.wake()
            taken = "select count(*) >= %s from perdure.runs"
            until(partial(_holds, database_url, taken, 300 * (hour + 1)))
        all_settled(database_url)
        wanted = {(f"s{number:03}", NOON + hour * HOUR) for number in range(300) for hour in range(1, 11)}
        assert everything(database_url) == dict.fromkeys(wanted, 1)
        owners = rows(database_url, "select count(distinct worker) from perdure.runs")
        assert owners[0][0] > 1


def _holds(url: str, statement: str, *values: object) -> bool:
    return bool(rows(url, statement, *values)[0][0])


@pytest.mark.session
@pytest.mark.parametrize("overlap", ["skip", "buffer_all"])
def test_schedulers_never_start_two_at_once(database_url: str, overlap: str) -> None:
    """Ticks, ends and triggers at the same time, four schedulers: never two unfinished runs of one schedule."""
    with at_noon(database_url) as (app, clock), ExitStack() as stack:
        app.schedules.apply(hourly(quick, overlap=overlap))
        for _ in range(3):
            stack.enter_context(perdure.sync.Perdure(database_url, grace=0, lease=LEASE))
        most, over = [0], threading.Event()

        def watch() -> None:
            with psycopg.connect(database_url, autocommit=True) as connection:
                while not over.is_set():
                    found = connection.execute("select count(*) from perdure.live").fetchone()
                    most[0] = max(most[0], found[0] if found else 0)

        watching = in_thread(watch)
        for _ in range(30):
            clock.advance(HOUR)
            with app.bind():
                app.schedules.trigger("hourly")
        until(
            lambda: (
                not rows(database_url, "select 1 from perdure.live")
                and not app.schedules.get("hourly").pending
            )
        )
        over.set()
        watching.result()
        assert most == [1]
        skipped, missed = counts(app)
        assert len(rows(database_url, "select 1 from perdure.runs")) + skipped + missed == 60


def test_backfills_and_ticks_meet(database_url: str) -> None:
    """The same span by four at a time, while its ticks come due: one run each."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(quick, overlap="allow", queue="none"))
        clock.advance(200 * HOUR)
        backfills = [
            in_thread(lambda: app.schedules.backfill("hourly", NOON - 200 * HOUR, NOON + 300 * HOUR))
            for _ in range(4)
        ]
        begun = [backfill.result() for backfill in backfills]
        settled(database_url)
        found = everything(database_url)
        assert set(found.values()) == {1}
        made = len(found) - sum(begun)
        assert len(found) == 401
        assert made >= 0
        assert app.schedules.get("hourly").missed <= 176


def serve(url: str) -> None:
    """Be a worker until killed."""
    with perdure.sync.Perdure(url, grace=0, lease=LEASE, threads=4):
        say("ready")
        threading.Event().wait()


def test_killed_in_the_middle_of_ticks(database_url: str) -> None:
    """Two workers, one of which is killed again and again while ticks come due: each tick has one run."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with away_at_noon(database_url) as (app, clock), processes() as family:
        app.schedules.apply(
            *(hourly(quick, name=f"s{number:03}", overlap="allow", queue="none") for number in range(200))
        )
        family.start(__name__, "serve", database_url).wait_for("ready")
        hours = 0
        for _ in range(4):
            victim = family.start(__name__, "serve", database_url)
            victim.wait_for("ready")
            for _ in range(chance.randrange(1, 4)):
                hours += 1
                clock.advance(HOUR)
                rounds = chance.randrange(0, 1 + 200 * hours)
                until(lambda enough=rounds: len(rows(database_url, "select 1 from perdure.runs")) >= enough)  # type: ignore[misc]
            victim.kill()
        all_settled(database_url)
        wanted = {
            (f"s{number:03}", NOON + hour * HOUR) for number in range(200) for hour in range(1, hours + 1)
        }
        assert everything(database_url) == dict.fromkeys(wanted, 1), f"seed {seed}"


def test_a_lost_answer_starts_nothing_twice(database_url: str, server: TestServer) -> None:
    """The commit of a round is answered to nobody: the next look finds the schedule moved."""
    with away_at_noon(database_url) as (app, clock), Proxy(server, database_url) as proxy:
        app.schedules.apply(hourly(quick, queue="none"))
        loss = proxy.lose_answer("perdure scheduler", "COMMIT")
        with perdure.sync.Perdure(proxy.url, grace=0, lease=LEASE):
            clock.advance(HOUR)
            until(loss.happened.is_set)
            until_ticks(database_url, "13:00")
            clock.advance(HOUR)
            settled(database_url)
        assert ticks_of(database_url) == ["13:00"]  # the first has not ended, so the second is skipped


@pytest.mark.parametrize("verb", ["trigger", "backfill"])
def test_a_lost_answer_to_a_command(database_url: str, server: TestServer, verb: str) -> None:
    """It is sent again, recognises what it has done, and tells the same."""
    with away_at_noon(database_url) as (app, _), Proxy(server, database_url) as proxy:
        app.schedules.apply(hourly(quick, overlap="allow", queue="none"))
        with perdure.sync.Perdure(proxy.url, worker=False) as mine:
            loss = proxy.lose_answer("perdure query", "COMMIT")
            if verb == "trigger":
                handle = mine.schedules.trigger("hourly")
                assert [(handle.id,)] if handle else rows(database_url, "select id from perdure.runs") == []
            else:
                assert mine.schedules.backfill("hourly", NOON - 3 * HOUR, NOON) == 3
            assert loss.happened.is_set()
        assert len(rows(database_url, "select 1 from perdure.runs")) == (1 if verb == "trigger" else 3)
        assert len(rows(database_url, "select 1 from perdure.audit")) == 1


def test_a_dead_worker_starts_no_tick(database_url: str) -> None:
    """Declared dead before its round: the fence aborts it, and the schedule stays due."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(quick))
        clock.advance(HOUR)
        with RawWorker(database_url, lease=60) as zombie:
            zombie.expire()
            assert zombie.bury() == [zombie.number]
            with pytest.raises(psycopg.Error) as fenced:
                Round(zombie.connection, zombie.database, zombie.number, 1.0).move(lambda *_: [], [])
            assert fenced.value.sqlstate == "PD001"
        assert ticks_of(database_url) == []


def test_a_funeral_waits_for_a_round(database_url: str) -> None:
    """A worker that is in the middle of one cannot be declared dead before its commit."""
    with away_at_noon(database_url) as (app, clock), RawWorker(database_url, lease=60) as slow:
        app.schedules.apply(hourly(quick))
        clock.advance(HOUR)
        slow.expire()
        funerals: list[Any] = []

        def decide(*_: Any) -> list[Advance]:
            funeral = in_thread(slow.bury)
            waits = "select 1 from pg_stat_activity where application_name = 'perdure reaper' and wait_event_type = 'Lock'"
            until(lambda: rows(database_url, waits))
            funerals.append(funeral)
            return []

        # If this process is not quick enough the funeral ends the backend that is in its way: then nothing is written.
        with suppress(psycopg.Error):
            Round(slow.connection, slow.database, slow.number, 1.0).move(decide, [])
        assert funerals[0].result() == [slow.number]


def test_a_schedule_that_makes_no_sense_hurts_no_other(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its row was changed by hand: it is left alone and told of, the others have their ticks."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(overlap="allow"), hourly(name="bad"), hourly(name="zone"))
        rows(database_url, "update perdure.schedules set cron = 'every now and then' where name = 'bad'")
        rows(database_url, "update perdure.schedules set timezone = 'Mars/Base' where name = 'zone'")
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        until(lambda: "schedule bad cannot be moved on here" in caplog.text)
        assert "no time zone 'Mars/Base'" in caplog.text
        assert ticks_of(database_url, "bad") == []
        assert {info.name for info in app.schedules.list()} == {"hourly", "bad", "zone"}
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", "14:00")


def test_middleware_that_refuses_leaves_the_tick_due(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again later, and told of; others go on."""

    class Refuses(perdure.Middleware):
        def start(self, start: perdure.StartInfo) -> None:
            if start.id is not None and start.id.startswith("bad@"):
                raise PermissionError("not today")

    with at_noon(database_url, middleware=[Refuses()]) as (app, clock):
        app.schedules.apply(hourly(), hourly(name="bad"))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        until(lambda: "PermissionError: not today" in caplog.text)
        assert app.schedules.get("bad").next == NOON + HOUR


def test_a_stranger_who_holds_an_id_hurts_no_other(database_url: str) -> None:
    """Somebody starts a run under a tick's id in an open transaction: the other ticks do not wait for him."""
    with at_noon(database_url) as (app, clock), stranger(database_url) as other:
        app.schedules.apply(*(hourly(name=name) for name in "abc"))
        take_id(other, "b@2026-03-02T13:00:00Z")
        clock.advance(HOUR)
        for name in "ac":
            until_ticks(database_url, "13:00", name=name)
        assert ticks_of(database_url, "b") == []
        other.commit()
        settled_b = "select 1 from perdure.schedules where name = 'b' and next > perdure.clock()"
        app.engine.scheduler._put_off.clear()
        app.engine.scheduler.wake()
        until(lambda: rows(database_url, settled_b))
        assert rows(database_url, "select workflow from perdure.runs where id like 'b@%'") == [("strange",)]


def test_what_waits_is_found_without_hints(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends and nobody tells the scheduler: its own poll finds it."""
    monkeypatch.setattr("perdure.worker.scheduler.POLL_SECONDS", 0.2)
    monkeypatch.setattr(Scheduler, "wake", lambda _self: None)
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(held, overlap="buffer_one"))
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        clock.advance(HOUR)
        settled(database_url)
        app.handle("hourly@2026-03-02T13:00:00Z").send("end", None)
        until_ticks(database_url, "13:00", "14:00")


@pytest.fixture
def ten_thousand(database_url: str) -> Iterator[tuple[perdure.sync.Perdure, Clock]]:
    """Ten thousand schedules, of which a hundred are due at each minute."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(
            *(
                Schedule(
                    quick,
                    every=HOUR * 100 / 60,
                    anchor=NOON + timedelta(minutes=number % 100),
                    name=f"s{number}",
                )
                for number in range(10_000)
            )
        )
        rows(database_url, "vacuum analyze perdure.schedules")
        yield app, clock


def plan_of(url: str, statement: str, parameters: dict[str, Any]) -> tuple[str, int]:
    """The plan of a statement, and how many pages it touched."""
    with psycopg.connect(url) as connection:
        explained = "explain (analyze, buffers) " + statement
        found = connection.execute(explained.encode(), parameters).fetchall()
        connection.rollback()
    text = "\n".join(line for (line,) in found)
    numbers = [int(number) for number in re.findall(r"shared hit=(\d+)", text.partition("Planning")[0])[:1]]
    return text, numbers[0]


def test_ten_thousand_schedules_cost_little(
    database_url: str, ten_thousand: tuple[perdure.sync.Perdure, Clock]
) -> None:
    """A look and a round read what is due through the index, and nothing of the others."""
    app, clock = ten_thousand
    clock.advance(timedelta(seconds=30))
    statements = app.database.statements
    put_off: dict[str, Any] = {"put_off": []}
    text, pages = plan_of(database_url, statements["look_at_schedules"], put_off)
    assert "schedules_next" in text
    assert "Seq Scan on schedules" not in text
    assert pages < 30
    text, pages = plan_of(database_url, statements["take_due_schedules"], put_off | {"limit": 1000})
    assert "schedules_next" in text
    assert pages < 400  # a hundred rows are locked
    text, pages = plan_of(database_url, statements["take_waiting_schedules"], put_off | {"limit": 1000})
    assert "Seq Scan on schedules" not in text
    assert pages < 30
    found = ticks.look(app.database, [])
    assert (found.waits, found.ready) == (False, False)
    assert found.due_in is not None


def test_ten_thousand_at_once(database_url: str) -> None:
    """All due at one moment: taken a thousand at a time, each has its run."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(*(hourly(quick, name=f"s{number}", queue="none") for number in range(10_000)))
        clock.advance(HOUR)
        all_settled(database_url)
        assert rows(database_url, "select count(*), count(distinct schedule) from perdure.runs") == [
            (10_000, 10_000)
        ]


@pytest.mark.session
def test_an_idle_worker_asks_once_in_twenty_seconds(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without schedules a look is one statement, and the next is twenty seconds later."""
    asked: list[str] = []
    with perdure.sync.Perdure(database_url, grace=0) as app:
        app.engine.scheduler.stop()

        def run(name: str, *_: Any) -> list[tuple[Any, ...]]:
            asked.append(name)
            return [(None, False, False)]

        monkeypatch.setattr(app.database, "run", run)
        quiet = Scheduler(app.engine)
        assert quiet.tick() == 20.0
        assert asked == ["look_at_schedules"]


def test_a_worker_has_a_fence_for_its_rounds(database_url: str) -> None:
    """The scheduler's slot is no transaction step's."""
    with perdure.sync.Perdure(database_url, grace=0):
        slots = {slot for (slot,) in rows(database_url, "select slot from perdure.fences")}
        assert workers.SCHEDULE_SLOT in slots
        assert workers.SCHEDULE_SLOT < workers.FIRST_TRANSACTION_SLOT
