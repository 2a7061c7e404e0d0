"""DBOS between processes: its queue, starts in an idle worker, what a killed one leaves, and sleepers."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
import sqlalchemy
from dbos import DBOS, DBOSClient

from benchmarks.contestants import dbos_programs as programs
from benchmarks.contestants.dbos_programs import launched, tally
from benchmarks.contestants.shared import cold_process, enqueue_one
from benchmarks.protocol import (
    Job,
    Worker,
    drain,
    import_time,
    note,
    rate,
    report,
    resident_bytes,
    say_ready,
    start_latency,
    wait_for_end,
    wait_for_parent,
)

MODULE: Final = "benchmarks.contestants.dbos"
EXPECTED: Final = {"one_step": 175, "bare": 400}
"""Runs a second, to choose how large a backlog is."""
POLL: Final = 0.01
"""Seconds between two looks into a queue."""
KILLED: Final = 1000
WAITING: Final = 10_000
LANES: Final = 50
"""Calls at once that start what is to sleep."""

STATUS: Final = """
select count(*) from dbos.workflow_status
where status = any (%s) and name = %s and queue_name is distinct from 'elsewhere'
"""
LAST: Final = "select max(completed_at) from dbos.workflow_status where executor_id = %s and name <> 'chain'"
ASLEEP: Final = "select count(*) from dbos.operation_outputs where function_name = 'DBOS.sleep'"
BULK: Final = """
select dbos.enqueue_workflow(workflow_name => 'bare', queue_name => 'elsewhere',
    positional_args => array[to_json(number)], application_name => 'bench')
from generate_series(1, 100) as number
"""


# -- groups --------------------------------------------------------------------------------------------------


def queue(job: Job) -> None:
    """Enqueue with one caller, in bulk; drain by one and by two workers."""
    with client(job, "elsewhere") as caller:
        enqueue_one(job, lambda: caller.enqueue({"workflow_name": "bare", "queue_name": "elsewhere"}, 1))
        enqueue_bulk(job)
    for workers, limits in ((1, {}), (2, {"worker_concurrency": 100})):
        with client(job, "drain", **limits) as caller:
            for row, workflow in (("drain", "one_step"), ("bare", "bare")):
                count = max(300, int(2 * EXPECTED[workflow] * job.seconds))
                fill(job, caller, workflow, count)
                drain(job, f"{row}-{workers}", MODULE, workers, count, partial(left, job, workflow))
                if value(job, STATUS, ["SUCCESS"], workflow) != workers * count:
                    raise RuntimeError(f"{row}-{workers}: not all ended well")


@contextmanager
def client(job: Job, queue: str, **limits: Any) -> Iterator[DBOSClient]:
    """A client that enqueues, and a queue with these limits; the tables are made first if need be."""
    with launched(job):
        DBOS.register_queue(queue, polling_interval_sec=POLL, on_conflict="always_update", **limits)
    caller = DBOSClient(system_database_url=job.url, application_name="bench")
    try:
        yield caller
    finally:
        caller.destroy()


def enqueue_bulk(job: Job) -> None:
    """A hundred by each statement."""
    batches = max(10, int(20 * job.seconds))
    with psycopg.connect(job.url, autocommit=True) as connection:

        def work() -> None:
            for _ in range(batches):
                assert connection.execute(BULK).rowcount == 100

        rate("enqueue-bulk", 100 * batches, work)


def fill(job: Job, caller: DBOSClient, workflow: str, count: int) -> None:
    """Enqueue so many, a hundred in each transaction."""
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(job.url).set(drivername="postgresql+psycopg"))
    for first in range(0, count, 100):
        with engine.begin() as connection:
            for number in range(first, min(count, first + 100)):
                caller.enqueue_in_transaction(
                    connection, {"workflow_name": workflow, "queue_name": "drain"}, number
                )
    engine.dispose()


@functools.cache
def connect(job: Job) -> psycopg.Connection[Any]:
    """A connection of this process beside what is measured."""
    return psycopg.connect(job.url, autocommit=True)


def value(job: Job, query: Any, *arguments: Any) -> Any:
    """The one value of a query."""
    row = connect(job).execute(query, arguments or None).fetchone()
    return row[0] if row else None


def left(job: Job, workflow: str) -> int:
    """How many runs of a workflow have not ended."""
    return int(value(job, STATUS, ["ENQUEUED", "PENDING"], workflow))


def starts(job: Job) -> None:
    """Start runs in an idle worker process, from a client."""
    with client(job, "start") as caller:
        worker = Worker(MODULE, job, "starter")
        try:
            worker.wait_ready()
            start_latency(
                job,
                "start",
                worker,
                lambda: caller.enqueue({"workflow_name": "stamped", "queue_name": "start"}, 1),
            )
        finally:
            worker.kill()


def recovery(job: Job) -> None:
    """Kill a process with runs in the middle: from the launch of its successor until that has ended them all."""
    victim = Worker(MODULE, job, "victim", **{programs.STUCK: "1"})
    try:
        victim.wait_ready()
    finally:
        victim.kill()
    heir = Worker(MODULE, job, "heir")
    try:
        began = heir.line()
        until = time.monotonic() + 120
        while remaining := left(job, "hostage"):
            if time.monotonic() > until:
                raise RuntimeError(f"{remaining} of {KILLED} are left after 120 s")
            time.sleep(0.1)
    finally:
        heir.kill()
    if (ended := value(job, STATUS, ["SUCCESS"], "hostage")) != KILLED:
        raise RuntimeError(f"{KILLED} runs were killed, {ended} ended well")
    report("recovery", value(job, LAST, "hostages") / 1000 - began)


def waiting(job: Job) -> None:
    """Runs that sleep for an hour, in a process of their own."""
    sleeper = Worker(MODULE, job, "sleeper")
    try:
        runs, grown = sleeper.line()
    finally:
        sleeper.kill()
    if runs < WAITING:
        note(f"waiting-10k: {runs} runs, not {WAITING}, as starting more would take too long")
    report("waiting-10k", grown / runs / 1000)


def cold(job: Job) -> None:
    """What it takes to import it, and a process that runs one workflow: until it has the result."""
    import_time("import dbos")
    with launched(job):
        programs.chain(1, 1)
    cold_process(MODULE)


# -- roles ---------------------------------------------------------------------------------------------------


def work(job: Job, queue: str) -> None:
    """Work until our input is closed, then say what was run."""
    executor = f"worker-{os.getpid()}"
    with launched(job, executor, (queue,)):
        programs.chain(1, 1)  # so that nothing is done for the first time while it is measured
        say_ready()
        wait_for_end()
        if tally.count:  # the end of its last outcome, not the start of that one's step
            tally.last = monotonic(value(job, LAST, executor))
        tally.say()
        sys.stdout.flush()
    os._exit(0)


def monotonic(milliseconds: int) -> float:
    """The time that all processes share, of an instant that the database has."""
    return time.monotonic() - time.time() + milliseconds / 1000


def be_the_victim(job: Job) -> None:
    """Start runs that all get stuck behind a recorded step, then wait to be killed."""
    wait_for_parent()
    with launched(job, "hostages"):
        for number in range(KILLED):
            DBOS.start_workflow(programs.hostage, number)
        for _ in range(KILLED):
            programs.reached.get()
        say_ready()
        wait_for_end()


def be_the_heir(job: Job) -> None:
    """Say when the runs of the victim may be taken, and take them."""
    print(json.dumps(time.time()), flush=True)
    with launched(job, "hostages"):
        wait_for_end()
        os._exit(0)


def be_asleep(job: Job) -> None:
    """Start runs that sleep for as long as may be, and say how many and how much memory grew."""
    wait_for_parent()
    numbers, until = itertools.count(1), time.monotonic() + min(30, 15 * job.seconds)

    async def lane(most: int) -> None:
        while time.monotonic() < until and next(numbers) <= most:
            await DBOS.start_workflow_async(programs.asleep, 1)

    async def main() -> None:
        with launched(job):
            await asyncio.gather(*(programs.chain_async(1, 1) for _ in range(2 * LANES)))
            gc.collect()
            before = resident_bytes()
            await asyncio.gather(*(lane(WAITING) for _ in range(LANES)))
            runs = left(job, "asleep")
            await asyncio.to_thread(wait_asleep, job, runs)
            gc.collect()
            print(json.dumps([runs, resident_bytes() - before]), flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())


def wait_asleep(job: Job, runs: int) -> None:
    """Wait until so many runs have begun to sleep."""
    while value(job, ASLEEP) < runs:
        time.sleep(0.1)


def be_cold(job: Job) -> None:
    """Run one workflow and say when it had ended."""
    with launched(job):
        assert programs.chain(1, 1) == 2
        print(time.monotonic(), flush=True)
        os._exit(0)


ROLES: Final[dict[str, Callable[[Job], None]]] = {
    "worker": partial(work, queue="drain"),
    "starter": partial(work, queue="start"),
    "victim": be_the_victim,
    "heir": be_the_heir,
    "sleeper": be_asleep,
    "cold": be_cold,
}
