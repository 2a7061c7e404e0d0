"""What a run costs, counted in things that do not depend on how fast the machine is.

A limit that is exceeded is a regression to be explained, or mended; one that has become lax is lowered.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import perdure
from perdure.sync import Perdure as BlockingPerdure
from tests.servers import TestServer

STEPS, RUNS, AT_ONCE = 10, 20, 200
SENT = ("LOG:  execute ", "LOG:  statement: ")
OF_RUNS = re.compile(r"LOG:  execute perdure_(start_run|record_step|record_step_and_end|end_run)_\d+:")
"""How a statement that is a batch is logged."""
MOST_AT_ONCE: Final = 60
"""Statements of two hundred runs of one step, those at opening included (33 in all of six runs)."""
MOST_WAL: Final = 530
"""Bytes of log for a step of ten, the run's own share included (497 on PostgreSQL 15, 509 on 18)."""
MOST_CALLS: Final = 122
"""Calls of Python functions for a blocking step, with what other threads do meanwhile (111 to 112)."""
MOST_CALLS_ON_LOOP: Final = 305
"""The same for an `async` run of one step, two hundred at once (294 to 295)."""
MOST_CALLS_OF_A_TRANSACTION: Final = 280
"""The same for a blocking transaction step of one statement, with what psycopg calls for that (268)."""
OF_A_TRANSACTION: Final = ["begin", "begin_step", "insert", "record_transaction", "commit"]
"""What is sent for a transaction step, its body's one statement included."""
ON_A_CONNECTION: Final = re.compile(r"\[(\d+)\] LOG:  execute (?:perdure_(\w+)_\d+|.*: (insert))")
"""How it is logged: by what process, what of ours or of the body's."""

pytestmark = [pytest.mark.postgres, pytest.mark.session]


@perdure.step
def add(number: int) -> int:
    return number + 1


@perdure.workflow
def chain(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = add(number)
    return number


@perdure.transaction
def write(conn: perdure.Connection, number: int) -> None:
    conn.execute("insert into entries values (%s)", (number,))


@perdure.workflow
def writes(times: int) -> None:
    for number in range(times):
        write(number)


@perdure.step
async def add_async(number: int) -> int:
    return number + 1


@perdure.workflow
async def chain_async(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await add_async(number)
    return number


@pytest.fixture
def entries_url(database_url: str) -> str:
    """A database with a table for `write`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create table entries (number integer not null)")
    return database_url


@contextmanager
def logged(server: TestServer, url: str) -> Iterator[list[str]]:
    """Have the server log the statements of connections that are made from now on; give them after the block."""
    name, lines = conninfo_to_dict(url)["dbname"], list[str]()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter database {name} set log_statement = 'all'".encode())
    began = len(server.log.read_text())
    yield lines
    lines += [
        line for line in server.log.read_text()[began:].splitlines() if any(word in line for word in SENT)
    ]


def test_each_step_of_a_run_is_one_statement(server: TestServer, database_url: str) -> None:
    """A start, each step but the last, the last with the end: each is one statement, which is one commit of its own."""
    with logged(server, database_url) as sent, BlockingPerdure(database_url):
        for _ in range(RUNS):
            chain(STEPS)
    of_runs = [line for line in sent if OF_RUNS.search(line)]
    assert len(of_runs) == RUNS * (STEPS + 1), of_runs
    assert len(sent) < len(of_runs) * 2


def test_transaction_step_adds_four_statements(server: TestServer, entries_url: str) -> None:
    """Its beginning is two, in one packet with each other; its record and the COMMIT are two in another."""
    with logged(server, entries_url) as sent, BlockingPerdure(entries_url):
        writes(2 * STEPS)
    executed = [found.groups() for line in sent if (found := ON_A_CONNECTION.search(line))]
    pool = {process for process, ours, _ in executed if ours == "begin_step"}
    assert [ours or body for by, ours, body in executed if by in pool] == 2 * STEPS * OF_A_TRANSACTION


def test_runs_at_once_share_their_statements(server: TestServer, database_url: str) -> None:
    """Two hundred runs of one step take a handful of batches, of a handful of statements each."""

    async def run() -> None:
        async with perdure.Perdure(database_url):
            await asyncio.gather(*(chain_async(1) for _ in range(AT_ONCE)))

    with logged(server, database_url) as sent:
        asyncio.run(run())
    assert len(sent) <= MOST_AT_ONCE, sent


def test_rows_and_log_of_a_run(server: TestServer, database_url: str) -> None:
    """A row for its birth, one for each step, one for its end; and little of Postgres's own log for them."""
    with psycopg.connect(database_url, autocommit=True) as connection, BlockingPerdure(database_url):
        connection.execute("alter system set full_page_writes = off")
        connection.execute("select pg_reload_conf()")
        try:
            chain(STEPS)
            before = value(connection, "select pg_current_wal_insert_lsn()")
            for _ in range(10 * RUNS):
                chain(STEPS)
            written = value(connection, f"select pg_current_wal_insert_lsn() - '{before}'::pg_lsn")
        finally:
            connection.execute("alter system reset full_page_writes")
            connection.execute("select pg_reload_conf()")
        runs = 10 * RUNS + 1
        for table, rows in {
            "runs": runs,
            "steps": STEPS * runs,
            "ends": runs,
            "live": 0,
            "waits": 0,
            "intents": 0,
        }.items():
            assert value(connection, f"select count(*) from perdure.{table}") == rows, table
    assert written / (10 * RUNS) / STEPS <= MOST_WAL


def value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


class Calls:
    """Counts the calls of Python functions in all threads that begin while it is on, and in this one."""

    def __init__(self) -> None:
        self.count = 0

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.count += 1

    def __enter__(self) -> Self:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)


def calls_of_each(url: str, run: Callable[[int], object]) -> float:
    """Calls for each of the steps of a blocking run of so many, one at a time; what the run itself takes left out."""
    with Calls() as calls, BlockingPerdure(url):
        run(STEPS)
        before = calls.count
        run(STEPS)
        few, before = calls.count - before, calls.count
        run(10 * STEPS)
        many = calls.count - before
    return (many - few) / (9 * STEPS)


def test_calls_of_a_blocking_step(database_url: str) -> None:
    """Everything is done in the caller's thread."""
    assert calls_of_each(database_url, chain) <= MOST_CALLS


def test_calls_of_a_transaction_step(entries_url: str) -> None:
    """The body's own statement, which is psycopg's to send, included."""
    assert calls_of_each(entries_url, writes) <= MOST_CALLS_OF_A_TRANSACTION


def test_calls_of_an_async_run(database_url: str) -> None:
    """Runs of one step on an event loop, 200 at once: the loop's thread and the journal's together."""

    async def run() -> float:
        async with perdure.Perdure(database_url):
            await asyncio.gather(*(chain_async(1) for _ in range(AT_ONCE)))
            before = calls.count
            await asyncio.gather(*(chain_async(1) for _ in range(AT_ONCE)))
            return (calls.count - before) / AT_ONCE

    with Calls() as calls:
        assert asyncio.run(run()) <= MOST_CALLS_ON_LOOP
