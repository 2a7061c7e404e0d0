"""A worker that stops in order hands over at once: nobody waits for its lease, and no crash is counted."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import perdure
from perdure import Connection, step, sync, transaction, workflow
from perdure.store.database import Database
from perdure.sync import Perdure
from tests.api_tools import rows, until

door = threading.Event()
entered = threading.Semaphore(0)
bodies: list[str] = []


@step(name="stop.body")
def body() -> str:
    bodies.append("body")
    entered.release()
    door.wait(20)
    return "done"


@workflow(name="stop.flow")
def flow() -> str:
    sync.sleep(0.001)
    return body()


@workflow(name="stop.flow_async")
async def flow_async() -> str:
    await perdure.sleep(0.001)
    return await perdure.run_step(body)


@workflow(name="stop.sleeper")
async def sleeper() -> str:
    await perdure.sleep(0.7)
    return "slept"


@workflow(name="stop.hanging")
async def hanging() -> None:
    entered.release()
    await perdure.run_step(asleep)


@step(name="stop.asleep")
async def asleep() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("flow", [flow, flow_async], ids=["blocking", "async"])
def test_run_goes_on_elsewhere_at_once(flow: Any, database_url: str) -> None:
    """A lease of a minute, no grace: the other worker has the run within a second, as no recovery."""
    bodies.clear()
    door.clear()
    first = Perdure(database_url, lease=60, grace=0).open()
    with Perdure(database_url, worker=False) as client, client.bind():
        with first.bind():
            handle: sync.Handle[str] = sync.start(flow)
        assert entered.acquire(timeout=10)
        with Perdure(database_url, lease=60, grace=0):
            began = time.monotonic()
            first.close()
            assert entered.acquire(timeout=10)
            took = time.monotonic() - began
            assert rows(database_url, "select recoveries from perdure.live") == [(0,)]
            door.set()
            assert client.handle(handle.id).result(10) == "done"
    assert took < 1.5
    assert rows(database_url, "select 1 from perdure.takeovers") == []
    assert rows(database_url, "select reason from perdure.workers_gone order by ended limit 1") == [
        ("stopped",)
    ]


def test_a_cancel_reaches_a_run_within_the_grace(database_url: str) -> None:
    """The worker has been told to stop, and would wait a minute for the step: the cancel ends it, and the worker."""
    worker = Perdure(database_url, grace=60).open()
    with Perdure(database_url, worker=False) as client, client.bind():
        with worker.bind():
            handle: sync.Handle[None] = sync.start(hanging)
        assert entered.acquire(timeout=10)
        stopping = threading.Thread(target=worker.close)
        stopping.start()
        until(lambda: not worker.engine.accepts_runs())
        assert client.handle(handle.id).cancel()
        stopping.join(20)
        assert not stopping.is_alive()
        assert client.handle(handle.id).status() == "cancelled"


def test_what_can_finish_in_the_grace_finishes(database_url: str) -> None:
    """With grace the worker waits for its runs, takes no new ones, and leaves nothing behind."""
    door.clear()
    app = Perdure(database_url, lease=60, grace=20).open()
    with app.bind():
        handle = sync.start(flow)
    assert entered.acquire(timeout=10)
    closing = threading.Thread(target=app.close)
    closing.start()
    until(lambda: not app._settings.worker or closing.is_alive())
    door.set()
    closing.join(20)
    assert rows(database_url, "select status from perdure.ends") == [(7,)]
    assert rows(database_url, "select 1 from perdure.live") == []
    assert handle.created


def test_stopped_worker_owns_nothing(database_url: str) -> None:
    """Whatever its runs were doing, after the stop no run names it as its owner, and its fences are gone."""
    door.clear()
    with Perdure(database_url, lease=60, grace=0):
        for _ in range(5):
            sync.start(sleeper)
            sync.start(flow)
        for _ in range(5):
            assert entered.acquire(timeout=10)
    assert rows(database_url, "select 1 from perdure.live where worker is not null or status = 3") == []
    assert rows(database_url, "select 1 from perdure.fences") == []
    assert rows(database_url, "select count(*) from perdure.live") == [(10,)]
    door.set()


@transaction(name="stop.write")
def write(conn: Connection) -> int:
    conn.execute("insert into written values (1)")
    entered.release()
    door.wait(20)
    return len(conn.execute("select 1 from written").fetchall())


@workflow(name="stop.writes")
def writes() -> int:
    return write()


def test_stop_in_the_middle_of_a_blocking_transaction(database_url: str) -> None:
    """The body goes on in its thread and cannot be interrupted: the stop does not wait for it, and nothing of it counts."""
    rows(database_url, "create table written (number int)")
    door.clear()
    first = Perdure(database_url, lease=60, grace=0).open()
    with first.bind():
        handle = sync.start(writes)
    assert entered.acquire(timeout=10)
    began = time.monotonic()
    first.close()
    assert time.monotonic() - began < 5
    assert rows(database_url, "select status, worker from perdure.live") == [(2, None)]
    door.set()
    with Perdure(database_url, lease=60, grace=0) as second, second.bind():
        assert second.handle(handle.id).result(10) == 1
    assert rows(database_url, "select count(*) from written") == [(1,)]


def test_connection_that_is_lent_when_the_database_is_closed_is_closed_as_it_comes_back(
    database_url: str,
) -> None:
    """A thread that has an answer at this moment would leave it open for good; opened again, connections are kept."""
    database = Database(database_url)
    database.open()
    with database.borrow() as lent:
        database.close()
    assert lent.closed
    database.open()
    with database.borrow() as lent:
        pass
    assert not lent.closed
    database.close()
    assert lent.closed
