"""perdure alone: what the others are not asked for. Sizes of payloads, of history and of backlog; how it scales; counts."""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial
from typing import Any, Final

import psycopg

import perdure
from benchmarks import programs
from benchmarks.contestants import ours, ours_queue
from benchmarks.contestants.ours_queue import EXPECTED, MODULE, connect, fill, left, value
from benchmarks.protocol import Job, Worker, at_once_async, drain, one_at_a_time_async, report
from tests.million_runs import build

HISTORY: Final = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
STEPS: Final = 10
SETTLED: Final = 3.0
"""Seconds after which the server's counters are complete."""
LATE: Final = 12.0
"""Seconds after which idle connections too have told what they did before."""
IDLE: Final = 15.0
"""Seconds for which an idle worker is watched."""
BACKLOG: Final = """
with born as (
    insert into perdure.runs (key, id, workflow, input, queue, created)
    select n, 'b' || n, 'benchmarks.programs.one_step', '{{"args": [1]}}', 'default', now() from generate_series(1, {0}) n)
insert into perdure.live (key, workflow, status, queue, arrival)
select n, 'benchmarks.programs.one_step', 2, 'default', nextval('perdure.arrivals') from generate_series(1, {0}) n
"""


def main() -> None:
    """Measure what is wanted."""
    job = Job.read()
    with connect(job) as connection:
        connection.execute(programs.TABLE)
    with perdure.sync.Perdure(job.url, worker=False):
        pass  # the schema
    if "objects" in job.wanted:
        asyncio.run(objects(job))
    if "payload" in job.wanted:
        asyncio.run(payloads(job))
    if "counts" in job.wanted:
        asyncio.run(counts(job))
        idle(job)
    if "scaling" in job.wanted:
        scaling(job)
    if "history" in job.wanted:
        history(job)


async def objects(job: Job) -> None:
    """Commands of durable objects, given from outside: one at a time, 200 at once, all to one object."""
    keys = itertools.count()
    async with perdure.Perdure(job.url):
        await one_at_a_time_async(job, "object-one", lambda: programs.Counter.add("one", 1), "")
        await at_once_async(job, "object-many", lambda: programs.Counter.add(str(next(keys) % 1000), 1), "")
        await at_once_async(job, "object-same", lambda: programs.Counter.add("same", 1), "")


async def payloads(job: Job) -> None:
    """Runs of one step that takes and returns so much text."""
    async with perdure.Perdure(job.url):
        for kilobytes in (1, 10, 100):
            text = "x" * 1000 * kilobytes
            await one_at_a_time_async(job, f"payload-{kilobytes}", partial(programs.carry, text), "")


async def counts(job: Job) -> None:
    """Commits and bytes of Postgres's log for each step, one run at a time and 200 at once."""
    numbers = itertools.count()
    async with perdure.Perdure(job.url):
        with connect(job) as connection:
            await ours.chain(numbers, STEPS)
            for key, at_once in (("one", 1), ("many", 200)):
                before = counters(connection)
                for _ in range(400 // at_once):
                    await asyncio.gather(*(ours.chain(numbers, STEPS) for _ in range(at_once)))
                after = counters(connection)
                steps = 400 * STEPS
                report(f"commits-{key}", (after[0] - before[0]) / steps)
                report(f"wal-{key}", (after[1] - before[1]) / steps)


def counters(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Transactions of this database so far, and bytes of the server's log."""
    time.sleep(SETTLED)
    commits = value(connection, "select xact_commit from pg_stat_database where datname = current_database()")
    return commits, int(value(connection, "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def idle(job: Job) -> None:
    """What a worker sends that has nothing to do; less what the server itself counts meanwhile."""
    with connect(job) as connection:
        alone = transactions_a_second(connection)
        worker = Worker(MODULE, job)
        try:
            worker.wait_ready()
            time.sleep(LATE)
            report("idle", max(0.0, transactions_a_second(connection) - alone))
        finally:
            worker.kill()


def transactions_a_second(connection: psycopg.Connection[Any]) -> float:
    """Transactions of this database, for some time."""
    before, began = counters(connection)[0], time.monotonic()
    time.sleep(IDLE)
    return (counters(connection)[0] - before) / (time.monotonic() - began)


def scaling(job: Job) -> None:
    """A backlog of runs of one step, drained by one to four worker processes."""
    count = int(EXPECTED * job.seconds * 2)
    with perdure.sync.Perdure(job.url, worker=False) as app, connect(job) as connection:
        for workers in (1, 2, 3, 4):
            fill(app, programs.one_step, count)
            drain(job, f"workers-{workers}", MODULE, workers, count, lambda: left(connection))


def history(job: Job) -> None:
    """What a run costs beside so many that have ended, and what draining does in front of so many that wait."""
    for key, count in HISTORY.items():
        with connect(job) as connection:
            connection.execute("drop schema perdure cascade")
            with perdure.sync.Perdure(job.url, worker=False):
                pass
            build(job.url, count)
            asyncio.run(beside(job, key))
            connection.execute("truncate perdure.live, perdure.runs, perdure.ends, perdure.steps cascade")
            connection.execute(BACKLOG.format(count).encode())
            connection.execute("vacuum analyze perdure.runs, perdure.live")
        worker = Worker(ours_queue.MODULE, job)
        try:
            worker.wait_ready()
            time.sleep(job.seconds)
            ran, first, last = worker.stop()
        finally:
            worker.kill()
        report(f"backlog-{key}", (ran - 1) / (last - first))


async def beside(job: Job, key: str) -> None:
    """Runs one at a time and at once, beside what is there."""
    numbers = itertools.count()
    async with perdure.Perdure(job.url, listen=["elsewhere"]):
        await one_at_a_time_async(job, f"history-{key}", partial(ours.chain, numbers, 1), "")
        await at_once_async(job, f"history-many-{key}", partial(ours.chain, numbers, 1), "")


if __name__ == "__main__":
    main()
