"""The database goes away in all the ways it can: killed while runs run, or silent to a part of a worker."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

import perdure
from perdure import AsyncConnection, Perdure, step, transaction, workflow
from tests.api_tools import rows, until
from tests.process_tools import processes, say
from tests.servers import TestServer, binaries_of
from tests.tcp_proxy_tools import proxy

RUNS = 60


@step
async def first(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


@transaction
async def pay(conn: AsyncConnection, what: str) -> int:
    await conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, what))
    return os.getpid()


@workflow
async def buys(number: int) -> int:
    for round_ in range(4):
        await first(number)
        await pay(f"payment {round_}")
    await perdure.sleep(0.05)
    await asyncio.gather(pay("left"), pay("right"))
    return number


@workflow
async def steps_only(rounds: int) -> list[int]:
    return [await who(round_) for round_ in range(rounds)]


@step
async def who(round_: int) -> int:
    say("round", round_)
    await asyncio.sleep(0.1)
    return os.getpid()


async def serve(url: str, lease: str) -> None:
    """Be a worker until killed."""
    async with Perdure(url, lease=float(lease), grace=0):
        say("ready")
        await asyncio.Event().wait()


def test_killed_postgres_loses_nothing() -> None:
    """`kill -9` of the server while sixty runs pay: all end, every payment is there once, every start that was answered."""
    binaries = binaries_of(18)
    if binaries is None:
        pytest.skip("no binaries of Postgres 18")
    server = TestServer(binaries)
    server.start()
    try:
        url = server.create_database()
        rows(url, "create table payments (run text, what text)")
        with processes() as family:
            worker = family.start(__name__, "serve", url, 2)
            worker.wait_for("^ready")
            started = asyncio.run(start_through_crashes(url, server))
            assert worker.alive
            asyncio.run(all_end(url, started))
        paid = Counter(rows(url, "select run, what from payments"))
        what = [*(f"payment {round_}" for round_ in range(4)), "left", "right"]
        assert paid == {(id, each): 1 for id in started for each in what}
    finally:
        server.close()


async def start_through_crashes(url: str, server: TestServer) -> list[str]:
    """Start runs one after another while the server is killed twice; return the ids that were answered."""
    started: list[str] = []
    async with Perdure(url, worker=False) as client:
        with client.bind():
            for number in range(RUNS):
                handle = await buys.options(id=f"run {number}").start(number)
                started.append(handle.id)
                if number in (20, 40):
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
    return started


async def all_end(url: str, ids: list[str]) -> None:
    async with Perdure(url, worker=False) as client:
        for number, id in enumerate(ids):
            assert await client.handle(id).result(timeout=40) == number


def test_a_silent_journal_costs_the_worker_its_life(server: TestServer, database_url: str) -> None:
    """The journal is black-holed while the heartbeat gets through: the runs go on elsewhere within the lease."""
    direct = server.tcp(database_url)
    with proxy(server.host, server.port) as between, processes() as family:
        through = (
            direct.replace(f":{server.port}/", f":{between.port}/") + "?sslmode=disable&gssencmode=disable"
        )
        with perdure.sync.Perdure(direct, worker=False) as client:
            stuck = family.start(__name__, "serve", through, 1.5)
            stuck.wait_for("^ready")
            client.start(f"{__name__}.steps_only", [30], id="the run")
            stuck.wait_for("round 3")
            between.silence("journal")
            between.wait_until_swallowed()
            other = family.start(__name__, "serve", direct, 1.5)
            result = client.handle("the run").result(timeout=30)
            assert result[0] == stuck.pid
            assert result[-1] == other.pid
            assert result == sorted(result, key=[stuck.pid, other.pid].index)
            assert stuck.alive


def test_a_worker_recovers_when_its_journal_speaks_again(server: TestServer, database_url: str) -> None:
    """After the silence the worker lives again, without a restart, and finishes its run itself."""
    direct = server.tcp(database_url)
    with proxy(server.host, server.port) as between, processes() as family:
        through = (
            direct.replace(f":{server.port}/", f":{between.port}/") + "?sslmode=disable&gssencmode=disable"
        )
        with perdure.sync.Perdure(direct, worker=False) as client:
            worker = family.start(__name__, "serve", through, 1)
            worker.wait_for("^ready")
            client.start(f"{__name__}.steps_only", [12], id="the run")
            worker.wait_for("round 3")
            between.silence("journal")
            between.wait_until_swallowed()
            until(lambda: rows(database_url, "select 1 from perdure.workers_gone"))
            between.silence()
            assert client.handle("the run").result(timeout=30) == [worker.pid] * 12


def test_a_database_that_is_silent_to_everything_stops_the_bodies(
    server: TestServer, database_url: str
) -> None:
    """A worker that hears nothing at all begins no further body than the one it is in."""
    direct = server.tcp(database_url)
    with proxy(server.host, server.port) as between, processes() as family:
        through = (
            direct.replace(f":{server.port}/", f":{between.port}/") + "?sslmode=disable&gssencmode=disable"
        )
        with perdure.sync.Perdure(direct, worker=False) as client:
            stuck = family.start(__name__, "serve", through, 1)
            stuck.wait_for("^ready")
            client.start(f"{__name__}.steps_only", [20], id="the run")
            stuck.wait_for("round 3")
            between.silence("")
            other = family.start(__name__, "serve", direct, 1)
            result = client.handle("the run").result(timeout=30)
            assert result[-1] == other.pid
            said = [line for line in stuck.lines if line.startswith("round")]
            assert len(said) <= result.count(stuck.pid) + 1
            assert stuck.alive
