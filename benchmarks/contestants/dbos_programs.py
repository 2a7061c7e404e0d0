"""What DBOS runs in the benchmark, and how it is set up: workflows that do nothing but be durable.

A module of its own, because the processes of the benchmark look a workflow up by its name, and one that runs as
`__main__` and is imported as well would register everything twice.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dbos import DBOS, DBOSConfig

from benchmarks.protocol import Job, Tally

STUCK: Final = "BENCH_STUCK"
"""Environment variable: in a process that has it, `stuck` never returns."""

tally: Final = Tally()
"""What this process has run."""
reached: Final[queue.SimpleQueue[int]] = queue.SimpleQueue()
"""Runs of this process whose first step is committed and whose second has begun."""


def config(job: Job, executor: str) -> DBOSConfig:
    """Say what DBOS is to be like."""
    return {
        "name": "bench",
        "system_database_url": job.url,
        "application_version": "1",
        "executor_id": executor,
        "notification_coalesce_sec": 0.001,
        "log_level": "CRITICAL",
        "console_log_level": "CRITICAL",
    }


@contextmanager
def launched(job: Job, executor: str = "bench", queues: tuple[str, ...] = ()) -> Iterator[None]:
    """Have DBOS at work in this process; it looks into these queues only."""
    DBOS(config=config(job, executor))
    DBOS.listen_queues(queues)
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


# -- what is run ------------------------------------------------------------------------------------------------


@DBOS.step()
def add(number: int) -> int:
    """Add one."""
    return number + 1


@DBOS.workflow()
def chain(number: int, steps: int) -> int:
    """Call a step so many times, one after another."""
    for _ in range(steps):
        number = add(number)
    return number


@DBOS.step()
async def add_async(number: int) -> int:
    """Add one."""
    return number + 1


@DBOS.workflow()
async def chain_async(number: int, steps: int) -> int:
    """Call a step so many times, one after another."""
    for _ in range(steps):
        number = await add_async(number)
    return number


@DBOS.step()
def hit(number: int) -> int:
    """Count, and add one."""
    tally.hit()
    return number + 1


@DBOS.workflow()
def one_step(number: int) -> int:
    """A job of one step."""
    return hit(number)


@DBOS.workflow()
def bare(number: int) -> int:
    """A job without steps."""
    tally.hit()
    return number + 1


@DBOS.workflow()
def stamped(number: int) -> int:
    """Say at once when it began."""
    tally.stamp()
    return number


@DBOS.step()
def stuck(number: int) -> int:
    """Never return, in a process that is to be killed."""
    if os.environ.get(STUCK):
        reached.put(number)
        threading.Event().wait()
    return number


@DBOS.workflow()
def hostage(number: int) -> int:
    """Record one step, then call one that outlives the process."""
    return stuck(add(number))


@DBOS.workflow()
async def asleep(number: int) -> int:
    """Sleep for an hour."""
    await DBOS.sleep_async(3600)
    return number


# -- messages ------------------------------------------------------------------------------------------------


@DBOS.workflow()
def pong(other: str, times: int) -> int:
    """Answer each message by one."""
    for _ in range(times):
        DBOS.send(other, DBOS.recv("ping"), "pong")
    return times


@DBOS.workflow()
def ping(other: str, times: int) -> list[float]:
    """Send and wait for the answer, so many times; return the milliseconds of each."""
    took = []
    for number in range(times):
        began = time.perf_counter()
        DBOS.send(other, number, "ping")
        assert DBOS.recv("pong") == number
        took.append((time.perf_counter() - began) * 1000)
    return took


@DBOS.workflow()
def answering(times: int) -> int:
    """Answer each message by an event."""
    for number in range(times):
        DBOS.set_event(f"answer-{number}", DBOS.recv("question"))
    return times


@DBOS.workflow()
async def pong_async(other: str, times: int) -> int:
    """Answer each message by one."""
    for _ in range(times):
        await DBOS.send_async(other, await DBOS.recv_async("ping"), "pong")
    return times


@DBOS.workflow()
async def ping_async(other: str, times: int) -> list[float]:
    """Send and wait for the answer, so many times; return the milliseconds of each."""
    took = []
    for number in range(times):
        began = time.perf_counter()
        await DBOS.send_async(other, number, "ping")
        assert await DBOS.recv_async("pong") == number
        took.append((time.perf_counter() - began) * 1000)
    return took


@DBOS.workflow()
async def answering_async(times: int) -> int:
    """Answer each message by an event."""
    for number in range(times):
        await DBOS.set_event_async(f"answer-{number}", await DBOS.recv_async("question"))
    return times
