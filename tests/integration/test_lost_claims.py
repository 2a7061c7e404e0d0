"""A claim that was committed is either worked on or given back, whatever became of its answer.

And nothing is given back that is only about to begin.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from perdure import step, sync, workflow
from perdure.sync import Perdure
from perdure.worker.incarnation import Incarnation
from tests.api_tools import rows, until
from tests.claim_tools import poll as poll_by_hand
from tests.protocol_tools import Proxy, RawWorker, in_thread, stranger
from tests.servers import TestServer

bodies: list[int] = []
entered = threading.Semaphore(0)
door = threading.Event()


@step(name="claims.body")
def body(number: int) -> int:
    bodies.append(number)
    entered.release()
    door.wait(20)
    return number


@workflow(name="claims.flow")
def flow(number: int) -> int:
    return body(number)


@workflow(name="claims.sleeps")
def sleeps(number: int) -> int:
    sync.sleep(0.01)
    return body(number)


@pytest.fixture(autouse=True)
def closed_door() -> Iterator[None]:
    bodies.clear()
    door.clear()
    while entered.acquire(blocking=False):
        pass
    yield
    door.set()


def test_claim_whose_answer_is_lost_is_given_back(server: TestServer, database_url: str) -> None:
    """The claim commits, its answer does not arrive: the run is given back and claimed again, by the same worker."""
    door.set()
    with Proxy(server, database_url) as proxy, Perdure(proxy.url, lease=3, grace=0) as app:
        worker = app.runtime.worker
        loss = proxy.lose_answer("perdure producer", "SELECT [1-9][0-9]*")
        with Perdure(database_url, worker=False) as client, client.bind():
            handle = sync.start(flow.options(queue="default"), 1)
            assert handle.result(10) == 1
        assert loss.happened.is_set()
        assert app.runtime.worker == worker
    assert bodies == [1]
    assert rows(database_url, "select 1 from perdure.takeovers") == []


def test_claim_whose_history_cannot_be_read_gives_its_runs_back(database_url: str) -> None:
    """The claim is committed, and reading the history fails with an error that loses no connection."""
    door.set()
    with Perdure(database_url, lease=3, grace=0) as app:
        with stranger(database_url) as holder:
            holder.execute("lock table perdure.intents in access exclusive mode")
            with Perdure(database_url, worker=False) as client, client.bind():
                handle = sync.start(sleeps.options(queue="elsewhere"), 1)
                rows(database_url, "update perdure.live set begun = true, queue = 'default'")
                cancelled = (
                    "select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'perdure producer' "
                    "and wait_event_type = 'Lock'"
                )
                until(lambda: rows(database_url, cancelled), 10)
                holder.rollback()
                assert handle.result(10) == 1
        assert app.runtime.alive()


def test_reconciling_keeps_what_is_about_to_begin(server: TestServer, database_url: str) -> None:
    """A run whose start is committed and not yet answered, and one that is in memory, are not given back."""
    with Proxy(server, database_url) as proxy, Perdure(proxy.url, lease=4, grace=0) as app:
        producer, incarnation = app.engine.producer, app.runtime
        assert isinstance(incarnation, Incarnation)
        running = sync.start(flow, 1)
        assert entered.acquire(timeout=10)
        producer.stop()
        loss = proxy.lose_answer("perdure journal-2", "INSERT 0 1|COMMIT", cut=False)
        starting = in_thread(lambda: sync.start(flow.options(id="about-to-begin"), 2))
        assert loss.happened.wait(10)
        producer._reconcile(incarnation)
        producer.close()
        owners = rows(database_url, "select status, worker from perdure.live")
        assert owners == [(3, incarnation.worker)] * 2
        handle = starting.result()
        door.set()
        assert (running.result(10), handle.result(10)) == (1, 2)
    assert sorted(bodies) == [1, 2]


def test_two_workers_that_race_for_a_run_get_it_once(database_url: str) -> None:
    """Eight claims at once over fifty runs: each run has one owner, and every claim's answer agrees with the table."""
    with RawWorker(database_url) as first:
        workers = [first, *(RawWorker(database_url) for _ in range(7))]
        with first.connection.transaction():
            for number in range(50):
                first.connection.execute(
                    "insert into perdure.runs (key, id, workflow, input) values (%s, %s, 'attacked', '[]')",
                    (-number - 1, f"r{number}"),
                )
                first.connection.execute(
                    "insert into perdure.live (key, workflow, status) values (%s, 'attacked', 2)",
                    (-number - 1,),
                )
        got: dict[int, list[int]] = {}

        def claim(worker: RawWorker) -> None:
            found = poll_by_hand(worker, "attacked")
            got[worker.number] = [run.key for run in found]

        for racing in [in_thread(partial(claim, worker)) for worker in workers]:
            racing.result()
        for worker in workers[1:]:
            worker.close()
    claimed = [(key, number) for number, keys in got.items() for key in keys]
    assert len(claimed) == len({key for key, _ in claimed}) == 50
    assert sorted(claimed) == sorted(
        rows(database_url, "select key, worker from perdure.live where status = 3")
    )
