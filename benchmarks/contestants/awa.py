"""awa: a job queue with an engine in Rust, on its append-only queue storage.

Set up for speed: queue storage, handlers on uvloop, 256 of them at once (10 and 100 drain fewer; 512 and 1,024, with
30 connections, no more, nor do a second claimer or, with one worker, two stripes), its direct COPY for many; VACUUM
ANALYZE after filling, without which claims get slow. It has no steps, so a job is bare.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import awa
import uvloop

from benchmarks.contestants.shared import cold_queue, each_group, enqueue_one, url_parts
from benchmarks.protocol import (
    Job,
    Tally,
    Worker,
    drain,
    import_time,
    rate,
    say_ready,
    start_latency,
    wait_for_end,
    wait_for_parent,
)

if TYPE_CHECKING:
    import psycopg

MODULE: Final = "benchmarks.contestants.awa"
EXPECTED: Final = 3000
"""Jobs a second that a worker runs, to choose how large a backlog is."""
ENQUEUED: Final = 10_000
"""Jobs a second that are enqueued in bulk, to choose how many."""
AT_ONCE: Final = 256
LEFT: Final = """select (select count(*) from awa.ready_entries where queue = %(queue)s)
  - (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches where queue = %(queue)s)
  - (select count(*) from awa.done_entries where queue = %(queue)s and state = 'completed')"""
"""Jobs less those whose ends were recorded, most of them by the batch."""


@dataclass
class Bare:
    """A job that does nothing, and is counted."""

    number: int


@dataclass
class Stamped:
    """A job that says when it began."""

    number: int


@dataclass(frozen=True, slots=True)
class Client:
    """One that enqueues, and a connection that looks what has become of it."""

    job: Job
    awa: awa.Client
    connection: psycopg.Connection[Any]

    def fill(self, count: int, name: str = "default", at_once: int = 1000) -> None:
        """Give so many to a queue, some at a time."""
        for first in range(0, count, at_once):
            self.awa.enqueue_many_copy([Bare(1)] * min(at_once, count - first), queue=name)

    def left(self, name: str = "default") -> int:
        """How many of a queue have not ended well; `queue_stats` would say so too, but costs 100 ms.

        One statement, because jobs that are done and their ends are forgotten together, within seconds.
        """
        row = self.connection.execute(LEFT, {"queue": name}).fetchone()
        assert row is not None
        return int(row[0])


def main() -> None:
    """Measure what is wanted, or be a worker."""
    job = Job.read()
    if sys.argv[2:]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ROLES[sys.argv[2]](job))
        return
    import psycopg  # which a worker has no use for

    with awa.Client(url(job)) as engine, psycopg.connect(job.url, autocommit=True) as connection:
        engine.migrate()
        engine.install_queue_storage()
        client = Client(job, engine, connection)
        each_group(job, [(group, partial(measure, client)) for group, measure in GROUPS.items()])


def url(job: Job) -> str:
    """The database as a URL: the engine reads nothing else."""
    given = {key: quote(str(value), safe="") for key, value in url_parts(job.url).items()}
    password = f":{given['password']}" if "password" in given else ""
    options = "&".join(f"{key}={given[key]}" for key in ("host", "port", "sslmode") if key in given)
    return f"postgresql://{given.get('user', '')}{password}@localhost/{given['dbname']}?{options}"


def queue(client: Client) -> None:
    """Drain by one and by two workers; enqueue with one caller, and 100 a call.

    In this order and with two queues, because its storage is best left alone: emptying it takes seconds, and
    makes the statements of open connections fail.
    """
    count = max(1000, int(EXPECTED * client.job.seconds * 2))
    for workers in (1, 2):
        client.fill(count)
        client.connection.execute("vacuum analyze")
        if client.left() != count:
            raise RuntimeError(f"{client.left()} of {count} jobs are in the queue")
        drain(client.job, f"bare-{workers}", MODULE, workers, count, client.left)
    enqueue_one(client.job, lambda: client.awa.insert(Bare(1), queue="elsewhere"))
    before = client.left("elsewhere")
    bulk = int(ENQUEUED * client.job.seconds) // 100 * 100
    rate("enqueue-bulk", bulk, lambda: client.fill(bulk, "elsewhere", at_once=100))
    if client.left("elsewhere") - before != bulk:
        raise RuntimeError(f"{client.left('elsewhere') - before} of {bulk} jobs are in the queue")


def start(client: Client) -> None:
    """Give single jobs to an idle worker process."""
    worker = Worker(MODULE, client.job)
    try:
        worker.wait_ready()
        start_latency(client.job, "start", worker, lambda: client.awa.insert(Stamped(1)))
        worker.stop()
    finally:
        worker.kill()


def cold(client: Client) -> None:
    """Importing it, and a process that enqueues a job and runs it."""
    import_time("import awa")
    cold_queue(client.job, MODULE, client.left)


GROUPS: Final[dict[str, Callable[[Client], None]]] = {"start": start, "cold": cold, "queue": queue}


# -- roles -------------------------------------------------------------------------------------------------


def engine(job: Job, tally: Tally) -> awa.AsyncClient:
    """An engine that knows our two functions."""
    found = awa.AsyncClient(url(job))

    @found.task(Bare, queue="default")
    async def bare(_: Any) -> None:
        tally.hit()

    @found.task(Stamped, queue="default")
    async def stamped(_: Any) -> None:
        tally.stamp()

    return found


async def work(job: Job) -> None:
    """Work until our input is closed, then say what was run."""
    tally = Tally()
    async with engine(job, tally) as running:
        await running.start([("default", AT_ONCE)])
        await asyncio.sleep(0.5)  # it does not say when it listens; what came before, it finds too
        say_ready()
        await asyncio.to_thread(wait_for_end)
        await running.shutdown()
    tally.say()


async def be_cold(job: Job) -> None:
    """Enqueue a job and run it, until killed."""
    wait_for_parent()
    running = engine(job, Tally())
    await running.insert(Stamped(1))
    await running.start([("default", AT_ONCE)])
    await asyncio.Event().wait()


ROLES: Final[dict[str, Callable[[Job], Any]]] = {"worker": work, "cold": be_cold}


if __name__ == "__main__":
    main()
