"""perdure through its queue: enqueueing, draining, starts in an idle worker, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

import perdure
from benchmarks import programs
from benchmarks.contestants.shared import enqueue_one
from benchmarks.protocol import (
    Job,
    Worker,
    drain,
    rate,
    report,
    resident_bytes,
    say_ready,
    start_latency,
    wait_for_end,
    wait_for_parent,
)
from perdure.cli.worker import collect_seldom

MODULE: Final = "benchmarks.contestants.ours"
EXPECTED: Final = 6000
"""Runs a second, to choose how large a backlog is."""
KILLED: Final = 1000
LAST: Final = "select extract(epoch from max(finished))::float8 from perdure.ends"
WAITING: Final = ((10_000, "waiting-10k"), (100_000, "waiting-100k"))


def queue(job: Job) -> None:
    """Enqueue with one caller, in bulk; drain by one and by two workers."""
    count = int(EXPECTED * job.seconds * 2)
    with perdure.sync.Perdure(job.url, worker=False) as app, connect(job) as connection:
        elsewhere = programs.bare.options(queue="elsewhere")
        enqueue_one(job, lambda: app.start("benchmarks.programs.bare", args=[1], queue="elsewhere"))
        batches = count // 100
        rate("enqueue-bulk", batches * 100, lambda: fill(app, elsewhere, batches * 100, at_once=100))
        for workers in (1, 2):
            for row, workflow in (("drain", programs.one_step), ("bare", programs.bare)):
                fill(app, workflow, count)
                drain(
                    job,
                    f"{row}-{workers}",
                    MODULE,
                    workers,
                    count,
                    lambda: left(connection),
                    lambda: value(connection, LAST),
                )


def fill(app: perdure.sync.Perdure, workflow: Any, count: int, at_once: int = 1000) -> None:
    """Enqueue so many, some at a time."""
    for first in range(0, count, at_once):
        app.start_many(workflow.bind(number) for number in range(first, min(count, first + at_once)))


def left(connection: psycopg.Connection[Any]) -> int:
    """How many runs of the queue that is drained have not ended."""
    return int(value(connection, "select count(*) from perdure.live where queue = 'default'"))


def connect(job: Job) -> psycopg.Connection[Any]:
    """Connect beside what is measured."""
    return psycopg.connect(job.url, autocommit=True)


def value(connection: psycopg.Connection[Any], query: Any) -> Any:
    """The one value of a query, None if there is no row."""
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def starts(job: Job) -> None:
    """Start runs in an idle worker process, from a client."""
    worker = Worker(MODULE, job)
    try:
        worker.wait_ready()
        with perdure.sync.Perdure(job.url, worker=False) as app:
            start_latency(job, "start", worker, lambda: app.start("benchmarks.programs.stamped", args=[1]))
    finally:
        worker.kill()


def recovery(job: Job) -> None:
    """Kill a process with runs in the middle: from the end of its lease until another one has ended them all."""
    victim = Worker(MODULE, job, "victim", **{programs.STUCK: "1"})
    victim.wait_ready()
    heir = Worker(MODULE, job, "heir")
    try:
        heir.wait_ready()
        with connect(job) as connection:
            victim.kill()
            lease = value(connection, f"select max(expires) from perdure.workers where pid = {victim.pid}")
            while left(connection):
                time.sleep(0.02)
            taken = value(connection, "select count(*) from perdure.takeovers")
            last = value(connection, "select max(finished) from perdure.ends")
    finally:
        victim.kill()
        heir.kill()
    if taken != KILLED:
        raise RuntimeError(f"{KILLED} runs were killed, {taken} were taken over")
    report("recovery", (last - lease).total_seconds())


def waiting(job: Job) -> None:
    """Runs that sleep for an hour, started by a client: what they add to a worker that has put away a thousand before."""
    worker = Worker(MODULE, job)
    try:
        worker.wait_ready()
        with perdure.sync.Perdure(job.url, worker=False) as app, connect(job) as connection:
            sleep(app, connection, 1000)
            before, there = resident_bytes(worker.pid), 0
            for count, row in WAITING:
                sleep(app, connection, count - there)
                there = count
                report(row, max(0, resident_bytes(worker.pid) - before) / count / 1000)
    finally:
        worker.kill()


def sleep(app: perdure.sync.Perdure, connection: psycopg.Connection[Any], count: int) -> None:
    """Start so many more and wait until all are put away."""
    there = value(connection, "select count(*) from perdure.live where status = 4")
    fill(app, programs.asleep, count)
    while value(connection, "select count(*) from perdure.live where status = 4") < there + count:
        time.sleep(0.1)


# -- roles ---------------------------------------------------------------------------------------------------


def run_on_loop(main: Callable[[], Any]) -> None:
    """Run it as `perdure worker` would."""
    collect_seldom()
    logging.getLogger("perdure").setLevel(logging.ERROR)  # that a worker died is what was asked for
    factory = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def work(job: Job) -> None:
    """Work until our input is closed, then say what was run."""
    async with perdure.Perdure(job.url):
        await programs.chain(1, 1)  # so that nothing is done for the first time while it is measured
        say_ready()
        await asyncio.to_thread(wait_for_end)
    programs.tally.say()


async def be_the_victim(job: Job) -> None:
    """Start runs that all get stuck behind a committed step, then wait to be killed."""
    wait_for_parent()
    async with perdure.Perdure(job.url) as app:
        await app.start_many(programs.hostage.bind(number) for number in range(KILLED))
        for _ in range(KILLED):
            await programs.reached.get()
        say_ready()
        await asyncio.Event().wait()


async def be_cold(job: Job) -> None:
    """Run one workflow and say when it had ended."""
    async with perdure.Perdure(job.url):
        await programs.chain(1, 1)
        print(time.monotonic(), flush=True)


ROLES: Final[dict[str, Callable[[Job], None]]] = {
    "worker": lambda job: run_on_loop(lambda: work(job)),
    "heir": lambda job: run_on_loop(lambda: work(job)),
    "victim": lambda job: run_on_loop(lambda: be_the_victim(job)),
    "cold": lambda job: asyncio.run(be_cold(job)),
}
