"""The limit: psycopg alone, doing the commits that durability needs, and nothing else.

A run of n steps takes n + 1 commits: its start, each step before the next begins, the last step with the
end. One at a time each is a single-row INSERT on one connection. At once, all runs that are at the same
point share a commit, as in the journal. What is left out (the fence, the live row, who waits for what, the
record's other columns) is what perdure adds.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any, Final

import psycopg

from benchmarks.measures import AT_ONCE, MANY, NAIVE, ONE, TRANSACTION, Sizes, timed
from benchmarks.programs import INSERT, TABLE
from benchmarks.results import RAW, Results
from benchmarks.server import Server

TABLES: Final = """
    create table if not exists bare_runs (id bigint primary key, name text not null, input bytea not null);
    create table if not exists bare_steps (run bigint, position integer, value bytea not null,
                                           primary key (run, position));
    create table if not exists bare_ends (id bigint primary key, value bytea not null);
"""
START: Final = "insert into bare_runs values (%s, 'chain', %s)"
STEP: Final = "insert into bare_steps values (%s, %s, %s)"
STEP_AND_END: Final = (
    "with step as (insert into bare_steps values (%s, %s, %s)) insert into bare_ends values (%s, %s)"
)
STARTS: Final = "insert into bare_runs select t.id, 'chain', %s from unnest(%s::bigint[]) t (id)"
STEPS: Final = "insert into bare_steps select t.id, %s, %s from unnest(%s::bigint[]) t (id)"
ENDS: Final = "insert into bare_ends select t.id, %s from unnest(%s::bigint[]) t (id)"
INPUT: Final = b"[[1,1],{}]"
NAIVE_CONNECTIONS: Final = 16

_ids = itertools.count(time.time_ns())


def measure(server: Server, url: str, sizes: Sizes, results: Results, wanted: set[str]) -> None:
    """One round."""
    with _connect(url) as connection:
        connection.execute(TABLES, prepare=False)
        connection.execute(TABLE)
        if "one" in wanted:
            for steps, count in sizes.one.items():
                _one_by_one(connection, 20, steps)
                with timed(server, results, ONE[steps], RAW, count):
                    _one_by_one(connection, count, steps)
        if "many" in wanted:
            for steps, count in sizes.many.items():
                _in_batches(connection, 5 * AT_ONCE, steps)
                with timed(server, results, MANY[steps], RAW, count):
                    _in_batches(connection, count, steps)
            _naive(server, url, sizes.many[1] // 2, results)
        if "transaction" in wanted:
            _transactions(connection, 30)
            results.add(TRANSACTION, f"{RAW} sync", _transactions(connection, sizes.transactions))
    if "transaction" in wanted:
        results.add(TRANSACTION, f"{RAW} async", asyncio.run(_transactions_async(url, sizes.transactions)))


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, prepare_threshold=0)


def _one_by_one(connection: psycopg.Connection[Any], count: int, steps: int) -> None:
    for _ in range(count):
        id = next(_ids)
        connection.execute(START, (id, INPUT))
        for position in range(1, steps):
            connection.execute(STEP, (id, position, b"1"))
        connection.execute(STEP_AND_END, (id, steps, b"1", id, b"1"))


def _in_batches(connection: psycopg.Connection[Any], count: int, steps: int) -> None:
    for _ in range(count // AT_ONCE):
        ids = [next(_ids) for _ in range(AT_ONCE)]
        connection.execute(STARTS, (INPUT, ids))
        for position in range(1, steps):
            connection.execute(STEPS, (position, b"1", ids))
        with connection.pipeline(), connection.transaction():
            connection.execute(STEPS, (steps, b"1", ids))
            connection.execute(ENDS, (b"1", ids))


def _naive(server: Server, url: str, count: int, results: Results) -> None:
    """Every record its own commit, on as many connections as a pool would have."""
    lanes = threading.Barrier(NAIVE_CONNECTIONS + 1)

    def lane() -> None:
        with _connect(url) as connection:
            _one_by_one(connection, 10, 1)
            lanes.wait()
            _one_by_one(connection, count // NAIVE_CONNECTIONS, 1)

    threads = [threading.Thread(target=lane, daemon=True) for _ in range(NAIVE_CONNECTIONS)]
    for thread in threads:
        thread.start()
    lanes.wait()
    with timed(server, results, NAIVE, RAW, count // NAIVE_CONNECTIONS * NAIVE_CONNECTIONS):
        for thread in threads:
            thread.join()


def _transactions(connection: psycopg.Connection[Any], count: int) -> float:
    """BEGIN, INSERT, COMMIT, so many times; milliseconds for one."""
    began = time.perf_counter()
    for number in range(count):
        with connection.transaction():
            connection.execute(INSERT, (number,))
    return (time.perf_counter() - began) / count * 1000


async def _transactions_async(url: str, count: int) -> float:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    async with connection:
        began = 0.0
        for number in range(-30, count):
            if number == 0:
                began = time.perf_counter()
            async with connection.transaction():
                await connection.execute(INSERT, (number,))
        return (time.perf_counter() - began) / count * 1000
