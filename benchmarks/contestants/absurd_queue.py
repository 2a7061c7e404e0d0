"""absurd between processes: its queue, starts in an idle worker, what a killed one leaves, and sleepers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from absurd_sdk import Absurd, AsyncAbsurd
from uvloop import new_event_loop

from benchmarks.contestants import absurd_programs as programs
from benchmarks.contestants.absurd_programs import (
    CONCURRENCY,
    POLL,
    WORKERS,
    ended,
    fill,
    on_loop,
    tally,
    value,
)
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

MODULE: Final = "benchmarks.contestants.absurd"
EXPECTED: Final = 400
"""Tasks a second, to choose how large a backlog is."""
LEASE: Final = 5
"""Seconds, where a worker is killed: 120 by default."""
KILLED: Final = 1000
WAITING: Final = 10_000

LEFT: Final = "select count(*) from absurd.t_drain where state not in ('completed', 'failed', 'cancelled')"
LAST: Final = """
select extract(epoch from max(completed_at))::float8 from absurd.r_drain where split_part(claimed_by, '-', 1) = %s
"""
LEASED: Final = """
select extract(epoch from max(claim_expires_at))::float8 from absurd.r_recovery where state = 'running'
"""
RECOVERED: Final = """
select extract(epoch from max(completed_at))::float8 from absurd.r_recovery where attempt = 2 having count(*) = %s
"""
ASLEEP: Final = "select count(*) from absurd.r_waiting where state = 'sleeping'"


def queue(job: Job) -> None:
    """Enqueue with one caller, in bulk; drain by one and by two workers."""
    app = Absurd(job.url)
    enqueue_one(job, lambda: app.spawn("bare", {"number": 1}, queue="elsewhere"))
    enqueue_bulk(job)
    count = max(10 * WORKERS * CONCURRENCY, int(2 * EXPECTED * job.seconds))  # many batches of each worker
    for workers in (1, 2):
        for row, task in (("drain", "one_step"), ("bare", "bare")):
            fill(job, "drain", task, count)
            programs.connect(job).execute("vacuum analyze")  # the planner's figures are to be up to date
            before = ended(job, "drain")
            drain(job, f"{row}-{workers}", MODULE, workers, count, partial(value, job, LEFT))
            if ended(job, "drain") != before + count:
                raise RuntimeError(f"{row}-{workers}: not all ended well")


def enqueue_bulk(job: Job) -> None:
    """A hundred by each statement."""
    batches = max(10, int(30 * job.seconds))
    arguments = {"queue": "elsewhere", "task": "bare", "count": 100, "steps": 0}

    def work() -> None:
        for _ in range(batches):
            assert value(job, programs.FILL, **arguments) == 100

    rate("enqueue-bulk", 100 * batches, work)


def starts(job: Job) -> None:
    """Start tasks in an idle worker process, from a client."""
    worker, app = Worker(MODULE, job, "starter"), Absurd(job.url)
    try:
        worker.wait_ready()
        start_latency(job, "start", worker, lambda: app.spawn("stamped", {"number": 1}, queue="start"))
    finally:
        worker.kill()


def recovery(job: Job) -> None:
    """Kill a worker with tasks in the middle: from the end of its last lease until another has ended them all."""
    fill(job, "recovery", "hostage", KILLED)
    victim = Worker(MODULE, job, "victim", **{programs.STUCK: "1"})
    try:
        victim.wait_ready()
    finally:
        victim.kill()
    heir = Worker(MODULE, job, "heir")
    try:
        began, until = heir.line(), time.monotonic() + 120
        while (done := ended(job, "recovery")) < KILLED:
            if time.monotonic() > until:
                raise RuntimeError(f"{done} of {KILLED} have ended after 120 s")
            time.sleep(0.1)
    finally:
        heir.kill()
    last = value(job, RECOVERED, KILLED)
    if last is None:
        raise RuntimeError("not every task had a second attempt")
    report("recovery", last - began)


def waiting(job: Job) -> None:
    """Tasks that sleep for an hour, in a process of their own: they are put away, so it is what that leaves."""
    fill(job, "waiting", "asleep", WAITING)
    sleeper = Worker(MODULE, job, "sleeper")
    try:
        runs, grown = sleeper.line()
    finally:
        sleeper.kill()
    if runs < WAITING:
        note(f"waiting-10k: {runs} runs, not {WAITING}, as starting more would take too long")
    report("waiting-10k", grown / runs / 1000)


def cold(_job: Job) -> None:
    """What it takes to import it, and a process that runs one task: until it has the result."""
    import_time("import absurd_sdk")
    cold_process(MODULE)


# -- roles ---------------------------------------------------------------------------------------------------


def run_on_loop(main: Callable[[], Any]) -> None:
    """Run it on the faster loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def workers(apps: list[AsyncAbsurd], **settings: Any) -> list[asyncio.Task[None]]:
    """Have them all work on this loop."""
    settings = {"concurrency": CONCURRENCY, "poll_interval": POLL, **settings}
    return [
        asyncio.create_task(app.start_worker(f"{os.getpid()}-{number}", **settings))
        for number, app in enumerate(apps)
    ]


async def work(job: Job) -> None:
    """Work until our input is closed, then say what was run."""
    apps = [on_loop(job, "drain", programs.one_step, programs.bare) for _ in range(WORKERS)]
    tasks = workers(apps)
    say_ready()
    await asyncio.to_thread(wait_for_end)
    for app in apps:
        app.stop_worker()
    await asyncio.gather(*tasks)
    if tally.count:  # the end of its last task, not the start of that one's last step
        tally.last = time.monotonic() - time.time() + value(job, LAST, str(os.getpid()))
    tally.say()


def be_the_starter(job: Job) -> None:
    """Work off one task at a time."""
    wait_for_parent()
    app = programs.blocking(job, "start", programs.stamped)
    say_ready()
    app.start_worker(poll_interval=POLL)


async def be_the_victim(job: Job) -> None:
    """Begin tasks that all get stuck behind a recorded step, then wait to be killed."""
    wait_for_parent()
    # One worker: others would take what is longer under way than the lease is.
    working = workers([on_loop(job, "recovery", programs.hostage)], concurrency=KILLED, claim_timeout=LEASE)
    for _ in range(KILLED):
        await programs.reached.get()
    say_ready()
    await asyncio.gather(*working)


async def be_the_heir(job: Job) -> None:
    """Wait until all tasks of the victim may be taken, say when that was, and take them."""
    wait_for_parent()
    apps = [on_loop(job, "recovery", programs.hostage) for _ in range(WORKERS)]
    leased = value(job, LEASED)
    await asyncio.sleep(max(0.0, leased - time.time()))
    print(json.dumps(time.time()), flush=True)
    await asyncio.gather(*workers(apps))


async def be_asleep(job: Job) -> None:
    """Put tasks to sleep for as long as may be, and say how many and how much memory grew."""
    wait_for_parent()
    until = time.monotonic() + min(30, 15 * job.seconds)
    apps = [on_loop(job, "waiting", programs.asleep) for _ in range(WORKERS)]
    working = workers(apps)
    first = await asyncio.to_thread(wait_asleep, job, 2 * WORKERS * CONCURRENCY, until)
    before = resident_bytes()
    await asyncio.to_thread(wait_asleep, job, WAITING, until)
    for app in apps:
        app.stop_worker()
    await asyncio.gather(*working)
    gc.collect()
    print(json.dumps([value(job, ASLEEP) - first, resident_bytes() - before]), flush=True)
    await asyncio.Event().wait()


def wait_asleep(job: Job, count: int, until: float) -> int:
    """Wait until so many tasks sleep, but not for ever; return how many do."""
    while (runs := int(value(job, ASLEEP))) < count and time.monotonic() < until:
        time.sleep(0.05)
    return runs


def be_cold(job: Job) -> None:
    """Run one task and say when it had ended."""
    app = programs.blocking(job, "one", programs.chain)
    task = app.spawn("chain", {"number": 1, "steps": 1})["task_id"]
    app.work_batch()
    assert programs.result(app.fetch_task_result(task)) == 2
    print(time.monotonic(), flush=True)


ROLES: Final[dict[str, Callable[[Job], None]]] = {
    "worker": lambda job: run_on_loop(lambda: work(job)),
    "starter": be_the_starter,
    "victim": lambda job: run_on_loop(lambda: be_the_victim(job)),
    "heir": lambda job: run_on_loop(lambda: be_the_heir(job)),
    "sleeper": lambda job: run_on_loop(lambda: be_asleep(job)),
    "cold": be_cold,
}
