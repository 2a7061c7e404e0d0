"""pgqueuer: a job queue whose worker takes and ends jobs in batches.

Set up for speed: asyncpg (by its own figures 1.7 times psycopg) on uvloop, one connection a process, batches
of 1,000 for a backlog (10, its default, drain less than half as many) and of 1 where one job is waited for,
because ends are written when a batch is full or after 0.1 s. Durability `durable`, its default: all tables
are logged. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import pgqueuer
import psycopg
import uvloop
from psycopg.conninfo import conninfo_to_dict

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

MODULE: Final = "benchmarks.contestants.pgqueuer"
EXPECTED: Final = 9000
"""Jobs a second that a worker runs, to choose how large a backlog is."""
ENQUEUED: Final = 20_000
"""Jobs a second that are enqueued in bulk, to choose how many."""


@dataclass(frozen=True, slots=True)
class Client:
    """One that enqueues, and a connection that looks what has become of it."""

    job: Job
    runner: asyncio.Runner
    queries: pgqueuer.Queries
    connection: psycopg.Connection[Any]

    def enqueue(self, entrypoint: str) -> None:
        """Give one job."""
        self.runner.run(self.queries.enqueue(entrypoint, b"1"))

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""

        async def enqueue() -> None:
            for first in range(0, count, at_once):
                size = min(at_once, count - first)
                await self.queries.enqueue(["bare"] * size, [b"1"] * size, [0] * size)

        self.runner.run(enqueue())

    def left(self) -> int:
        """How many are not done: what is done has moved to the log."""
        return self.count("select count(*) from pgqueuer")

    def done(self) -> int:
        """How many have ended well."""
        return self.count("select count(*) from pgqueuer_log where status = 'successful'")

    def count(self, query: str) -> int:
        """The number that a query gives."""
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def clear(self) -> None:
        """Forget all jobs."""
        self.connection.execute("truncate pgqueuer, pgqueuer_log")


def main() -> None:
    """Measure what is wanted, or be a worker."""
    job = Job.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[2:]:
            runner.run(ROLES[sys.argv[2]](job))
            return
        with psycopg.connect(job.url, autocommit=True) as connection:
            queries = pgqueuer.Queries(runner.run(driver(job)))
            runner.run(queries.install())
            client = Client(job, runner, queries, connection)
            for group, measure in GROUPS.items():
                if group in job.wanted:
                    try:
                        client.clear()
                        measure(client)
                    except Exception as error:  # the other groups are still to be measured
                        note(f"{group}: {error}")


async def driver(job: Job) -> pgqueuer.AsyncpgDriver:
    """Connect as the documentation does; asyncpg reads URLs only."""
    given = conninfo_to_dict(job.url)
    connection = await asyncpg.connect(
        host=given.get("host"),
        port=given.get("port"),
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
    )
    return pgqueuer.AsyncpgDriver(connection)


def queue(client: Client) -> None:
    """Enqueue with one caller, and 100 a call; drain by one and by two workers."""
    client.runner.run(enqueue_one(client))
    bulk = int(ENQUEUED * client.job.seconds) // 100 * 100
    rate("enqueue-bulk", bulk, lambda: client.fill(bulk, at_once=100))
    if client.left() < bulk:
        raise RuntimeError(f"{client.left()} of {bulk} jobs are in the queue")
    count = max(1000, int(EXPECTED * client.job.seconds * 2))
    for workers in (1, 2):
        client.clear()
        client.fill(count)
        client.connection.execute("vacuum analyze")
        drain(client.job, f"bare-{workers}", MODULE, workers, count, client.left)
        if client.done() != count:
            raise RuntimeError(f"{count} jobs were enqueued, {client.done()} ended well")


async def enqueue_one(client: Client) -> None:
    """One caller, each job durable before the next."""
    for _ in range(10):
        await client.queries.enqueue("bare", b"1")
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + client.job.seconds:
        await client.queries.enqueue("bare", b"1")
        done += 1
    report("enqueue-one", done / (time.perf_counter() - began))


def start(client: Client) -> None:
    """Give single jobs to an idle worker process."""
    worker = Worker(MODULE, client.job, "single")
    try:
        worker.wait_ready()
        start_latency(client.job, "start", worker, lambda: client.enqueue("stamped"))
        worker.stop()
    finally:
        worker.kill()


def cold(client: Client) -> None:
    """Importing it, and a process that enqueues a job and runs it, the median of three."""
    import_time("import pgqueuer")
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
    queues = manager(tally, await driver(job))
    running = asyncio.create_task(queues.run(batch_size=batch))
    await asyncio.sleep(0.5)  # it does not say when it listens; what came before, it finds too
    say_ready()
    await asyncio.to_thread(wait_for_end)
    queues.shutdown.set()
    await running
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
