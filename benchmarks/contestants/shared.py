"""What several contestants do alike; like `protocol.py` it needs nothing but the standard library."""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from benchmarks.protocol import ROOT, Job, Worker, note, report


def url_parts(url: str) -> dict[str, str]:
    """A database's URL, as `bench.py` gives it, by libpq's names; without psycopg, for processes that need none."""
    parts = urlsplit(url)
    named = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
    found = {name: unquote(str(value)) for name, value in named.items() if value is not None}
    return {**found, "dbname": unquote(parts.path[1:]), **dict(parse_qsl(parts.query))}


def each_group(job: Job, measures: Iterable[tuple[str, Callable[[], Any]]]) -> None:
    """Measure what is wanted; what goes wrong is noted, and the other groups are still measured."""
    for group, measure in measures:
        if group in job.wanted:
            try:
                measure()
            except Exception as error:
                note(f"{group}: {error!r}")


def enqueue_one(job: Job, call: Callable[[], Any], warm: int = 10) -> None:
    """One caller, each job durable before the next."""
    for _ in range(warm):
        call()
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + job.seconds:
        call()
        done += 1
    report("enqueue-one", done / (time.perf_counter() - began))


async def enqueue_one_async(job: Job, call: Callable[[], Awaitable[Any]], warm: int = 10) -> None:
    """The same on an event loop."""
    for _ in range(warm):
        await call()
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + job.seconds:
        await call()
        done += 1
    report("enqueue-one", done / (time.perf_counter() - began))


def cold_process(module: str, times: int = 3) -> None:
    """Report `cold`: a process of the role `cold` prints when it has its result; the median."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        command = [sys.executable, "-m", module, sys.argv[1], "cold"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        took.append(float(done.stdout) - began)
    report("cold", statistics.median(took))


def cold_queue(job: Job, module: str, left: Callable[[], int], times: int = 3) -> None:
    """Report `cold` of a queue without results: until the database says that the job of such a process is done."""
    report("cold", statistics.median(_cold_job(job, module, left) for _ in range(times)))


def _cold_job(job: Job, module: str, left: Callable[[], int]) -> float:
    began = time.monotonic()
    worker = Worker(module, job, "cold")
    try:
        worker.line()  # the job's stamp
        while left():
            if time.monotonic() > began + 60:
                raise RuntimeError("the job is not done after 60 s")
            time.sleep(0.001)
        return time.monotonic() - began
    finally:
        worker.kill()


@contextmanager
def serving(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a peer's server until the block ends, or, on Linux, this process does in whatever way."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        if sys.platform == "linux":
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours runs yet, or holds a lock it needs
    )
    try:
        yield process
    finally:
        process.kill()  # what it keeps goes with its folder
        process.wait()
