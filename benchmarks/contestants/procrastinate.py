"""procrastinate: a job queue that takes and ends each job by a statement of its own.

Set up for speed: a worker on uvloop that runs 10 jobs at once (1 and 100 drain fewer), with a connection for
each of them. Jobs are given through its synchronous connector. Both connectors are as they come: each
statement is a transaction, after a check of the connection. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import procrastinate
import psycopg
import uvloop

from benchmarks.contestants.shared import enqueue_one
from benchmarks.contestants.table_queue import TableQueue
from benchmarks.protocol import Job, Tally, say_ready, wait_for_end, wait_for_parent

CONCURRENCY: Final = 10
"""Jobs that a worker runs at once."""


class Client(TableQueue):
    """One that enqueues."""

    module = "benchmarks.contestants.procrastinate"
    package = "procrastinate"
    expected, enqueued = 450, 6000
    left_query = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
    done_query = "select count(*) from procrastinate_jobs where status = 'succeeded'"
    clear_query = "truncate procrastinate_jobs cascade"

    def __init__(self, job: Job, connection: psycopg.Connection[Any], app: procrastinate.App) -> None:
        super().__init__(job, connection)
        self._app = app

    def enqueue_one(self) -> None:
        """Measure one caller."""
        enqueue_one(self.job, lambda: self._app.configure_task("bare").defer(number=1))

    def enqueue_stamped(self) -> None:
        """Give one job that says when it began."""
        self._app.configure_task("stamped").defer(number=1)

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""
        task = self._app.configure_task("bare")
        for first in range(0, count, at_once):
            task.batch_defer(*[{"number": 1}] * min(at_once, count - first))


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
        Client(job, connection, app).measure()


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
