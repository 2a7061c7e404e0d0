"""oban, in Python: a job queue with a producer a queue, which takes jobs in batches and ends them one by one.

Set up for speed: a queue that runs 100 jobs at once (10 drain a third fewer), uvloop, and the pool that it
makes by itself. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import oban
import oban.schema
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

MODULE: Final = "benchmarks.contestants.oban"
EXPECTED: Final = 2400
"""Jobs a second that a worker runs, to choose how large a backlog is."""
ENQUEUED: Final = 2500
"""Jobs a second that are enqueued in bulk, to choose how many."""
LIMIT: Final = 100

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


@dataclass(frozen=True, slots=True)
class Client:
    """One that enqueues, and a connection that looks what has become of it."""

    job: Job
    runner: asyncio.Runner
    oban: oban.Oban
    connection: psycopg.Connection[Any]

    def enqueue(self, worker: Any) -> None:
        """Give one job."""
        self.runner.run(self.oban.enqueue(worker.new({"number": 1})))

    def fill(self, count: int, at_once: int = 1000) -> None:
        """Give so many, some at a time."""

        async def enqueue() -> None:
            for first in range(0, count, at_once):
                size = min(at_once, count - first)
                await self.oban.enqueue_many(Bare.new({"number": 1}) for _ in range(size))

        self.runner.run(enqueue())

    def left(self) -> int:
        """How many are not done."""
        return self.count("select count(*) from oban_jobs where state <> 'completed'")

    def done(self) -> int:
        """How many have ended well."""
        return self.count("select count(*) from oban_jobs where state = 'completed'")

    def count(self, query: str) -> int:
        """The number that a query gives."""
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def clear(self) -> None:
        """Forget all jobs."""
        self.connection.execute("truncate oban_jobs")


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
            client = Client(job, runner, oban.Oban(pool=pool), connection)
            for group, measure in GROUPS.items():
                if group in job.wanted:
                    try:
                        client.clear()
                        measure(client)
                    except Exception as error:  # the other groups are still to be measured
                        note(f"{group}: {error}")
            runner.run(pool.close())


def queue(client: Client) -> None:
    """Enqueue with one caller, and 100 a call; drain by one and by two workers."""
    client.runner.run(enqueue_one(client))
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


async def enqueue_one(client: Client) -> None:
    """One caller, each job durable before the next."""
    for _ in range(10):
        await client.oban.enqueue(Bare.new({"number": 1}))
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + client.job.seconds:
        await client.oban.enqueue(Bare.new({"number": 1}))
        done += 1
    report("enqueue-one", done / (time.perf_counter() - began))


def start(client: Client) -> None:
    """Give single jobs to an idle worker process."""
    worker = Worker(MODULE, client.job)
    try:
        worker.wait_ready()
        start_latency(client.job, "start", worker, lambda: client.enqueue(Stamped))
        worker.stop()
    finally:
        worker.kill()


def cold(client: Client) -> None:
    """Importing it, and a process that enqueues a job and runs it, the median of three."""
    import_time("import oban")
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
