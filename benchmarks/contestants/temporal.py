"""Temporal: the Python SDK beside the server of the development command line, which keeps all in a SQLite file.

What of a Temporal server can be had from package indexes is `temporal server start-dev`, with a file
(`--db-filename`) as its durable setting. It is no cluster: one process and one writer, but no network and no
second database server either. The file has a write-ahead log, with each commit synchronised: by default it
has a rollback journal, which is no safer, and was seen to make 80 calls of fsync for a run of one step
instead of 35.

Settings of the worker, for speed: workflows outside the sandbox, 200 workflow tasks and activities at once,
ten pollers of each kind, the default cache of 1,000 runs. Activities are coroutines, and are handed out
eagerly (the default), as the first workflow task is where client and worker share a process. Column `async`
has activities as steps, `local` local activities: those are recorded together with the end of the workflow
task that called them, so that several share one write and a crash runs all of them again. Each group has a
server of its own, so that what one leaves behind costs the next nothing. A drained run counts from its first
line to its last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, UnsandboxedWorkflowRunner
from temporalio.worker import Worker as TemporalWorker

from benchmarks.contestants import temporal_programs as programs
from benchmarks.contestants.shared import cold_process, each_group, serving
from benchmarks.protocol import (
    AT_ONCE,
    Job,
    Worker,
    at_once_async,
    drain,
    import_time,
    latencies,
    note,
    one_at_a_time_async,
    report,
    resident_bytes,
    say_ready,
    start_latency,
    timed,
    wait_for_end,
)

MODULE: Final = "benchmarks.contestants.temporal"
ADDRESS: Final = "BENCH_TEMPORAL"
"""Environment variable: where the server is, for worker processes too."""
QUEUE: Final = "bench"
ELSEWHERE: Final = "elsewhere"
"""A task queue that no worker looks into."""
SETTLED: Final = 12.0
"""Seconds before and within the window of `many-*`: about the time that 200 runs take, so that it sees all phases."""
EXPECTED: Final = 14
"""Runs a second, to choose how large a backlog is."""
LONGEST: Final = 150.0
"""Seconds after which what is measured on one event loop is given up."""
MESSAGES: Final = 110
STARTS: Final = 100
WAITING: Final = 300


# -- server, client, worker --------------------------------------------------------------------------------


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """Start a server with a database of its own; yield its process id, and end it whatever happens."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binary = Path(sys.prefix) / "bin" / "temporal"
    command = [str(binary), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--db-filename", str(folder / "temporal.db"), "--log-level", "never"]
    command += ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=full"]
    with serving(command, TEMPORAL_VERSION_CHECK_DISABLED="1") as process:
        os.environ[ADDRESS] = f"127.0.0.1:{port}"
        asyncio.run(wait_up(process))
        yield process.pid


async def wait_up(process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + 60
    while True:
        try:
            await connect()
            return
        except RuntimeError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)


async def connect() -> Client:
    """Connect to the server."""
    return await Client.connect(os.environ[ADDRESS])


def worker(client: Client) -> TemporalWorker:
    """Make a worker for all that is run here; it works as long as one is in its context."""
    return TemporalWorker(
        client,
        task_queue=QUEUE,
        workflows=[
            programs.Chain,
            programs.LocalChain,
            programs.Counted,
            programs.Stamped,
            programs.Player,
            programs.Answering,
        ],
        activities=[programs.add],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=1000,
        max_concurrent_workflow_tasks=AT_ONCE,
        max_concurrent_activities=AT_ONCE,
        max_concurrent_local_activities=AT_ONCE,
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
    )


async def chain(client: Client, body: Any, steps: int) -> None:
    """One run, with its result checked."""
    name = uuid.uuid4().hex
    result = await client.execute_workflow(body, steps, id=name, task_queue=QUEUE, request_eager_start=True)
    if result != steps:
        raise RuntimeError(f"{steps} steps returned {result}")


async def start(client: Client, body: Any, argument: int, queue: str = QUEUE) -> None:
    """Start a run that somebody else is to run."""
    await client.start_workflow(body, argument, id=uuid.uuid4().hex, task_queue=queue)


# -- in one process ----------------------------------------------------------------------------------------


async def one(job: Job) -> None:
    """Runs one after another."""
    client = await connect()
    async with worker(client):
        for steps in (1, 3, 10):
            for body, column in ((programs.Chain.run, "async"), (programs.LocalChain.run, "local")):
                call = partial(chain, client, body, steps)
                await one_at_a_time_async(job, f"one-{steps}", call, column, warm=3)


async def many(job: Job, body: Any, column: str, steps: int = 1) -> None:
    """Many runs at once. They take many seconds each: those under way when the window closes are left behind."""
    client = await connect()
    settled = SETTLED * steps**0.5
    settling = replace(job, seconds=max(job.seconds, settled))
    async with worker(client):
        with suppress(TimeoutError):
            async with asyncio.timeout(settled + settling.seconds + 3):
                call = partial(chain, client, body, steps)
                await at_once_async(settling, f"many-{steps}", call, column, warm=settled)


async def messages(_: Job) -> None:
    """Ping-pong of two runs by signals, and questions of a client by updates."""
    client = await connect()
    async with worker(client):
        arguments: list[Any] = ["ping", MESSAGES, False]
        pong = await client.start_workflow(programs.Player.run, args=arguments, id="pong", task_queue=QUEUE)
        arguments = ["pong", MESSAGES, True]
        took = await client.execute_workflow(programs.Player.run, args=arguments, id="ping", task_queue=QUEUE)
        await pong.result()
        if len(took) < MESSAGES:
            raise RuntimeError("the players were replayed")
        latencies("send", took[10:], "async")
        answering = await client.start_workflow(programs.Answering.run, id="answering", task_queue=QUEUE)
        took = []
        for number in range(MESSAGES):
            began = time.perf_counter()
            answer = await answering.execute_update(programs.Answering.ask, number)
            took.append((time.perf_counter() - began) * 1000)
            if answer != number:
                raise RuntimeError(f"the answer to {number} was {answer}")
        latencies("event", took[10:], "async")
        await answering.signal(programs.Answering.end)
        await answering.result()


# -- between processes -------------------------------------------------------------------------------------


async def enqueue(job: Job) -> None:
    """Start runs that wait for a worker: one at a time, and a hundred calls at once, as there is none for many."""
    client = await connect()
    call = partial(start, client, programs.Chain.run, 1, ELSEWHERE)
    await at_once_async(job, "enqueue-one", call, "", lanes=1)
    done, until = 0, time.perf_counter() + job.seconds
    with timed(job, "enqueue-bulk", lambda: done, "", rate=True):
        while time.perf_counter() < until:
            await asyncio.gather(*(call() for _ in range(100)))
            done += 100


def drains(job: Job) -> None:
    """A backlog of runs with and without a step."""
    count = max(50, int(2 * EXPECTED * job.seconds))
    with asyncio.Runner() as runner:
        client = runner.run(connect())

        def left() -> int:
            return runner.run(client.count_workflows("ExecutionStatus = 'Running'")).count

        async def fill(steps: int) -> None:
            await asyncio.gather(*(start(client, programs.Counted.run, steps) for _ in range(count)))

        for workers in (1, 2) if job.seconds >= 2 else (1,):
            for row, steps in (("drain", 1), ("bare", 0)):
                runner.run(fill(steps))
                while left() < count:  # what is counted is an index that lags behind
                    time.sleep(0.05)
                drain(job, f"{row}-{workers}", MODULE, workers, count, left)


def starts(job: Job) -> None:
    """Start runs in an idle worker process, from a client."""
    helper = Worker(MODULE, job)
    try:
        helper.wait_ready()
        with asyncio.Runner() as runner:
            client = runner.run(connect())
            call = partial(start, client, programs.Stamped.run, 0)
            start_latency(job, "start", helper, lambda: runner.run(call()), least=STARTS)
    finally:
        helper.kill()


def waiting(job: Job) -> None:
    """Runs asleep in the cache of a worker process."""
    helper = Worker(MODULE, job)

    def sleep(count: int) -> int:
        async def fill() -> None:
            await asyncio.gather(*(start(client, programs.Stamped.run, 3600) for _ in range(count)))

        runner.run(fill())
        while count:
            count -= isinstance(helper.line(), list)
        time.sleep(1)  # they have begun; now they fall asleep
        return resident_bytes(helper.pid)

    try:
        helper.wait_ready()
        with asyncio.Runner() as runner:
            client = runner.run(connect())
            before = sleep(50)
            report("waiting-10k", (sleep(WAITING) - before) / WAITING / 1000)
    finally:
        helper.kill()
    note(f"memory of {WAITING} sleeping runs, not 10,000: a worker caches 1,000 and gives up the oldest")


def cold(_: Job) -> None:
    """A process that runs one workflow and ends its life."""
    import_time("import temporalio.client, temporalio.worker, temporalio.workflow")
    cold_process(MODULE)


async def be_a_worker() -> None:
    """Work until our input is closed, then say what was run."""
    client = await connect()
    async with worker(client):
        await chain(
            client, programs.Chain.run, 1
        )  # so that nothing is done for the first time while it is measured
        say_ready()
        await asyncio.to_thread(wait_for_end)
    programs.tally.say()


async def be_cold() -> None:
    """Run one workflow and say when it had ended."""
    client = await connect()
    async with worker(client):
        await chain(client, programs.Chain.run, 1)
        print(time.monotonic(), flush=True)


ROLES: Final[dict[str, Callable[[], Awaitable[None]]]] = {"worker": be_a_worker, "cold": be_cold}

LOOPS: Final[tuple[tuple[str, Callable[[Job], Awaitable[None]]], ...]] = (
    ("one", one),
    ("many", lambda job: many(job, programs.Chain.run, "async")),
    ("many", lambda job: many(job, programs.LocalChain.run, "local")),
    ("queue", enqueue),
    ("messages", messages),
)
LONG: Final[tuple[tuple[str, Callable[[Job], Awaitable[None]]], ...]] = (
    ("many", lambda job: many(job, programs.Chain.run, "async", 3)),
    ("many", lambda job: many(job, programs.LocalChain.run, "local", 3)),
)
"""What takes too long for a short job."""
CALLS: Final[tuple[tuple[str, Callable[[Job], None]], ...]] = (
    ("queue", drains),
    ("start", starts),
    ("waiting", waiting),
    ("cold", cold),
)


def measure(job: Job, number: int, work: Callable[[Job], Any]) -> None:
    """Measure one thing beside a server of its own."""
    with server(job.folder / str(number)) as pid:
        waited_for = work(replace(job, servers=(pid,)))
        if waited_for is not None:
            asyncio.run(asyncio.wait_for(waited_for, LONGEST))


def main() -> None:
    """Measure what is wanted, or be another process."""
    if sys.argv[2:]:
        asyncio.run(ROLES[sys.argv[2]]())  # type: ignore[arg-type]
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers and workers end with us
    job = Job.read()
    work: list[tuple[str, Any]] = [*LOOPS, *(LONG if job.seconds >= 2 else ()), *CALLS]
    each_group(job, [(group, partial(measure, job, n, call)) for n, (group, call) in enumerate(work)])
    if "recovery" in job.wanted:
        note("recovery was left out: 1,000 runs take minutes at some tens a second")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the SDK's runtime has been seen to abort the interpreter at its end
