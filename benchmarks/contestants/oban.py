"""oban, in Python: a job queue with a producer a queue, which takes jobs in batches and ends them one by one.

Set up for speed: a queue that runs 100 jobs at once (10 drain a third fewer), uvloop, and the pool that it
makes by itself. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

import oban
import oban.schema
import psycopg
import uvloop

from benchmarks.contestants.shared import enqueue_one_async
from benchmarks.contestants.table_queue import TableQueue
from benchmarks.protocol import Job, Tally, say_ready, wait_for_end, wait_for_parent

LIMIT: Final = 100
"""Jobs that a worker runs at once."""

tally: Final = Tally()


@oban.worker(queue="default")
class Bare:
    """Does nothing, and is counted."""

    async def process(self, job: oban.Job) -> None:
        """Count it."""
        assert job.args["number"]
        tally.hit()


@oban.worker(queue="default")
class Stamped:
    """Says when it began."""

    async def process(self, job: oban.Job) -> None:
        """Say it."""
        assert job.args["number"]
        tally.stamp()


class Client(TableQueue):
    """One that enqueues."""

    module = "benchmarks.contestants.oban"
    package = "oban"
    expected, enqueued = 2400, 2500
    left_query = "select count(*) from oban_jobs where state <> 'completed'"
    done_query = "select count(*) from oban_jobs where state = 'completed'"
    clear_query = "truncate oban_jobs"
    analyzed = False  # with it one worker drains a quarter less

    def __init__(
        self, job: Job, connection: psycopg.Connection[Any], runner: asyncio.Runner, app: oban.Oban
    ) -> None:
        super().__init__(job, connection)
        self._runner, self._oban = runner, app

    def enqueue_one(self) -> None:
        """Measure one caller."""
        self._runner.run(enqueue_one_async(self.job, lambda: self._oban.enqueue(Bare.new({"number": 1}))))

    def enqueue_stamped(self) -> None:
        """Give one job that says when it began."""
        self._runner.run(self._oban.enqueue(Stamped.new({"number": 1})))

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""

        async def enqueue() -> None:
            for first in range(0, count, at_once):
                size = min(at_once, count - first)
                await self._oban.enqueue_many(Bare.new({"number": 1}) for _ in range(size))

        self._runner.run(enqueue())


def main() -> None:
    """Measure what is wanted, or be a worker."""
    job = Job.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[2:]:
            runner.run(ROLES[sys.argv[2]](job))
            return
        with psycopg.connect(job.url, autocommit=True) as connection:
            pool = runner.run(oban.Oban.create_pool(job.url))
            runner.run(oban.schema.install(pool))
            Client(job, connection, runner, oban.Oban(pool=pool)).measure()
            runner.run(pool.close())


# -- roles -------------------------------------------------------------------------------------------------


async def work(job: Job) -> None:
    """Work until our input is closed, then say what was run."""
    pool = await oban.Oban.create_pool(job.url)
    async with oban.Oban(pool=pool, queues={"default": LIMIT}):
        await asyncio.sleep(0.5)  # it does not say when it listens; what came before, it finds too
        say_ready()
        await asyncio.to_thread(wait_for_end)
    await pool.close()
    tally.say()


async def be_cold(job: Job) -> None:
    """Enqueue a job and run it, until killed."""
    wait_for_parent()
    pool = await oban.Oban.create_pool(job.url)
    app = oban.Oban(pool=pool, queues={"default": LIMIT})
    await app.enqueue(Stamped.new({"number": 1}))
    async with app:
        await asyncio.Event().wait()


ROLES: Final[dict[str, Callable[[Job], Any]]] = {"worker": work, "cold": be_cold}


if __name__ == "__main__":
    main()
