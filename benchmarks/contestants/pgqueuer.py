"""pgqueuer: a job queue whose worker takes and ends jobs in batches.

Set up for speed: asyncpg (by its own figures 1.7 times psycopg) on uvloop, three managers a process, batches
of 1,000 for a backlog (10, its default, drain less than half as many) and of 1 where one job is waited for,
because ends are written when a batch is full or after 0.1 s. Durability `durable`, its default: all tables
are logged. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pgqueuer
import uvloop

from benchmarks.contestants.shared import enqueue_one_async, url_parts
from benchmarks.contestants.table_queue import TableQueue
from benchmarks.protocol import Job, Tally, say_ready, wait_for_end, wait_for_parent

if TYPE_CHECKING:
    import psycopg


MANAGERS: Final = 3
"""In one process, each with a connection of its own: 1 and 5 drain less, as one worker."""


class Client(TableQueue):
    """One that enqueues; what is done has moved to the log."""

    module = "benchmarks.contestants.pgqueuer"
    package = "pgqueuer"
    expected, enqueued = 9000, 20_000
    starter = "single"
    left_query = "select count(*) from pgqueuer"
    done_query = "select count(*) from pgqueuer_log where status = 'successful'"
    clear_query = "truncate pgqueuer, pgqueuer_log"

    def __init__(
        self, job: Job, connection: psycopg.Connection[Any], runner: asyncio.Runner, queries: pgqueuer.Queries
    ) -> None:
        super().__init__(job, connection)
        self._runner, self._queries = runner, queries

    def enqueue_one(self) -> None:
        """Measure one caller."""
        self._runner.run(enqueue_one_async(self.job, lambda: self._queries.enqueue("bare", b"1")))

    def enqueue_stamped(self) -> None:
        """Give one job that says when it began."""
        self._runner.run(self._queries.enqueue("stamped", b"1"))

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""

        async def enqueue() -> None:
            for first in range(0, count, at_once):
                size = min(at_once, count - first)
                await self._queries.enqueue(["bare"] * size, [b"1"] * size, [0] * size)

        self._runner.run(enqueue())


def main() -> None:
    """Measure what is wanted, or be a worker."""
    job = Job.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[2:]:
            runner.run(ROLES[sys.argv[2]](job))
            return
        import psycopg  # which a worker has no use for

        with psycopg.connect(job.url, autocommit=True) as connection:
            queries = pgqueuer.Queries(runner.run(driver(job)))
            runner.run(queries.install())
            runner.run(queries.optimize_autovacuum())
            Client(job, connection, runner, queries).measure()


async def driver(job: Job) -> pgqueuer.AsyncpgDriver:
    """Connect as the documentation does; asyncpg reads URLs only."""
    given = url_parts(job.url)
    connection = await asyncpg.connect(
        host=given.get("host"),
        port=given.get("port"),
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
    )
    return pgqueuer.AsyncpgDriver(connection)


# -- roles -------------------------------------------------------------------------------------------------


def manager(tally: Tally, connection: pgqueuer.AsyncpgDriver) -> pgqueuer.QueueManager:
    """A worker of our two functions."""
    found = pgqueuer.QueueManager(pgqueuer.Queries(connection))

    @found.entrypoint("bare")
    async def bare(_: pgqueuer.Job) -> None:
        tally.hit()

    @found.entrypoint("stamped")
    async def stamped(_: pgqueuer.Job) -> None:
        tally.stamp()

    return found


async def work(job: Job, batch: int) -> None:
    """Work until our input is closed, then say what was run."""
    tally = Tally()
    crew = [manager(tally, await driver(job)) for _ in range(MANAGERS if batch > 1 else 1)]
    running = [asyncio.create_task(queues.run(batch_size=batch)) for queues in crew]
    await asyncio.sleep(0.5)  # it does not say when it listens; what came before, it finds too
    say_ready()
    await asyncio.to_thread(wait_for_end)
    for queues in crew:
        queues.shutdown.set()
    await asyncio.gather(*running)
    tally.say()


async def be_cold(job: Job) -> None:
    """Enqueue a job and run it, until killed."""
    wait_for_parent()
    connection = await driver(job)
    queues = manager(Tally(), connection)
    await pgqueuer.Queries(connection).enqueue("stamped", b"1")
    await queues.run(batch_size=1)


ROLES: Final[dict[str, Callable[[Job], Any]]] = {
    "worker": lambda job: work(job, 1000),
    "single": lambda job: work(job, 1),
    "cold": be_cold,
}


if __name__ == "__main__":
    main()
