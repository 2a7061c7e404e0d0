"""The limit without group commit: psycopg alone, doing the commits that durability needs, and nothing else.

A run of n steps takes n + 1 commits: its start, each step before the next begins, the last step with the
end. Each is a single-row INSERT that is prepared once: on one connection where runs are called one at a
time, on sixteen where many are under way, as a pool would have them. What is left out (the fence, the live
row, who waits for what, the record's other columns) is what a library adds. A start is INSERT with NOTIFY,
and a listener that claims with SKIP LOCKED.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any, Final

import psycopg

from benchmarks.protocol import (
    Job,
    Tally,
    Worker,
    at_once,
    one_at_a_time,
    one_at_a_time_async,
    say_ready,
    start_latency,
    wait_for_parent,
)

TABLES: Final = """
    create table if not exists bare_runs (id bigint primary key, name text not null, input bytea not null);
    create table if not exists bare_steps (run bigint, position integer, value bytea not null,
                                           primary key (run, position));
    create table if not exists bare_ends (id bigint primary key, value bytea not null);
    create table if not exists bare_rows (id bigint generated always as identity, n integer not null);
    create table if not exists bare_jobs (id integer primary key, taken boolean not null default false);
"""
START: Final = "insert into bare_runs values (%s, 'chain', %s)"
STEP: Final = "insert into bare_steps values (%s, %s, %s)"
STEP_AND_END: Final = (
    "with step as (insert into bare_steps values (%s, %s, %s)) insert into bare_ends values (%s, %s)"
)
INSERT: Final = "insert into bare_rows (n) values (%s)"
ENQUEUE: Final = "with job as (insert into bare_jobs (id) values (%s)) select pg_notify('bare_jobs', '')"
CLAIM: Final = """update bare_jobs set taken = true where id = (
                      select id from bare_jobs where not taken limit 1 for update skip locked) returning id"""
INPUT: Final = b"[[1,1],{}]"
CONNECTIONS: Final = 16

_ids = itertools.count(time.time_ns())


def main() -> None:
    """Measure, or be the listener."""
    job = Job.read()
    if sys.argv[2:]:
        serve(job)
        return
    with connect(job.url) as connection:
        connection.execute(TABLES, prepare=False)
        if "one" in job.wanted:
            for steps in (1, 3, 10):
                one_at_a_time(job, f"one-{steps}", lambda steps=steps: run(connection, steps))  # type: ignore[misc]
        if "many" in job.wanted:
            many(job)
        if "transaction" in job.wanted:
            one_at_a_time(job, "transaction", lambda: insert(connection))
            asyncio.run(transactions(job))
        if "start" in job.wanted:
            starts(job, connection)


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect as fast as psycopg can be: every statement is prepared when it is first sent."""
    return psycopg.connect(url, autocommit=True, prepare_threshold=0)


def run(connection: psycopg.Connection[Any], steps: int) -> None:
    """One run, commit by commit."""
    id = next(_ids)
    connection.execute(START, (id, INPUT))
    for position in range(1, steps):
        connection.execute(STEP, (id, position, b"1"))
    connection.execute(STEP_AND_END, (id, steps, b"1", id, b"1"))


def many(job: Job) -> None:
    """As many threads as a pool has connections, each with its own."""
    for steps in (1, 3):
        connections = [connect(job.url) for _ in range(CONNECTIONS)]
        free = list(connections)

        def call(steps: int = steps, free: list[psycopg.Connection[Any]] = free) -> None:
            connection = free.pop()
            run(connection, steps)
            free.append(connection)

        at_once(job, f"many-{steps}", call, lanes=CONNECTIONS)
        for connection in connections:
            connection.close()


def insert(connection: psycopg.Connection[Any]) -> None:
    """BEGIN, INSERT, COMMIT."""
    with connection.transaction():
        connection.execute(INSERT, (1,))


async def transactions(job: Job) -> None:
    """The same with the connection that is awaited."""
    async with await psycopg.AsyncConnection.connect(
        job.url, autocommit=True, prepare_threshold=0
    ) as connection:

        async def call() -> None:
            async with connection.transaction():
                await connection.execute(INSERT, (1,))

        await one_at_a_time_async(job, "transaction", call)


def starts(job: Job, connection: psycopg.Connection[Any]) -> None:
    """INSERT and NOTIFY in one commit; the listener claims."""
    numbers = itertools.count()
    worker = Worker(__spec__.name, job)
    try:
        worker.wait_ready()
        start_latency(job, "start", worker, lambda: connection.execute(ENQUEUE, (next(numbers),)))
    finally:
        worker.kill()


def serve(job: Job) -> None:
    """Be the listener, until killed."""
    wait_for_parent()
    tally = Tally()
    with connect(job.url) as connection:
        connection.execute("listen bare_jobs")
        say_ready()
        while True:
            for _ in connection.notifies(stop_after=1):
                pass
            while connection.execute(CLAIM).fetchone() is not None:
                tally.stamp()


if __name__ == "__main__":
    main()
