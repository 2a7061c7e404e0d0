"""A worker that stands still past its lease and wakes up: its run is elsewhere by then, and it can write nothing.

The woken process notices, lets go of what it had, and works on as a new incarnation.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

import psycopg
import pytest

import perdure
from perdure import AsyncConnection, Connection, Perdure, step, transaction, workflow
from tests.api_tools import rows, until
from tests.process_tools import Process, processes, say


def open_door(url: str) -> None:
    rows(url, "insert into doors values ('open')")


def wait_for_door() -> None:
    """Wait in the first life's body until the test opens the door; others find it open."""
    with psycopg.connect(os.environ["TEST_URL"], autocommit=True) as connection:
        while not connection.execute("select 1 from doors").fetchone():
            time.sleep(0.02)


@step
async def before() -> str:
    return "before"


@step
def slow_step() -> int:
    say("in the body")
    wait_for_door()
    return os.getpid()


@step
async def after() -> int:
    return os.getpid()


@transaction
def slow_payment(conn: Connection) -> int:
    conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, os.getpid()))
    say("in the body")
    wait_for_door()
    return os.getpid()


@transaction(lock={"payments": "share row exclusive"})
async def locked_payment(conn: AsyncConnection) -> int:
    await conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, os.getpid()))
    say("in the body")
    await asyncio.to_thread(wait_for_door)
    return os.getpid()


@step
async def frozen_step() -> int:
    """Blocks the whole loop, as a user's mistake would."""
    say("in the body")
    wait_for_door()
    return os.getpid()


@workflow
async def walk(which: str) -> list[int]:
    await before()
    if which == "step":
        slow = await perdure.run_step(slow_step)
    elif which == "payment":
        slow = await perdure.run_step(slow_payment)
    elif which == "locked":
        slow = await locked_payment()
    else:
        slow = await frozen_step()
    return [slow, await after()]


@workflow
def walk_blocking(which: str) -> list[int]:
    perdure.sync.run_step(before)
    slow = slow_step() if which == "step" else slow_payment()
    return [slow, perdure.sync.run_step(after)]


async def serve(url: str, lease: str = "1") -> None:
    """Be a worker until killed."""
    async with Perdure(url, lease=float(lease), grace=0):
        say("ready")
        await asyncio.Event().wait()


@pytest.fixture
def doors_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database with the tables that the bodies use."""
    monkeypatch.setenv("TEST_URL", database_url)
    rows(database_url, "create table doors (state text)")
    rows(database_url, "create table payments (run text, pid int)")
    return database_url


def begun_in(worker: Process, client: perdure.sync.Perdure, name: str, which: str) -> None:
    """Have a run begin in a worker, up to its slow body."""
    worker.wait_for("^ready")
    client.start(f"{__name__}.{name}", [which], id="the run", queue="default")
    worker.wait_for("in the body")


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("walk", "step"),
        ("walk", "payment"),
        ("walk", "locked"),
        ("walk", "frozen"),
        ("walk_blocking", "step"),
        ("walk_blocking", "payment"),
    ],
)
def test_a_zombie_writes_nothing(name: str, which: str, doors_url: str) -> None:
    """Stopped in a body past its lease, then woken: the run has ended elsewhere, and nothing of the zombie counts."""
    with processes() as family, perdure.sync.Perdure(doors_url, worker=False) as client:
        zombie = family.start(__name__, "serve", doors_url)
        begun_in(zombie, client, name, which)
        zombie.pause()
        other = family.start(__name__, "serve", doors_url)
        if which != "locked":  # there the zombie's lock has to be broken before the other can enter
            other.wait_for("in the body")
        open_door(doors_url)
        handle = client.handle("the run")
        assert handle.result(timeout=30) == [other.pid, other.pid]
        recorded = rows(doors_url, "select * from perdure.steps order by run, position")
        paid = rows(doors_url, "select run, pid from payments")
        zombie.go_on()
        zombie.wait_for("worker .* lives", times=2)
        client.start(f"{__name__}.walk", ["step"], id="next", queue="default")
        assert client.handle("next").result(timeout=30)
        assert rows(doors_url, "select * from perdure.steps where run <> %s", next_key(doors_url)) == recorded
        assert rows(doors_url, "select run, pid from payments") == paid
        assert Counter(paid) == ({} if which in ("step", "frozen") else {("the run", other.pid): 1})


def next_key(url: str) -> int:
    [(key,)] = rows(url, "select key from perdure.runs where id = 'next'")
    return int(key)


def test_a_woken_worker_goes_on_working(doors_url: str) -> None:
    """After its old life was declared dead, the process takes and finishes runs in a new one."""
    with processes() as family, perdure.sync.Perdure(doors_url, worker=False) as client:
        zombie = family.start(__name__, "serve", doors_url)
        begun_in(zombie, client, "walk", "step")
        zombie.pause()
        other = family.start(__name__, "serve", doors_url)
        other.wait_for("in the body")
        open_door(doors_url)
        client.handle("the run").result(timeout=30)
        other.kill()
        zombie.go_on()
        zombie.wait_for("worker .* lives", times=2)
        client.start(f"{__name__}.walk", ["step"], id="next", queue="default")
        assert client.handle("next").result(timeout=30) == [zombie.pid, zombie.pid]


def test_a_short_pause_costs_nothing(doors_url: str) -> None:
    """Stopped for half of its lease, a worker goes on in the same life and keeps its run."""
    with processes() as family, perdure.sync.Perdure(doors_url, worker=False) as client:
        worker = family.start(__name__, "serve", doors_url, 4)
        begun_in(worker, client, "walk", "step")
        worker.pause()
        half_gone = "select 1 from perdure.workers where expires - now() < interval '2 s'"
        until(lambda: rows(doors_url, half_gone))
        worker.go_on()
        open_door(doors_url)
        assert client.handle("the run").result(timeout=30) == [worker.pid, worker.pid]
        assert client.handle("the run").describe().takeovers == 0
