"""What the benchmark runs: workflows that do nothing but be durable.

Bodies are empty on purpose, so that what is measured is perdure and Postgres. One module for all processes
of the benchmark, because a run that one process starts is looked up by name in another.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from perdure import AsyncConnection, Connection, step, transaction, workflow

TABLE: Final = (
    "create table if not exists bench_rows (id bigint generated always as identity, n integer not null)"
)
INSERT: Final = "insert into bench_rows (n) values (%s)"
STUCK: Final = "PERDURE_BENCH_STUCK"
"""Environment variable: in a process that has it, `stuck` never returns."""

reached: asyncio.Queue[int] = asyncio.Queue()
"""Runs of this process whose first step is committed and whose second has begun."""


@step
async def add(number: int) -> int:
    """Add one."""
    return number + 1


@workflow
async def chain(number: int, steps: int) -> int:
    """Call a step so many times, one after another."""
    for _ in range(steps):
        number = await add(number)
    return number


@step
def add_blocking(number: int) -> int:
    """Add one."""
    return number + 1


@workflow
def chain_blocking(number: int, steps: int) -> int:
    """Call a step so many times, one after another."""
    for _ in range(steps):
        number = add_blocking(number)
    return number


@transaction
async def insert(connection: AsyncConnection, number: int) -> None:
    """Insert one row."""
    await connection.execute(INSERT, (number,))


@workflow
async def inserts(count: int) -> float:
    """Call a transaction step so many times; return the seconds a call, without the run's start and end."""
    began = time.perf_counter()
    for number in range(count):
        await insert(number)
    return (time.perf_counter() - began) / count


@transaction
def insert_blocking(connection: Connection, number: int) -> None:
    """Insert one row."""
    connection.execute(INSERT, (number,))


@workflow
def inserts_blocking(count: int) -> float:
    """Call a transaction step so many times; return the seconds a call, without the run's start and end."""
    began = time.perf_counter()
    for number in range(count):
        insert_blocking(number)
    return (time.perf_counter() - began) / count


@step
async def stamp() -> float:
    """Read the clock that all processes of a machine share."""
    return time.monotonic()


@workflow
async def echo() -> float:
    """Return when its first step began."""
    return await stamp()


@step
async def stuck(number: int) -> int:
    """Never return, in a process that is to be killed."""
    if os.environ.get(STUCK):
        reached.put_nowait(number)
        await asyncio.Event().wait()
    return number


@workflow
async def hostage(number: int) -> int:
    """Record one step, then call one that outlives the process."""
    return await stuck(await add(number))
