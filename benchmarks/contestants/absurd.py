"""absurd: blocking tasks (`sync`), and tasks on an event loop (`async`, on uvloop).

It has no call that runs a task: tasks are spawned, and workers take them by polling. So

- `one` is one client that spawns a task, works off a batch of one (`work_batch`) and fetches the result: its
  shortest way, without any wait for a poll.
- `many` is the throughput of tasks through workers: a backlog that was spawned before is worked off in one process.
- `event` is asked of a task that waits for it, and answered by its result, as a client cannot wait for an event.
  The client looks for the result each millisecond, because `await_task_result` looks after 50 ms at the earliest.
- A send within a task is a step, or each of its replays would send again.
- `enqueue-bulk` spawns a hundred by one statement that calls `absurd.spawn_task`: the client has no call for many.
- `transaction` is a client on a connection of ours, with a transaction around each step.

Settings: its schema is the one in `absurdctl`, as `absurdctl init` installs it, and queues are not partitioned, as by
default. Four workers in each process, as each has one connection and awaits all tasks of a batch before it claims
again; each has 50 under way, or takes 50 to work off in turn where it blocks. Workers poll each millisecond
in place of each 250. Where one is killed, leases are 5 s in place of 120, and the time begins when the last is over.
A drain ends with the last task's end, of which the database has the time, not with the start of its step.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import psycopg
from absurd_sdk import Absurd, AsyncAbsurd, AsyncTaskContext, TaskContext
from uvloop import new_event_loop

from benchmarks.contestants import absurd_queue
from benchmarks.contestants.absurd_programs import (
    CONCURRENCY,
    POLL,
    WORKERS,
    blocking,
    chain,
    chain_async,
    ended,
    fill,
    on_loop,
    prepare,
    result,
    value,
)
from benchmarks.contestants.shared import each_group
from benchmarks.protocol import Job, latencies, one_at_a_time, one_at_a_time_async, timed

EXPECTED: Final = 400
"""Tasks of one step a second, to choose how large a backlog is."""
MESSAGES: Final = 120
TABLE: Final = (
    "create table if not exists bench_rows (id bigint generated always as identity, n integer not null)"
)
INSERT: Final = "insert into bench_rows (n) values (%s)"


def main() -> None:
    """Measure what is wanted, or be another process."""
    job = Job.read()
    if sys.argv[2:]:
        absurd_queue.ROLES[sys.argv[2]](job)
        return
    prepare(job)
    each_group(job, [(group, partial(measure, job)) for group, measure in GROUPS])


# -- one after another -----------------------------------------------------------------------------------------


def one(job: Job) -> None:
    """Tasks one after another: spawned, worked off, and their result fetched, by one client."""
    app, numbers = blocking(job, "one", chain), itertools.count()

    def run(steps: int) -> None:
        number = next(numbers)
        task = app.spawn("chain", {"number": number, "steps": steps})["task_id"]
        app.work_batch()
        assert result(app.fetch_task_result(task)) == number + steps

    for steps in (1, 3, 10):
        one_at_a_time(job, f"one-{steps}", partial(run, steps))
    app.close()


async def one_async(job: Job) -> None:
    """The same on an event loop."""
    app, numbers = on_loop(job, "one", chain_async), itertools.count()

    async def run(steps: int) -> None:
        number = next(numbers)
        task = (await app.spawn("chain_async", {"number": number, "steps": steps}))["task_id"]
        await app.work_batch()
        assert result(await app.fetch_task_result(task)) == number + steps

    for steps in (1, 3, 10):
        await one_at_a_time_async(job, f"one-{steps}", partial(run, steps))
    await app.close()


def transaction(job: Job) -> None:
    """Steps of one task that are recorded in the transaction that inserts their row."""
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(TABLE)
        app = Absurd(connection, queue_name="one")

        @app.register_task("inserts")
        def inserts(_params: None, context: TaskContext) -> None:
            def insert() -> None:
                connection.execute(INSERT, (1,))

            def step() -> None:
                with connection.transaction():
                    context.step("insert", insert)

            one_at_a_time(job, "transaction", step)

        app.spawn("inserts", None)
        app.work_batch()
    check(job)


async def transaction_async(job: Job) -> None:
    """The same on an event loop."""
    async with await psycopg.AsyncConnection.connect(job.url, autocommit=True) as connection:
        await connection.execute(TABLE)
        app = AsyncAbsurd(connection, queue_name="one")

        @app.register_task("inserts_async")
        async def inserts(_params: None, context: AsyncTaskContext) -> None:
            async def insert() -> None:
                await connection.execute(INSERT, (1,))

            async def step() -> None:
                async with connection.transaction():
                    await context.step("insert", insert)

            await one_at_a_time_async(job, "transaction", step)

        await app.spawn("inserts_async", None)
        await app.work_batch()
    check(job)


def check(job: Job) -> None:
    """Each step that is recorded has inserted its row."""
    rows = value(job, "select count(*) from bench_rows")
    steps = value(job, "select count(*) from absurd.c_one where checkpoint_name ^@ 'insert'")
    if rows != steps:
        raise RuntimeError(f"{rows} rows of {steps} steps")


# -- many at once ----------------------------------------------------------------------------------------------


def many(job: Job) -> None:
    """A backlog, worked off by threads of this process."""
    for steps in (1, 3):
        queue, count = f"many-{steps}-sync", backlog(job, steps)
        fill(job, queue, "chain", count, steps)
        apps = [blocking(job, queue, chain) for _ in range(WORKERS)]
        settings = {"batch_size": CONCURRENCY, "poll_interval": POLL}
        threads = [threading.Thread(target=app.start_worker, kwargs=settings, daemon=True) for app in apps]
        with timed(job, f"many-{steps}", partial(ended, job, queue), "sync", rate=True):
            for thread in threads:
                thread.start()
            wait_ended(job, queue, count)
        for app, thread in zip(apps, threads, strict=True):
            app.stop_worker()
            thread.join()
            app.close()


async def many_async(job: Job) -> None:
    """A backlog, worked off by workers on this event loop."""
    for steps in (1, 3):
        queue, count = f"many-{steps}-async", backlog(job, steps)
        fill(job, queue, "chain_async", count, steps)
        apps = [on_loop(job, queue, chain_async) for _ in range(WORKERS)]
        with timed(job, f"many-{steps}", partial(ended, job, queue), "async", rate=True):
            workers = [
                asyncio.create_task(app.start_worker(concurrency=CONCURRENCY, poll_interval=POLL))
                for app in apps
            ]
            await asyncio.to_thread(wait_ended, job, queue, count)
        for app, worker in zip(apps, workers, strict=True):
            app.stop_worker()
            await worker
            await app.close()


def backlog(job: Job, steps: int) -> int:
    """How many tasks keep it busy for the job's seconds, and are many batches of each worker: the last one is not full."""
    return max(10 * WORKERS * CONCURRENCY, int(EXPECTED * job.seconds * 2 / (1 + steps)))


def wait_ended(job: Job, queue: str, count: int) -> None:
    """Wait until so many tasks of a queue have ended well."""
    until = time.monotonic() + 120
    while (done := ended(job, queue)) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"{queue}: {done} of {count} ended in 120 s")
        time.sleep(0.05)


# -- messages --------------------------------------------------------------------------------------------------


def messages(job: Job) -> None:
    """Ping-pong of two tasks, and questions of a client to one each; two workers, as threads of this process."""
    began, took = {}, {}

    def ping(params: int, context: TaskContext) -> None:
        for number in range(params):

            def send(number: int = number) -> None:
                began[number] = time.perf_counter()
                context.emit_event(f"ping-{number}", number)

            context.step("send", send)
            assert context.await_event(f"pong-{number}") == number
            took.setdefault(number, (time.perf_counter() - began[number]) * 1000)

    def pong(params: int, context: TaskContext) -> None:
        for number in range(params):
            context.step(
                "send", partial(context.emit_event, f"pong-{number}", context.await_event(f"ping-{number}"))
            )

    def answering(params: int, context: TaskContext) -> Any:
        return context.await_event(f"question-{params}")

    apps = [blocking(job, "messages", ping, pong, answering) for _ in range(2)]
    threads = [
        threading.Thread(target=app.start_worker, kwargs={"poll_interval": POLL}, daemon=True) for app in apps
    ]
    for thread in threads:
        thread.start()
    client = blocking(job, "messages")
    for task in ("ping", "pong"):
        client.spawn(task, MESSAGES, queue="messages")
    wait_ended(job, "messages", 2)
    latencies("send", [took[number] for number in range(10, MESSAGES)], "sync")
    latencies("event", [ask(client, number) for number in range(MESSAGES)][10:], "sync")
    for app, thread in zip(apps, threads, strict=True):
        app.stop_worker()
        thread.join()
        app.close()


def ask(client: Absurd, number: int) -> float:
    """Ask a task that waits for the question; return the milliseconds until its answer is there."""
    task = client.spawn("answering", number, queue="messages")["task_id"]
    look(client, task, "sleeping")
    began = time.perf_counter()
    client.emit_event(f"question-{number}", number)
    assert look(client, task, "completed") == number
    return (time.perf_counter() - began) * 1000


def look(client: Absurd, task: str, state: str) -> Any:
    """Look again and again until a task is in this state; return its result."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = client.fetch_task_result(task)
        if found is not None and found.state == state:
            return found.result
        time.sleep(POLL)
    raise RuntimeError(f"a task is not {state} within 30 s")


Measure = Callable[[Job], None]


def in_loop(measure: Callable[[Job], Coroutine[Any, Any, None]]) -> Measure:
    """Measure in an event loop of its own."""

    def run(job: Job) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(measure(job))

    return run


GROUPS: Final[tuple[tuple[str, Measure], ...]] = (
    ("one", one),
    ("one", in_loop(one_async)),
    ("many", many),
    ("many", in_loop(many_async)),
    ("transaction", transaction),
    ("transaction", in_loop(transaction_async)),
    ("messages", messages),
    ("queue", absurd_queue.queue),
    ("start", absurd_queue.starts),
    ("recovery", absurd_queue.recovery),
    ("waiting", absurd_queue.waiting),
    ("cold", absurd_queue.cold),
)


if __name__ == "__main__":
    main()
