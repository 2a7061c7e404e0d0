"""perdure: on an event loop (asyncio, and uvloop where it is installed) and in threads.

Worker processes are set up as `perdure worker` sets them up: uvloop, and a garbage collector that looks seldom.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import psycopg

import perdure
from benchmarks import programs
from benchmarks.contestants import ours_queue
from benchmarks.contestants.shared import cold_process
from benchmarks.protocol import (
    Job,
    at_once,
    at_once_async,
    import_time,
    latencies,
    one_at_a_time,
    one_at_a_time_async,
)

MESSAGES: Final = 300

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop] | None]


def loops() -> Loops:
    """The event loops to measure on, by column."""
    found: Loops = {"async": None}
    with suppress(ImportError):
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    return found


def main() -> None:
    """Measure what is wanted, or be a worker."""
    job = Job.read()
    if sys.argv[2:]:
        ours_queue.ROLES[sys.argv[2]](job)
        return
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(programs.TABLE)
    for column, factory in loops().items():
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(on_loop(job, column))
    in_threads(job)
    if "queue" in job.wanted:
        ours_queue.queue(job)
    if "start" in job.wanted:
        ours_queue.starts(job)
    if "recovery" in job.wanted:
        ours_queue.recovery(job)
    if "waiting" in job.wanted:
        ours_queue.waiting(job)
    if "cold" in job.wanted:
        import_time("import perdure")
        cold_process(ours_queue.MODULE)


async def on_loop(job: Job, column: str) -> None:
    """Direct calls of async workflows, in one process."""
    numbers = itertools.count()
    async with perdure.Perdure(job.url):
        if "one" in job.wanted:
            for steps in (1, 3, 10):
                call = partial(chain, numbers, steps)
                await one_at_a_time_async(job, f"one-{steps}", call, column)
        if "many" in job.wanted:
            for steps in (1, 3):
                await at_once_async(job, f"many-{steps}", partial(chain, numbers, steps), column)
        if "transaction" in job.wanted:
            await transactions(job, column)
        if "messages" in job.wanted:
            await messages(column)


async def chain(numbers: itertools.count[int], steps: int) -> None:
    """One run, with its result checked."""
    number = next(numbers)
    assert await programs.chain(number, steps) == number + steps


async def transactions(job: Job, column: str) -> None:
    """Transaction steps within one run."""

    @perdure.workflow(name=f"transactions-{column}")
    async def inserts() -> None:
        await one_at_a_time_async(job, "transaction", partial(programs.insert, 1), column)

    await inserts()


async def messages(column: str) -> None:
    """Ping-pong of two runs, and questions of a client to one."""
    ids = f"pong-{column}", f"ping-{column}"
    pong = await programs.pong.options(id=ids[0]).start(MESSAGES)
    latencies("send", (await programs.ping.options(id=ids[1])(*ids, MESSAGES))[10:], column)
    await pong.result()
    answering = await programs.answering.options(id=f"answering-{column}").start(MESSAGES)
    took = []
    for number in range(MESSAGES):
        began = time.perf_counter()
        await answering.send("question", number)
        assert await answering.get_event(f"answer-{number}", type=int) == number
        took.append((time.perf_counter() - began) * 1000)
    latencies("event", took[10:], column)
    await answering.result()


def in_threads(job: Job) -> None:
    """Direct calls of blocking workflows, in one process."""
    numbers = itertools.count()
    with perdure.sync.Perdure(job.url):
        if "one" in job.wanted:
            for steps in (1, 3, 10):
                one_at_a_time(job, f"one-{steps}", partial(chain_blocking, numbers, steps))
        if "many" in job.wanted:
            for steps in (1, 3):
                at_once(job, f"many-{steps}", partial(chain_blocking, numbers, steps))
        if "transaction" in job.wanted:

            @perdure.workflow(name="transactions-sync")
            def inserts() -> None:
                one_at_a_time(job, "transaction", partial(programs.insert_blocking, 1))

            inserts()


def chain_blocking(numbers: itertools.count[int], steps: int) -> None:
    """One run, with its result checked."""
    number = next(numbers)
    assert programs.chain_blocking(number, steps) == number + steps


if __name__ == "__main__":
    main()
