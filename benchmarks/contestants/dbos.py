"""DBOS: blocking workflows in threads (`sync`), and workflows on an event loop (`async`, on uvloop).

Settings, all of them public options:

- Defaults where they are fastest: a pool of 20 connections, LISTEN and NOTIFY, as many threads as runs ask for.
- `notification_coalesce_sec` 1 ms in place of 10: the documentation says that it bounds how soon events are read.
- Queues are polled each 10 ms in place of each second, as nothing tells a worker of new work. A poll is ten
  statements, so this is the price of that latency in an idle process.
- One worker drains a queue without limits, as the default is: its first poll takes the whole backlog. Two share
  it by `worker_concurrency` 100, as the first would otherwise leave nothing to the second.
- A drain ends with the last outcome, of which the database has the time. Without limits all runs have begun long
  before, so that the start of the last one would say nothing.
- Transaction steps are those of its SQLAlchemy datasource, `READ COMMITTED` like everybody's, which is cheaper than
  its default, `SERIALIZABLE`, and no less exactly once.
- In bulk, a hundred jobs are enqueued by one statement that calls its SQL function `dbos.enqueue_workflow`: faster
  than its client, which has no call for many.
- Recovery is that of its open edition: a process with the executor id of the one that was killed takes the runs
  when it is launched; no other does. The time begins there, and detection costs nothing, as there is none.
- Logs are off, and so are telemetry and Conductor, which it does not start unless asked to.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Final

from dbos import DBOS, AsyncSQLAlchemyDatasource, SetWorkflowID, SQLAlchemyDatasource
from sqlalchemy import text
from uvloop import new_event_loop

from benchmarks.contestants import dbos_programs as programs
from benchmarks.contestants import dbos_queue
from benchmarks.contestants.dbos_programs import launched
from benchmarks.contestants.shared import each_group
from benchmarks.protocol import (
    Job,
    at_once,
    at_once_async,
    latencies,
    one_at_a_time,
    one_at_a_time_async,
)

WARM: Final = 2.0
"""Seconds."""
MESSAGES: Final = 120
TABLE: Final = (
    "create table if not exists bench_rows (id bigint generated always as identity, n integer not null)"
)
INSERT: Final = text("insert into bench_rows (n) values (:number)")


def main() -> None:
    """Measure what is wanted, or be another process."""
    job = Job.read()
    if sys.argv[2:]:
        dbos_queue.ROLES[sys.argv[2]](job)
        return
    each_group(job, [(group, partial(measure, job)) for group, measure in GROUPS])


# -- in one process: threads -----------------------------------------------------------------------------------


def chain(numbers: itertools.count[int], steps: int) -> None:
    """One run, with its result checked."""
    number = next(numbers)
    assert programs.chain(number, steps) == number + steps


def one(job: Job) -> None:
    """Runs one after another."""
    numbers = itertools.count()
    with launched(job):
        for steps in (1, 3, 10):
            one_at_a_time(job, f"one-{steps}", partial(chain, numbers, steps))


def many(job: Job) -> None:
    """Runs in many threads."""
    job, numbers = longer(job), itertools.count()
    with launched(job):
        for steps in (1, 3):
            at_once(job, f"many-{steps}", partial(chain, numbers, steps), warm=WARM)


def longer(job: Job) -> Job:
    """The same with time enough: 200 at once begin in step, and each of them takes more than a second."""
    return replace(job, seconds=max(job.seconds, WARM))


def prepare(job: Job) -> None:
    """Make the table that steps insert into, and an instance: a source is registered before that is launched."""
    dbos_queue.connect(job).execute(TABLE)
    DBOS(config=programs.config(job, "bench"))


def check(job: Job) -> None:
    """Each step that is recorded has inserted its row."""
    rows = dbos_queue.value(job, "select count(*) from bench_rows")
    steps = dbos_queue.value(
        job, "select count(*) from dbos.operation_outputs where function_name like '%.insert'"
    )
    if rows != steps:
        raise RuntimeError(f"{rows} rows of {steps} steps")


def transaction(job: Job) -> None:
    """Steps of one run that commit with the row they insert."""
    prepare(job)
    source = SQLAlchemyDatasource.create(job.url)

    @source.transaction(isolation_level="READ COMMITTED")
    def insert(number: int) -> None:
        source.sql_session().execute(INSERT, {"number": number})

    @DBOS.workflow()
    def inserts() -> None:
        one_at_a_time(job, "transaction", partial(insert, 1))

    with launched(job):
        inserts()
    check(job)


def messages(job: Job) -> None:
    """Ping-pong of two runs, and questions of a client to one."""
    with launched(job):
        with SetWorkflowID("pong"):
            pong = DBOS.start_workflow(programs.pong, "ping", MESSAGES)
        with SetWorkflowID("ping"):
            latencies("send", programs.ping("pong", MESSAGES)[10:], "sync")
        assert pong.get_result() == MESSAGES
        with SetWorkflowID("answering"):
            answering = DBOS.start_workflow(programs.answering, MESSAGES)
        took = []
        for number in range(MESSAGES):
            began = time.perf_counter()
            DBOS.send("answering", number, "question")
            assert DBOS.get_event("answering", f"answer-{number}") == number
            took.append((time.perf_counter() - began) * 1000)
        latencies("event", took[10:], "sync")
        assert answering.get_result() == MESSAGES


# -- in one process: an event loop -----------------------------------------------------------------------------


async def chain_async(numbers: itertools.count[int], steps: int) -> None:
    """One run, with its result checked."""
    number = next(numbers)
    assert await programs.chain_async(number, steps) == number + steps


async def one_async(job: Job) -> None:
    """Runs one after another."""
    numbers = itertools.count()
    with launched(job):
        for steps in (1, 3, 10):
            await one_at_a_time_async(job, f"one-{steps}", partial(chain_async, numbers, steps))


async def many_async(job: Job) -> None:
    """Many runs at once."""
    job, numbers = longer(job), itertools.count()
    with launched(job):
        for steps in (1, 3):
            await at_once_async(job, f"many-{steps}", partial(chain_async, numbers, steps), warm=WARM)


async def transaction_async(job: Job) -> None:
    """Steps of one run that commit with the row they insert."""
    prepare(job)
    source = await AsyncSQLAlchemyDatasource.create(job.url)

    @source.transaction(isolation_level="READ COMMITTED")
    async def insert(number: int) -> None:
        await source.sql_session().execute(INSERT, {"number": number})

    @DBOS.workflow()
    async def inserts_async() -> None:
        await one_at_a_time_async(job, "transaction", partial(insert, 1))

    with launched(job):
        await inserts_async()
    check(job)


async def messages_async(job: Job) -> None:
    """Ping-pong of two runs, and questions of a client to one."""
    with launched(job):
        with SetWorkflowID("pong-async"):
            pong = await DBOS.start_workflow_async(programs.pong_async, "ping-async", MESSAGES)
        with SetWorkflowID("ping-async"):
            took = await programs.ping_async("pong-async", MESSAGES)
        latencies("send", took[10:], "async")
        assert await pong.get_result() == MESSAGES
        with SetWorkflowID("answering-async"):
            answering = await DBOS.start_workflow_async(programs.answering_async, MESSAGES)
        took = []
        for number in range(MESSAGES):
            began = time.perf_counter()
            await DBOS.send_async("answering-async", number, "question")
            assert await DBOS.get_event_async("answering-async", f"answer-{number}") == number
            took.append((time.perf_counter() - began) * 1000)
        latencies("event", took[10:], "async")
        assert await answering.get_result() == MESSAGES


Measure = Callable[[Job], None]


def on_loop(measure: Callable[[Job], Coroutine[Any, Any, None]]) -> Measure:
    """Measure in an event loop of its own."""

    def run(job: Job) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(measure(job))

    return run


GROUPS: Final[tuple[tuple[str, Measure], ...]] = (
    ("one", one),
    ("one", on_loop(one_async)),
    ("many", many),
    ("many", on_loop(many_async)),
    ("transaction", transaction),
    ("transaction", on_loop(transaction_async)),
    ("messages", messages),
    ("messages", on_loop(messages_async)),
    ("queue", dbos_queue.queue),
    ("start", dbos_queue.starts),
    ("recovery", dbos_queue.recovery),
    ("waiting", dbos_queue.waiting),
    ("cold", dbos_queue.cold),
)


if __name__ == "__main__":
    main()
