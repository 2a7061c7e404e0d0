"""What the benchmark runs: workflows that do nothing but be durable.

Bodies are empty on purpose, so that what is measured is perdure and Postgres. One module for all processes
of the benchmark, because a run that one process starts is looked up by name in another.
"""

from __future__ import annotations

import asyncio
import os
import queue
import time
from dataclasses import dataclass
from typing import Final

import perdure
from benchmarks.protocol import Tally
from perdure import AsyncConnection, Connection, Entity, command, step, transaction, workflow

TABLE: Final = (
    "create table if not exists bench_rows (id bigint generated always as identity, n integer not null)"
)
INSERT: Final = "insert into bench_rows (n) values (%s)"
STUCK: Final = "PERDURE_BENCH_STUCK"
"""Environment variable: in a process that has it, `stuck` never returns."""

reached: asyncio.Queue[int] = asyncio.Queue()
"""Runs of this process whose first step is committed and whose second has begun."""

seen_at: queue.SimpleQueue[float] = queue.SimpleQueue()
"""When each `seen` of this process had begun."""


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


@transaction
def insert_blocking(connection: Connection, number: int) -> None:
    """Insert one row."""
    connection.execute(INSERT, (number,))


@workflow
async def inserts(times: int) -> None:
    """Insert a row in a transaction step, so many times."""
    for number in range(times):
        await insert(number)


@workflow
def inserts_blocking(times: int) -> None:
    """Insert a row in a transaction step, so many times."""
    for number in range(times):
        insert_blocking(number)


@step
async def echo(text: str) -> str:
    """Return it."""
    return text


@workflow
async def carry(text: str) -> int:
    """Have a step return what it is given."""
    return len(await echo(text))


# -- what worker processes run -----------------------------------------------------------------------------

tally: Final = Tally()
"""What this process has run."""


@step
async def hit(number: int) -> int:
    """Count, and add one."""
    tally.hit()
    return number + 1


@workflow
async def one_step(number: int) -> int:
    """A job of one step."""
    return await hit(number)


@workflow
async def bare(number: int) -> int:
    """A job without steps."""
    tally.hit()
    return number + 1


@workflow
async def stamped(number: int) -> int:
    """Say at once when it began."""
    tally.stamp()
    return number


@workflow
async def seen() -> None:
    """Tell this process when it began."""
    seen_at.put(time.monotonic())


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


@workflow
async def asleep(number: int) -> int:
    """Sleep for an hour."""
    await perdure.sleep(3600)
    return number


# -- messages and objects ----------------------------------------------------------------------------------


@workflow
async def pong(times: int) -> int:
    """Answer each message by one."""
    other = await perdure.receive("begin", type=str)
    for _ in range(times):
        await perdure.send(other, "pong", await perdure.receive("ping", type=int))
    return times


@workflow
async def ping(other: str, own: str, times: int) -> list[float]:
    """Send and wait for the answer, so many times; return the milliseconds of each."""
    await perdure.send(other, "begin", own)
    took = []
    for number in range(times):
        began = time.perf_counter()
        await perdure.send(other, "ping", number)
        assert await perdure.receive("pong", type=int) == number
        took.append((time.perf_counter() - began) * 1000)
    return took


@workflow
async def answering(times: int) -> int:
    """Receive, and set an event that says so; so many times."""
    for number in range(times):
        await perdure.set_event(f"answer-{number}", await perdure.receive("question", type=int))
    return times


@dataclass
class Counter(Entity):
    """A durable object."""

    value: int = 0

    @command
    def add(self, number: int) -> int:
        """Add to it, and tell what it is now."""
        self.value += number
        return self.value
