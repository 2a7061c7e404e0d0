"""What a contestant of the benchmark and `bench.py` say to each other, and how each figure is taken.

A contestant is a script of its own, in a process and, for peers, a virtual environment of its own:

    python -m benchmarks.contestants.NAME '{"url": ..., "wanted": [...], "seconds": 2.0, ...}'

It measures what is wanted of what it can, once, and prints one line of JSON for each figure. `bench.py` runs
all of them in turns and takes medians. Everything that decides a figure (warm-up, the window of time that
counts, who holds the clock) is in here, so that all contestants are measured by the same lines; this module
needs nothing but the standard library, because it runs in every one of their environments.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

ROOT: Final = Path(__file__).resolve().parent.parent
AT_ONCE: Final = 200
"""Runs under way in the measures `many-*`."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one round asks of a contestant.

    Attributes:
        url: of a fresh database; of a server that others use too.
        wanted: groups of measures: one, many, transaction, queue, start, messages, recovery, waiting, cold.
        seconds: how long what is counted or repeated goes on, for each figure.
        folder: an empty folder, removed afterwards.
        servers: process ids whose CPU time, with that of their descendants, is the server's.
    """

    url: str
    wanted: frozenset[str]
    seconds: float
    folder: Path
    servers: tuple[int, ...] = field(default=())

    @classmethod
    def read(cls) -> Job:
        """Read the job of this process from its command line."""
        given = json.loads(sys.argv[1])
        return cls(
            given["url"],
            frozenset(given["wanted"]),
            given["seconds"],
            Path(given["folder"]),
            tuple(given.get("servers", ())),
        )


def report(row: str, value: float, column: str = "", cpu: tuple[float, float] | None = None) -> None:
    """Hand one figure to `bench.py`.

    Args:
        row: key of the measure, as in `measures.py`.
        value: in the unit of the measure.
        column: `async` or `sync`, where a contestant has both.
        cpu: microseconds of CPU for each run: of this process, of the server.
    """
    print(json.dumps({"row": row, "value": value, "column": column, "cpu": cpu}), flush=True)


def note(text: str) -> None:
    """Say something that belongs under the table."""
    print(json.dumps({"note": text}), flush=True)


# -- CPU time ----------------------------------------------------------------------------------------------


def cpu_seconds(servers: Sequence[int]) -> tuple[float, float] | None:
    """CPU time so far: of this process, of the servers with all their descendants; None where /proc is none."""
    if not Path("/proc/self/stat").exists():
        return None
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(entry.name)] = int(fields[1])
            # What children had used when they ended counts for the server itself: 11-14 are own and theirs.
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    total = 0
    for pid, used in ticks.items():
        ancestor = pid
        while ancestor not in servers and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in servers:
            total += used
    return time.process_time(), total / os.sysconf("SC_CLK_TCK")


@contextmanager
def timed(job: Job, row: str, count: Callable[[], int], column: str, *, rate: bool) -> Iterator[None]:
    """Time a block and report it: runs a second if `rate`, else milliseconds a run."""
    gc.collect()
    before, done = cpu_seconds(job.servers), count()
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    done, after = count() - done, cpu_seconds(job.servers)
    if not done:
        note(f"{row} {column}: nothing ended within {seconds:.1f} s")
        return
    cpu = None
    if before is not None and after is not None:
        cpu = ((after[0] - before[0]) / done * 1e6, (after[1] - before[1]) / done * 1e6)
    report(row, done / seconds if rate else seconds / done * 1000, column, cpu)


# -- one after another, and many at once -------------------------------------------------------------------


def one_at_a_time(job: Job, row: str, call: Callable[[], Any], column: str = "sync", warm: int = 10) -> None:
    """Call it again and again for the job's seconds; report milliseconds a call."""
    for _ in range(warm):
        call()
    done = 0
    with timed(job, row, lambda: done, column, rate=False):
        until = time.perf_counter() + job.seconds
        while time.perf_counter() < until:
            call()
            done += 1


async def one_at_a_time_async(
    job: Job, row: str, call: Callable[[], Awaitable[Any]], column: str = "async", warm: int = 10
) -> None:
    """Await it again and again for the job's seconds; report milliseconds a call."""
    for _ in range(warm):
        await call()
    done = 0
    with timed(job, row, lambda: done, column, rate=False):
        until = time.perf_counter() + job.seconds
        while time.perf_counter() < until:
            await call()
            done += 1


async def at_once_async(
    job: Job,
    row: str,
    call: Callable[[], Awaitable[Any]],
    column: str = "async",
    warm: float | None = None,
    lanes: int = AT_ONCE,
) -> None:
    """Keep `lanes` calls under way; report how many end a second, after `warm` seconds (a third of the job's)."""
    done, going = 0, True

    async def lane() -> None:
        nonlocal done
        while going:
            await call()
            done += 1

    tasks = [asyncio.create_task(lane()) for _ in range(lanes)]
    await asyncio.sleep(job.seconds / 3 if warm is None else warm)
    with timed(job, row, lambda: done, column, rate=True):
        await asyncio.sleep(job.seconds)
    going = False
    await asyncio.gather(*tasks)


def at_once(
    job: Job,
    row: str,
    call: Callable[[], Any],
    column: str = "sync",
    warm: float | None = None,
    lanes: int = AT_ONCE,
) -> None:
    """The same with threads that call."""
    counts, going = [0] * lanes, True

    def lane(number: int) -> None:
        while going:
            call()
            counts[number] += 1

    threads = [threading.Thread(target=lane, args=(number,), daemon=True) for number in range(lanes)]
    for thread in threads:
        thread.start()
    time.sleep(job.seconds / 3 if warm is None else warm)
    with timed(job, row, lambda: sum(counts), column, rate=True):
        time.sleep(job.seconds)
    going = False
    for thread in threads:
        thread.join()


def latencies(row: str, milliseconds: Sequence[float], column: str = "") -> None:
    """Report the median and the 99th percentile of so many samples as ROW-50 and ROW-99."""
    centiles = statistics.quantiles(milliseconds, n=100)
    report(f"{row}-50", centiles[49], column)
    report(f"{row}-99", centiles[98], column)


def rate(row: str, count: int, work: Callable[[], Any], column: str = "") -> None:
    """Time some work that does so many things; report how many a second."""
    gc.collect()
    began = time.perf_counter()
    work()
    report(row, count / (time.perf_counter() - began), column)


# -- worker processes --------------------------------------------------------------------------------------


class Worker:
    """A process that runs what others enqueue: this contestant's module again, with a role as second argument.

    It says `ready` once it would take work, and `tally` when its input is closed; see `serve`.

    Args:
        module: to run, usually `__spec__.name`.
        job: handed on.
        role: what the module is to be: its `sys.argv[2]`.
    """

    def __init__(self, module: str, job: Job, role: str = "worker", **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, sys.argv[1], role],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.job = job

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def line(self) -> Any:
        """The next thing it says."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        return json.loads(text)

    def wait_ready(self) -> None:
        """Wait until it would take work."""
        while self.line() != "ready":
            pass

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> tuple[int, float, float]:
        """Have it end in order; return its tally: how many it ran, when the first began, when the last ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while not isinstance(line := self.line(), dict):
            pass
        self._process.wait()
        return cast("tuple[int, float, float]", (line["count"], line["first"], line["last"]))


class Tally:
    """What a worker process has run. Its jobs call `hit`; costs one lock and two clock reads each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count, self.first, self.last = 0, 0.0, 0.0

    def hit(self) -> float:
        """Count one job, and tell the time that all processes of the machine share."""
        now = time.monotonic()
        with self._lock:
            self.count += 1
            self.first = self.first or now
            self.last = now
        return now

    def stamp(self) -> None:
        """Count one job and say at once when it began: for the latency of a start."""
        print(json.dumps(["stamp", self.hit()]), flush=True)

    def say(self) -> None:
        """Print the tally, as the last thing a worker does."""
        print(json.dumps({"count": self.count, "first": self.first, "last": self.last}), flush=True)


def say_ready() -> None:
    """Tell the parent that this worker would take work."""
    print(json.dumps("ready"), flush=True)


def wait_for_end() -> None:
    """Block until the parent closes our input, or dies."""
    sys.stdin.read()


def wait_for_parent() -> None:
    """End this process, at once and from whatever it does, with the one that started it."""

    def end() -> None:
        wait_for_end()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()


def drain(
    job: Job,
    row: str,
    module: str,
    workers: int,
    count: int,
    left: Callable[[], int],
    ended: Callable[[], float] | None = None,
) -> None:
    """Have so many worker processes run a backlog of `count` jobs; report how many a second.

    From the moment that the first job began to the moment that the last one did, by the workers' own clocks: the
    start of processes is not measured. `left` says how many are not done, asked a few times a second; `ended`, where it
    is given, when the last end was committed, by the clock of the machine, and is what counts then.
    """
    crew = [Worker(module, job) for _ in range(workers)]
    try:
        until = time.monotonic() + 300
        while left():
            if time.monotonic() > until:
                raise RuntimeError(f"{row}: {left()} of {count} are left after 300 s")
            time.sleep(0.2)
        tallies = [worker.stop() for worker in crew]
    finally:
        for worker in crew:
            worker.kill()
    ran = sum(tally[0] for tally in tallies)
    if ran < count:
        raise RuntimeError(f"{row}: {count} jobs were enqueued and {ran} ran")
    first = min(tally[1] for tally in tallies if tally[0])
    last = max(tally[2] for tally in tallies)
    if ended is not None:
        last = ended() - (time.time() - time.monotonic())
    report(row, ran / (last - first))


def start_latency(
    job: Job, row: str, worker: Worker, enqueue: Callable[[], Any], least: int = 120, column: str = ""
) -> None:
    """Enqueue one job at a time into an idle queue; its function calls `Tally.stamp`. Report ROW-50 and ROW-99.

    Pauses of 20 to 60 ms lie between, that nothing may be found by a poll that was due anyway.
    """
    samples = []
    until = time.monotonic() + 4 * job.seconds
    number = 0
    while len(samples) < least or time.monotonic() < until:
        number += 1
        time.sleep(0.02 + 0.04 * (number * 0.618 % 1))
        began = time.monotonic()
        enqueue()
        said = worker.line()
        while not (isinstance(said, list) and said[0] == "stamp"):
            said = worker.line()
        if number > 5:
            samples.append((said[1] - began) * 1000)
    latencies(row, samples, column)


# -- processes as a whole ----------------------------------------------------------------------------------


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process that is really there."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def import_time(statement: str, times: int = 5) -> None:
    """Report `import`: seconds that a fresh interpreter needs for it, less those it needs for nothing; the median."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        return time.perf_counter() - began

    report(
        "import",
        statistics.median(seconds(statement) for _ in range(times))
        - statistics.median(seconds("pass") for _ in range(times)),
    )
