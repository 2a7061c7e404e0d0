"""What absurd runs in the benchmark, and how it is set up: tasks that do nothing but be durable."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import psycopg
from absurd_sdk import Absurd, AsyncAbsurd, AsyncTaskContext, TaskContext, TaskResultSnapshot
from absurdctl import BUNDLED_SCHEMA_SQL

from benchmarks.protocol import Job, Tally

WORKERS: Final = 4
"""Workers in one process, each with a connection of its own."""
CONCURRENCY: Final = 50
"""Tasks that each of them has under way."""
POLL: Final = 0.001
"""Seconds between two looks into a queue that was empty."""
STUCK: Final = "BENCH_STUCK"
"""Environment variable: in a process that has it, `hostage` never ends."""
QUEUES: Final = (
    "one many-1-sync many-3-sync many-1-async many-3-async elsewhere drain start messages recovery waiting"
)
FILL: Final = """
select count(*) from generate_series(1, %(count)s) as number, lateral absurd.spawn_task(
    %(queue)s, %(task)s, jsonb_build_object('number', number, 'steps', %(steps)s::integer), '{"max_attempts": 5}')
"""

tally: Final = Tally()
"""What this process has run."""
reached: Final[asyncio.Queue[int]] = asyncio.Queue()
"""Tasks of this process whose first step is committed and whose second has begun."""


def prepare(job: Job) -> None:
    """Install the schema, and make all queues."""
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(BUNDLED_SCHEMA_SQL)
        app = Absurd(connection)
        for queue in QUEUES.split():
            app.create_queue(queue)


@functools.cache
def connect(job: Job) -> psycopg.Connection[Any]:
    """A connection of this process beside what is measured."""
    return psycopg.connect(job.url, autocommit=True)


def value(job: Job, query: Any, *arguments: Any, **named: Any) -> Any:
    """The one value of a query."""
    row = connect(job).execute(query, arguments or named or None).fetchone()
    return row[0] if row else None


# -- what is run ---------------------------------------------------------------------------------------------


def fill(job: Job, queue: str, task: str, count: int, steps: int = 0) -> None:
    """Spawn so many, by one statement."""
    assert value(job, FILL, queue=queue, task=task, count=count, steps=steps) == count


def ended(job: Job, queue: str) -> int:
    """How many tasks of a queue have ended well."""
    return int(value(job, f'select count(*) from absurd."t_{queue}" where state = $$completed$$'))


def result(found: TaskResultSnapshot | None) -> Any:
    """The result of a task that has ended well."""
    if found is None or found.state != "completed":
        raise RuntimeError(f"a task has not ended well: {found}")
    return found.result


def blocking(job: Job, queue: str, *tasks: Callable[..., Any]) -> Absurd:
    """A client that knows these tasks, each named after its function."""
    app = Absurd(job.url, queue_name=queue)
    for task in tasks:
        app.register_task(task.__name__)(task)
    return app


def on_loop(job: Job, queue: str, *tasks: Callable[..., Any]) -> AsyncAbsurd:
    """The same for an event loop."""
    app = AsyncAbsurd(job.url, queue_name=queue)
    for task in tasks:
        app.register_task(task.__name__)(task)
    return app


def chain(params: dict[str, int], context: TaskContext) -> int:
    """Call a step so many times, one after another."""
    number = params["number"]
    for _ in range(params["steps"]):
        number = context.step("add", partial(int.__add__, number, 1))
    return number


async def chain_async(params: dict[str, int], context: AsyncTaskContext) -> int:
    """Call a step so many times, one after another."""
    number = params["number"]
    for _ in range(params["steps"]):
        number = await context.step("add", partial(add, number))
    return number


async def add(number: int) -> int:
    """Add one."""
    return number + 1


async def one_step(params: dict[str, int], context: AsyncTaskContext) -> int:
    """A job of one step."""

    async def hit() -> int:
        tally.hit()
        return params["number"] + 1

    return await context.step("hit", hit)


async def bare(params: dict[str, int], _context: AsyncTaskContext) -> int:
    """A job without steps."""
    tally.hit()
    return params["number"] + 1


def stamped(params: dict[str, int], _context: TaskContext) -> int:
    """Say at once when it began."""
    tally.stamp()
    return params["number"]


async def hostage(params: dict[str, int], context: AsyncTaskContext) -> int:
    """Record one step, then call one that outlives the process."""

    async def outlive() -> int:
        if os.environ.get(STUCK):
            reached.put_nowait(number)
            await asyncio.Event().wait()
        return number

    number = await context.step("add", partial(add, params["number"]))
    return await context.step("outlive", outlive)


async def asleep(params: dict[str, int], context: AsyncTaskContext) -> int:
    """Sleep for an hour."""
    await context.sleep_for("nap", 3600)
    return params["number"]
