"""Who is alive is decided in one place, and a life that is over is over.

The funeral and the heartbeat meet on one row; the winner decides. What a living worker owns is never taken from it,
whenever it registered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from perdure import step, sync, workflow
from perdure.store import workers
from perdure.sync import Perdure
from perdure.worker.incarnation import Incarnation
from tests.api_tools import rows, until
from tests.protocol_tools import RawWorker, in_thread, step_of, stranger

go = threading.Event()
bodies: list[str] = []


@step(name="reaper.body")
def body() -> str:
    bodies.append("body")
    return "done"


@step(name="reaper.first")
def first() -> str:
    go.wait(20)
    return "first"


@workflow(name="reaper.flow")
def flow() -> str:
    first()
    return body()


@workflow(name="reaper.quick")
def quick() -> None: ...


@pytest.fixture
def worker(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url) as made:
        yield made


def test_heartbeat_that_comes_first_saves_the_worker(worker: RawWorker, database_url: str) -> None:
    """The renewal is under way when the reaper comes: the reaper waits, looks again, and leaves it alone."""
    worker.expire()
    with worker.database.connect("heartbeat") as beating:
        with beating.transaction():
            assert workers.renew(beating, worker.database, worker.number) is not None
            funeral = in_thread(worker.bury)
            until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        assert funeral.result() == []
    worker.write(step_of(worker.start()))


def test_funeral_that_comes_first_ends_the_worker(worker: RawWorker, database_url: str) -> None:
    """The funeral is under way when the heartbeat comes: the heartbeat waits and is told that it is dead."""
    worker.expire()
    with worker.database.connect("reaper") as burying, worker.database.connect("heartbeat") as beating:
        with burying.transaction():
            assert burying.execute(worker.database.statements["bury_workers"], ()).fetchall() == [
                (worker.number,)
            ]
            renewal = in_thread(lambda: workers.renew(beating, worker.database, worker.number))
            until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        assert renewal.result() is None
    with pytest.raises(psycopg.Error, match="no longer alive"):
        worker.start()


def test_many_reapers_bury_one_worker_once(worker: RawWorker, database_url: str) -> None:
    """Eight at once: one of them declares it dead, and its run is requeued once."""
    run = worker.start()
    worker.expire()
    funerals = [in_thread(worker.bury) for _ in range(8)]
    assert [dead for funeral in funerals for dead in funeral.result()] == [worker.number]
    requeued = [in_thread(worker.requeue) for _ in range(8)]
    assert [key for one in requeued for key in one.result()] == [run]
    assert rows(database_url, "select recoveries from perdure.live") == [(1,)]
    assert rows(database_url, "select count(*) from perdure.takeovers") == [(1,)]


def test_runs_of_a_worker_that_registered_a_moment_ago_are_its_own(
    worker: RawWorker, database_url: str
) -> None:
    """Whoever looks for orphans while workers register and start runs takes none of theirs."""
    taken: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            taken.extend(worker.requeue())

    looking = in_thread(look)
    newcomers = []
    for _ in range(15):
        newcomers.append(RawWorker(database_url))
        newcomers[-1].start()
    stop.set()
    looking.result()
    for newcomer in newcomers:
        newcomer.close()
    assert taken == []


def test_orphans_found_before_a_takeover_are_not_taken_after_it(worker: RawWorker, database_url: str) -> None:
    """A reaper that looked before another one requeued, and a new owner claimed, leaves the run to its new owner."""
    run = worker.start()
    worker.expire()
    worker.bury()
    statements = worker.database.statements
    with worker.database.connect("late reaper") as late, RawWorker(database_url) as heir:
        assert late.execute(statements["find_orphans"], ()).fetchall() == [(worker.number,)]
        assert heir.requeue() == [run]
        rows(database_url, "update perdure.live set status = 3, worker = %s where key = %s", heir.number, run)
        parameters = {"workers": [worker.number], "limit": 10}
        assert late.execute(statements["requeue_orphans"], parameters).fetchall() == []
    assert rows(database_url, "select worker from perdure.live") == [(heir.number,)]


def test_worker_that_registered_twice_can_be_buried_twice(worker: RawWorker, database_url: str) -> None:
    """A registration repeated after its funeral, as after a lost answer, does not stop every later funeral."""
    worker.expire()
    assert worker.bury() == [worker.number]
    workers.register(worker.database, worker.number, worker.registration)
    with RawWorker(database_url) as other:
        worker.expire()
        other.expire()
        assert other.number in worker.bury()
    assert rows(database_url, "select id from perdure.workers") == []


def test_funeral_ends_nobody_but_who_holds_the_dead(worker: RawWorker, database_url: str) -> None:
    """A transaction of a living worker and one of a stranger outlive the funeral of another."""
    with RawWorker(database_url) as living, stranger(database_url) as somebody:
        somebody.execute("select 1")
        with living.connection.transaction(), worker.database.connect("zombie") as zombie:
            fence = "select perdure.fence(%s, 0::smallint)"
            living.connection.execute(fence, (living.number,))
            zombie.execute("begin")
            zombie.execute(fence, (worker.number,))
            worker.expire()
            worker.bury()
            living.connection.execute("select 1")
            with pytest.raises(psycopg.OperationalError):
                zombie.execute("select 1")
        somebody.execute("select 1")
    assert rows(database_url, "select id from perdure.workers") == [(living.number,)]


def test_a_life_that_was_over_is_over(database_url: str) -> None:
    """A renewal that succeeds after the worker gave up runs does not bring that life back with the runs lost."""
    bodies.clear()
    go.clear()
    with Perdure(database_url, lease=2, grace=0) as app:
        life = app.runtime
        assert isinstance(life, Incarnation)
        handle = sync.start(flow)
        until(lambda: rows(database_url, "select 1 from perdure.live where status = 3"))
        with stranger(database_url) as holder:
            # For the reaper this is a heartbeat under way; the heartbeat waits behind it.
            rows(database_url, "update perdure.workers set expires = expires + interval '1 hour'")
            holder.execute("select 1 from perdure.workers for update")
            until(lambda: not life.alive(), 10)
            go.set()
            until(lambda: not app.engine.executor.count or life.dead, 10)
        assert handle.result(10) == "done"


def test_worker_declared_dead_stops_and_lives_again(database_url: str) -> None:
    """Buried while it is well, a worker drops what it had, registers anew, and finishes the run itself."""
    bodies.clear()
    go.clear()
    with Perdure(database_url, lease=2, grace=0) as app, RawWorker(database_url) as reaper:
        life = app.runtime
        handle = sync.start(flow)
        until(lambda: rows(database_url, "select 1 from perdure.live where status = 3"))
        rows(
            database_url,
            "update perdure.workers set expires = perdure.clock() - interval '1 s' where id = %s",
            life.worker,
        )
        reaper.bury()
        go.set()
        assert handle.result(10) == "done"
        until(lambda: app.runtime is not life)
    assert bodies in (["body"], ["body", "body"])
    assert rows(database_url, "select distinct worker = %s from perdure.ends", life.worker) == [(False,)]


def test_runs_that_end_in_time_cost_no_sweep(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty runs with deadlines: nothing is swept for those that have ended, neither at their starts nor later."""
    with Perdure(database_url, lease=60, grace=0) as app:
        reaper = app.engine.reaper
        reaper.stop()
        sweeps: list[object] = []

        def swept(types: object) -> tuple[int, bool, bool, float | None, bool]:
            sweeps.append(types)
            return (0, False, False, None, False)

        monkeypatch.setattr(reaper, "_sweep", swept)
        reaper._sweep_at = float("inf")
        for _ in range(30):
            assert quick.options(timeout=0.4).start().result(timeout=20) is None
        reaper.tick()
        assert (sweeps, reaper._deadlines) == ([], {})


def test_a_slow_sweep_is_followed_by_a_rest(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind dead rows it may take a tenth of the time, also where deadlines pass meanwhile."""
    with Perdure(database_url, lease=60, grace=0) as app:
        reaper = app.engine.reaper
        reaper.stop()
        sweeps: list[object] = []

        def slow(types: object) -> tuple[int, bool, bool, float | None, bool]:
            threading.Event().wait(0.3)
            sweeps.append(types)
            return (0, False, False, None, False)

        monkeypatch.setattr(reaper, "_sweep", slow)
        reaper._rested_at = 0.0
        pauses = []
        for run in (1, 2):
            reaper.expect(run, 0)
            until(lambda: reaper._line[0][0] < time.monotonic())
            pauses.append(reaper.tick())
        assert len(sweeps) == 1
        assert all(pause is not None and pause > 1 for pause in pauses)


def test_a_sweep_follows_when_the_first_lease_runs_out(database_url: str) -> None:
    """The dead are found when they are dead, not up to an interval later; who lives, and has renewed, costs no more sweeps."""
    with (
        RawWorker(database_url) as dead,
        RawWorker(database_url, lease=4.5) as other,
        Perdure(database_url, lease=15, grace=0) as app,
    ):
        reaper = app.engine.reaper
        reaper.stop()
        dead.expire()  # of several that die together each is found in its time
        reaper._sweep_at = 0.0
        assert 0 < (reaper.tick() or 0) < 4.6 < reaper.interval
        rows(database_url, "update perdure.workers set expires = expires + interval '1 minute' returning 1")
        reaper._sweep_at = 0.0
        assert (reaper.tick() or 0) > 4.6
        other.expire()
        reaper._sweep_at = 0.0
        assert (reaper.tick() or 0) > 4.6
        buried = rows(database_url, "select id from perdure.workers_gone order by id")
        assert buried == [(dead.number,), (other.number,)]
        reaper.close()
