"""procrastinate: a job queue that takes and ends each job by a statement of its own.

Set up for speed: a worker on uvloop that runs 10 jobs at once (1 and 100 drain fewer), with a connection for
each of them. Jobs are given through its synchronous connector. Both connectors are as they come: each
statement is a transaction, after a check of the connection. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import procrastinate
import psycopg
import uvloop

from benchmarks.protocol import (
    Job,
    Tally,
    Worker,
    drain,
    import_time,
    note,
    rate,
    report,
    say_ready,
    start_latency,
    wait_for_end,
    wait_for_parent,
)

MODULE: Final = "benchmarks.contestants.procrastinate"
EXPECTED: Final = 450
"""Jobs a second that a worker runs, to choose how large a backlog is."""
ENQUEUED: Final = 6000
"""Jobs a second that are enqueued in bulk, to choose how many."""
CONCURRENCY: Final = 10


@dataclass(frozen=True, slots=True)
class Client:
    """One that enqueues, and a connection that looks what has become of it."""

    job: Job
    app: procrastinate.App
    connection: psycopg.Connection[Any]

    def enqueue(self, name: str) -> None:
        """Give one job."""
        self.app.configure_task(name).defer(number=1)

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""
        task = self.app.configure_task("bare")
        for first in range(0, count, at_once):
            task.batch_defer(*[{"number": 1}] * min(at_once, count - first))

    def left(self) -> int:
        """How many are not done."""
        return self.count("select count(*) from procrastinate_jobs where status in ('todo', 'doing')")

    def done(self) -> int:
        """How many have ended well."""
        return self.count("select count(*) from procrastinate_jobs where status = 'succeeded'")

    def count(self, query: str) -> int:
        """The number that a query gives."""
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def clear(self) -> None:
        """Forget all jobs."""
        self.connection.execute("truncate procrastinate_jobs cascade")


def main() -> None:
    """Measure what is wanted, or be a worker."""
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # it warns of apps in `__main__`
    job = Job.read()
    if sys.argv[2:]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ROLES[sys.argv[2]](job))
        return
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=job.url))
    with app.open(), psycopg.connect(job.url, autocommit=True) as connection:
        app.schema_manager.apply_schema()
        client = Client(job, app, connection)
        for group, measure in GROUPS.items():
            if group in job.wanted:
                try:
                    client.clear()
                    measure(client)
                except Exception as error:  # the other groups are still to be measured
                    note(f"{group}: {error}")


def queue(client: Client) -> None:
    """Enqueue with one caller, and 100 a call; drain by one and by two workers."""
    enqueue_one(client)
    client.clear()
    bulk = int(ENQUEUED * client.job.seconds) // 100 * 100
    rate("enqueue-bulk", bulk, lambda: client.fill(bulk, at_once=100))
    if client.left() != bulk:
        raise RuntimeError(f"{client.left()} of {bulk} jobs are in the queue")
    count = max(1000, int(EXPECTED * client.job.seconds * 2))
    for workers in (1, 2):
        client.clear()
        client.fill(count)
        client.connection.execute("vacuum analyze")
        drain(client.job, f"bare-{workers}", MODULE, workers, count, client.left)
        if client.done() != count:
            raise RuntimeError(f"{count} jobs were enqueued, {client.done()} ended well")


def enqueue_one(client: Client) -> None:
    """One caller, each job durable before the next."""
    for _ in range(10):
        client.enqueue("bare")
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + client.job.seconds:
        client.enqueue("bare")
        done += 1
    report("enqueue-one", done / (time.perf_counter() - began))


def start(client: Client) -> None:
    """Give single jobs to an idle worker process."""
    worker = Worker(MODULE, client.job)
    try:
        worker.wait_ready()
        start_latency(client.job, "start", worker, lambda: client.enqueue("stamped"))
        worker.stop()
    finally:
        worker.kill()


def cold(client: Client) -> None:
    """Importing it, and a process that enqueues a job and runs it, the median of three."""
    import_time("import procrastinate")
    report("cold", sorted(cold_seconds(client) for _ in range(3))[1])


def cold_seconds(client: Client) -> float:
    """From the start of the process until the database says that its job is done."""
    began = time.monotonic()
    worker = Worker(MODULE, client.job, "cold")
    try:
        worker.line()  # the job's stamp
        while client.left():
            if time.monotonic() > began + 60:
                raise RuntimeError("the job is not done after 60 s")
            time.sleep(0.001)
        return time.monotonic() - began
    finally:
        worker.kill()


GROUPS: Final[dict[str, Callable[[Client], None]]] = {"queue": queue, "start": start, "cold": cold}


# -- roles -------------------------------------------------------------------------------------------------


def worker_app(connector: procrastinate.BaseConnector, tally: Tally) -> procrastinate.App:
    """An app that knows our two functions."""
    app = procrastinate.App(connector=connector)

    @app.task(name="bare")
    async def bare(number: int) -> None:
        assert number
        tally.hit()

    @app.task(name="stamped")
    async def stamped(number: int) -> None:
        assert number
        tally.stamp()

    return app


async def work(job: Job) -> None:
    """Work until our input is closed, then say what was run."""
    tally, size = Tally(), CONCURRENCY + 2
    app = worker_app(procrastinate.PsycopgConnector(conninfo=job.url, min_size=size, max_size=size), tally)
    async with app.open_async():
        running = asyncio.create_task(
            app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
        )
        await asyncio.sleep(0.5)  # it does not say when it listens; what came before, it finds too
        say_ready()
        await asyncio.to_thread(wait_for_end)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    tally.say()


async def be_cold(job: Job) -> None:
    """Enqueue a job and run it, until killed."""
    wait_for_parent()
    app = worker_app(procrastinate.PsycopgConnector(conninfo=job.url), Tally())
    async with app.open_async():
        await app.configure_task("stamped").defer_async(number=1)
        await app.run_worker_async(install_signal_handlers=False)


ROLES: Final[dict[str, Callable[[Job], Any]]] = {"worker": work, "cold": be_cold}


if __name__ == "__main__":
    main()
