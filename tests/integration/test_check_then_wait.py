"""Nobody sleeps for ever: whoever waits and whoever brings the answer see each other, in both orders, without a hint.

For every wait (a time, the end of a child, the end of another run): the answer comes just before the run is put away,
while it is, and just after; NOTIFY is off, so that only the tables can tell.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import step, sync, workflow
from perdure.store import claims
from perdure.store.records import EndRecord, Outcome, PutAway, WaitRecord
from perdure.sync import Perdure
from perdure.testing.clock import Clock
from perdure.worker.hints import Hints
from perdure.worker.listener import Listener
from tests.api_tools import on_loop, rows, until, until_true
from tests.claim_tools import poll as poll_by_hand
from tests.protocol_tools import RawWorker, in_thread, stranger

STATUS = "select status from perdure.live where key = %s"
WAITING, QUEUED, RUNNING = 4, 2, 3


@pytest.fixture(autouse=True)
def notify_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, and nobody hints: what is found is found in the tables."""
    monkeypatch.setattr(Listener, "start", lambda self: None)
    monkeypatch.setattr(Hints, "committed", lambda self, batch: None)
    for name in ("work", "ended", "cancel"):
        monkeypatch.setattr(Hints, name, lambda self: None)


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url, single=False) as worker:
        yield worker


def waiting_for(owner: RawWorker, target: int | None, seconds: float | None = None) -> tuple[int, PutAway]:
    """A run with a committed wait, and the record that would put it away."""
    run = owner.start()
    owner.write(WaitRecord(run, "1", seconds=seconds, target=target))
    return run, PutAway(run, {"1": None})


def put_away_parameters(owner: RawWorker, run: int) -> dict[str, Any]:
    return {
        "keys": [run],
        "claims": [0],
        "worker": owner.number,
        "run": [run],
        "position": ["1"],
        "seen": [None],
    }


def wake(owner: RawWorker, ended: int) -> list[int]:
    return claims.wake_waiters(owner.database, [ended])


def sweep(owner: RawWorker) -> None:
    owner.connection.execute(
        owner.database.statements["sweep"], {"timeout": b"null", "expired": b"null", "left": 5.0, "types": []}
    )


# -- the end of another run ----------------------------------------------------------------------------


def test_end_before_the_put_away_keeps_the_run(owner: RawWorker) -> None:
    """The target ended, and found nobody waiting yet: the run is not put away."""
    target = owner.start()
    run, away = waiting_for(owner, target)
    owner.write(EndRecord(target, 7, b"1"))
    assert wake(owner, target) == []
    owner.write(away)
    assert away.outcome is Outcome.STAY
    assert rows(owner.database.url, STATUS, run) == [(RUNNING,)]


def test_end_after_the_put_away_wakes_the_run(owner: RawWorker) -> None:
    """The run was put away first: whoever ends the target finds it waiting."""
    target = owner.start()
    run, away = waiting_for(owner, target)
    owner.write(away)
    assert away.outcome is Outcome.WON
    owner.write(EndRecord(target, 7, b"1"))
    assert wake(owner, target) == [run]
    assert rows(owner.database.url, STATUS, run) == [(QUEUED,)]


def test_end_while_the_put_away_is_open_wakes_the_run(owner: RawWorker, database_url: str) -> None:
    """Put away but not committed when the target ends: the waker waits for that commit, and then wakes it."""
    target = owner.start()
    run, _ = waiting_for(owner, target)
    statements = owner.database.statements
    with owner.database.connect("second") as second, second.transaction():
        second.execute(statements["lock_runs"], {"keys": [run]})
        put_away = put_away_parameters(owner, run)
        assert second.execute(statements["put_away"], put_away).fetchall() == [(run,)]
        owner.write(EndRecord(target, 7, b"1"))
        waking = in_thread(lambda: wake(owner, target))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
    assert waking.result() == [run]
    assert rows(database_url, STATUS, run) == [(QUEUED,)]


def test_end_while_the_put_away_has_only_locked_keeps_the_run(owner: RawWorker, database_url: str) -> None:
    """The target ends between the lock and the look of the put-away: the look sees it."""
    target = owner.start()
    run, _ = waiting_for(owner, target)
    statements = owner.database.statements
    with owner.database.connect("second") as second, second.transaction():
        second.execute(statements["lock_runs"], {"keys": [run]})
        owner.write(EndRecord(target, 7, b"1"))
        put_away = put_away_parameters(owner, run)
        assert second.execute(statements["put_away"], put_away).fetchall() == []
    assert rows(database_url, STATUS, run) == [(RUNNING,)]


def test_end_and_put_away_in_one_batch_keeps_the_run(owner: RawWorker) -> None:
    """Parent and child are written together: the parent is not put away."""
    target = owner.start()
    run, away = waiting_for(owner, target)
    owner.write(away, EndRecord(target, 7, b"1"))
    assert away.outcome is Outcome.STAY
    assert rows(owner.database.url, STATUS, run) == [(RUNNING,)]


def test_waker_that_died_is_made_up_for(owner: RawWorker) -> None:
    """The target's worker died between its end and waking anybody: the next sweep wakes."""
    target = owner.start()
    run, away = waiting_for(owner, target)
    owner.write(away)
    owner.write(EndRecord(target, 7, b"1"))
    sweep(owner)
    assert rows(owner.database.url, STATUS, run) == [(QUEUED,)]


# -- a time ----------------------------------------------------------------------------------------------


def poll(owner: RawWorker) -> list[int]:
    found = poll_by_hand(owner, "attacked")
    return [run.key for run in found]


def test_time_that_comes_before_the_put_away_keeps_the_run(owner: RawWorker, database_url: str) -> None:
    """It is time already when the run would be put away: it stays."""
    with Clock(database_url) as clock:
        _, away = waiting_for(owner, None, 60)
        clock.advance(60)
        owner.write(away)
        assert away.outcome is Outcome.STAY


def test_time_that_comes_after_the_put_away_wakes_the_run(owner: RawWorker, database_url: str) -> None:
    """Not a moment before its time, and at the next poll after it."""
    with Clock(database_url) as clock:
        run, away = waiting_for(owner, None, 60)
        owner.write(away)
        assert away.outcome is Outcome.WON
        clock.advance(59.999)
        assert poll(owner) + poll(owner) == []
        clock.advance(0.001)
        assert poll(owner) + poll(owner) == [run]


def test_whichever_comes_first_wakes_the_run(owner: RawWorker, database_url: str) -> None:
    """A wait for an end with a time limit: either of the two wakes, the other changes nothing after."""
    with Clock(database_url) as clock:
        targets = [owner.start() for _ in range(2)]
        waits = [waiting_for(owner, target, 60) for target in targets]
        for _, away in waits:
            owner.write(away)
        owner.write(EndRecord(targets[0], 7, b"1"))
        assert wake(owner, targets[0]) == [waits[0][0]]
        clock.advance(60)
        assert sorted(poll(owner) + poll(owner)) == sorted(run for run, _ in waits)
        owner.write(EndRecord(targets[1], 7, b"1"))
        assert wake(owner, targets[1]) == []


# -- with engines ----------------------------------------------------------------------------------------

gone_on: list[str] = []
go = threading.Event()


@step(name="wait.wait_for_go")
def wait_for_go() -> str:
    go.wait(20)
    return "child"


@workflow(name="wait.child")
def child() -> str:
    return wait_for_go()


@workflow(name="wait.parent")
def parent() -> str:
    return child()


@workflow(name="wait.of_another")
def of_another(id: str) -> str:
    return child.handle(id).result()


@workflow(name="wait.sleeper")
async def sleeper(seconds: float) -> str:
    await perdure.sleep(seconds)
    gone_on.append("sleeper")
    return "slept"


@pytest.mark.parametrize("put_away", [True, False], ids=["put away", "in memory"])
@pytest.mark.parametrize("kind", ["child", "another run"])
def test_every_wait_for_an_end_ends(
    kind: str, put_away: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a child and of another run, in two processes' engines, found by polling alone."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05 if put_away else 60)
    go.clear()
    first = Perdure(database_url, lease=1, grace=0)
    with first, Perdure(database_url, lease=1, grace=0) as second, second.bind():
        if kind == "child":
            handle = sync.start(parent)
        else:
            sync.start(child.options(id="another"))
            handle = sync.start(of_another, "another")
        if put_away:
            until(lambda: rows(database_url, "select 1 from perdure.live where status = 4"))
        else:
            until(lambda: rows(database_url, "select 1 from perdure.live having count(*) = 2"))
        go.set()
        assert handle.result(10) == "child"


@on_loop
async def test_timer_that_fires_while_the_run_is_put_away_does_not_let_it_go_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is busy while the timer fires and the put-away commits: the run is away, and its code stands still."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.3)
    gone_on.clear()
    async with perdure.Perdure(database_url, lease=30, grace=0) as app:
        engine = app.engine
        with Clock(database_url) as clock:
            handle = await perdure.start(sleeper, 0.8)
            key = rows(database_url, "select key from perdure.live")[0][0]
            await until_true(lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.waits"))
            with stranger(database_url) as holder:
                holder.execute("select 1 from perdure.live where key = %s for update", (key,))
                run = engine.executor._runs[key]
                await until_true(lambda: asyncio.to_thread(lambda: run.leaving))
                signal = next(iter(run.waiting.values())).signal
                # From here on this thread, which is the loop's, is busy.
                clock.advance(1)
                until(lambda: signal.done, 5)
                clock.set(clock.advance(0) - timedelta(seconds=1))
            until(lambda: run.leaving is not None and run.leaving.done, 5)
            assert rows(database_url, STATUS, key) == [(WAITING,)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert gone_on == []
            clock.advance(1)
            assert await handle.result(10) == "slept"
    assert gone_on == ["sleeper"]


@workflow(name="wait.in_memory")
async def in_memory() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(perdure.sleep(0.3))
        group.create_task(perdure.run_step(wait_for_go))
    return "both"


@on_loop
async def test_timer_survives_a_question_that_failed(database_url: str) -> None:
    """The statement that asks whether it is time is cancelled by somebody: it is asked again."""
    go.clear()
    async with perdure.Perdure(database_url, lease=30, grace=0):
        handle = await perdure.start(in_memory)
        await until_true(lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.waits"))
        with stranger(database_url) as holder:
            holder.execute("lock table perdure.waits in access exclusive mode")
            cancelled = (
                "select pg_cancel_backend(pid) from pg_stat_activity where query like '%join%waits%' "
                "and wait_event_type = 'Lock'"
            )
            await asyncio.to_thread(until, lambda: rows(database_url, cancelled), 10)
        go.set()
        assert await handle.result(10) == "both"


def test_the_hints_are_really_off(database_url: str) -> None:
    """Nothing of these tests listens."""
    with Perdure(database_url, lease=1, grace=0):
        listening = rows(database_url, "select 1 from pg_stat_activity where query ilike 'listen%'")
    assert listening == []
