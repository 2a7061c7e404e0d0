"""Limits of a queue hold while its workers are killed with `kill -9`, and every run ends."""

from __future__ import annotations

import asyncio
import itertools
import threading

import psycopg

from perdure import Perdure, Queue, step, workflow
from tests.api_tools import on_loop, rows, until
from tests.process_tools import processes, say

LIMITS = Queue("limited", concurrency=6, key_concurrency=2)
TENANTS = ("gold", "tin", "lead", "zinc")
RUNS = 160
KILLS = 4
OWNED = """
select count(*), coalesce(max(each), 0)
from (select count(*) over (partition by queue_key) as each from perdure.live
      where status = 3 and queue = 'limited') t
"""


@step
async def pack(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


@workflow
async def parcel(number: int) -> int:
    for _ in range(3):
        await pack(number)
    return number


async def work(url: str) -> None:
    """A worker that works until it is killed."""
    async with Perdure(url, queues=[LIMITS], lease=2):
        say("ready")
        await asyncio.Event().wait()


@on_loop
async def test_no_kill_exceeds_a_limit_or_loses_a_run(database_url: str) -> None:
    """Three workers, four kills: never more than six runs are owned, never more than two of a tenant; all end."""
    over = threading.Event()
    seen: list[tuple[int, int]] = []

    def watch() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not over.is_set():
                seen.append(connection.execute(OWNED).fetchone() or (0, 0))

    def ended() -> int:
        return int(rows(database_url, "select count(*) from perdure.ends")[0][0])

    async with Perdure(database_url, worker=False, queues=[LIMITS]) as app:
        tenants = itertools.cycle(TENANTS)
        await app.start_many(
            parcel.options(queue="limited", key=next(tenants)).bind(number) for number in range(RUNS)
        )
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with processes() as crew:
                workers = [crew.start(__name__, "work", database_url) for _ in range(3)]
                for kill in range(KILLS):
                    victim = workers.pop(0)
                    victim.wait_for("ready")
                    few = RUNS * (kill + 1) // (KILLS + 2)
                    await asyncio.to_thread(until, lambda few=few: ended() >= few)
                    victim.kill()
                    workers.append(crew.start(__name__, "work", database_url))
                await asyncio.to_thread(until, lambda: ended() == RUNS)
        finally:
            over.set()
            watcher.join()
    assert max(whole for whole, _ in seen) <= 6
    assert max(each for _, each in seen) <= 2
    assert max(whole for whole, _ in seen) > 2, "the limit was of use"
    assert rows(database_url, "select count(distinct key) from perdure.ends where status = 7") == [(RUNS,)]
