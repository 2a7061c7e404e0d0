"""The loads that `profile.py` looks into: what they open, what they run, and what of it is measured."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import psycopg

import perdure
from benchmarks import programs
from benchmarks.protocol import AT_ONCE
from benchmarks.spent import console, table_of, title

LOOP: Final = "loop"
"""The thread whose event loop runs what another thread starts."""
WARM_UP: Final = 200

Work = Callable[[], None]
Measured = Callable[[Work], None]


def calling(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """Workflows that are called where they run."""
    if options.blocking:
        with perdure.sync.Perdure(url):
            many_in_threads(5 * AT_ONCE, options.steps)
            measured(lambda: _blocking(options))
        return
    with _opened(options, url) as runner:
        runner.run(many_on_loop(5 * AT_ONCE, options.steps))
        measured(lambda: runner.run(_awaiting(options)))


def enqueueing(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """Starts of runs that somebody else is to take, by one caller."""
    at_once = 100 if options.load == "bulk" else 1
    with perdure.sync.Perdure(url, worker=False) as app:
        enqueue(app, 10 * at_once, at_once)
        measured(lambda: enqueue(app, options.runs, at_once))


def draining(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """A worker that takes and ends runs without steps, its opening included."""
    with perdure.sync.Perdure(url, worker=False) as app:
        enqueue(app, options.runs, 1000)
    worker = perdure.Perdure(url)
    with _runner(options) as runner:
        measured(lambda: runner.run(_drain(worker, options.runs)))
        runner.run(worker.close())


def transacting(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """One run of many transaction steps, each an INSERT."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(programs.TABLE)
    if options.blocking:
        with perdure.sync.Perdure(url):
            programs.inserts_blocking(WARM_UP)
            measured(lambda: programs.inserts_blocking(options.runs))
        return
    with _opened(options, url) as runner:
        runner.run(_inserts(WARM_UP))
        measured(lambda: runner.run(_inserts(options.runs)))


def starting(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """Starts of runs for an idle worker, whose loop is another thread's; each when the last has begun."""
    with _worker(options, url) as worker, perdure.sync.Perdure(url, worker=False) as app:
        stages = Stages(app, worker)
        stages.start(20)
        measured(lambda: stages.start(options.runs))
        if not options.profiling:
            stages.report()


class Stages:
    """What a start goes through until the first line of the run's code, and for how long."""

    NAMES: Final = (
        "the call, until its commit is answered",
        "the hint, until the worker's listener has it",
        "the claim, until the run is handed to the loop",
        "the loop, until the first line of the code",
    )

    def __init__(self, app: perdure.sync.Perdure, worker: perdure.Perdure) -> None:
        self._app = app
        self._reached: dict[str, float] = {}
        self._took: list[list[float]] = []
        _when_called(app.engine.hints, "committed", self._reached)
        _when_called(worker.engine.producer, "hint", self._reached)
        _when_called(worker.engine.executor, "adopt", self._reached)

    def start(self, count: int) -> None:
        """Start so many; pauses lie between, as in the comparison, so that nobody finds them without a hint."""
        self._took.clear()
        for number in range(count):
            time.sleep(0.02 + 0.04 * (number * 0.618 % 1))
            began = time.monotonic()
            self._app.start("benchmarks.programs.seen", args=[])
            first_line = programs.seen_at.get(timeout=60)
            reached = (self._reached.pop(name, math.inf) for name in ("committed", "hint", "adopt"))
            moments = (began, *reached, first_line)
            if list(moments) == sorted(moments):  # else a poll that was due anyway was sooner
                self._took.append([until - since for since, until in pairwise(moments)])

    def report(self) -> None:
        """Print the medians, and what 19 of 20 were within."""
        title(f"Stages of {len(self._took)} starts")
        if not self._took:
            return
        table = table_of("p50, ms", "p95, ms")
        table.add_column("stage")
        stages = [*zip(*self._took, strict=True), [sum(stages) for stages in self._took]]
        for name, took in zip((*self.NAMES, "from the call to the first line"), stages, strict=True):
            nineteen = sorted(took)[int(0.95 * len(took))]
            table.add_row(f"{statistics.median(took) * 1000:.2f}", f"{nineteen * 1000:.2f}", name)
        console.print(table)


def _when_called(duty: Any, name: str, reached: dict[str, float]) -> None:
    """Note when this method of this very object is called."""
    original = getattr(duty, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        reached[name] = time.monotonic()
        return original(*args, **kwargs)

    setattr(duty, name, noted)


@contextmanager
def _worker(options: argparse.Namespace, url: str) -> Iterator[perdure.Perdure]:
    """Lend a worker whose event loop is in a thread of its own."""
    worker, opened, done = perdure.Perdure(url), threading.Event(), threading.Event()

    async def work() -> None:
        async with worker:
            opened.set()
            await asyncio.to_thread(done.wait)

    def run() -> None:
        with _runner(options) as runner:
            runner.run(work())

    thread = threading.Thread(target=run, name=LOOP)
    thread.start()
    try:
        assert opened.wait(60)
        yield worker
    finally:
        done.set()
        thread.join()


LOADS: Final = {
    "many": calling,
    "one": calling,
    "enqueue": enqueueing,
    "bulk": enqueueing,
    "bare": draining,
    "transaction": transacting,
    "start": starting,
}


def _runner(options: argparse.Namespace) -> asyncio.Runner:
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    return asyncio.Runner(loop_factory=factory)


@contextmanager
def _opened(options: argparse.Namespace, url: str) -> Iterator[asyncio.Runner]:
    """Lend a loop with an open app."""
    with _runner(options) as runner:
        app = perdure.Perdure(url)
        runner.run(app.open())
        try:
            yield runner
        finally:
            runner.run(app.close())


def enqueue(app: perdure.sync.Perdure, count: int, at_once: int) -> None:
    """Enqueue runs without steps, so many a call."""
    if at_once == 1:
        for number in range(count):
            app.start("benchmarks.programs.bare", args=[number], queue="default")
        return
    for first in range(0, count, at_once):
        app.start_many(programs.bare.bind(number) for number in range(first, min(first + at_once, count)))


async def _drain(worker: perdure.Perdure, count: int) -> None:
    goal = programs.tally.count + count
    await worker.open()
    while programs.tally.count < goal:  # noqa: ASYNC110  (an event for each run would cost)
        await asyncio.sleep(0.02)


def _blocking(options: argparse.Namespace) -> None:
    if options.load == "one":
        for number in range(options.runs):
            programs.chain_blocking(number, options.steps)
    else:
        many_in_threads(options.runs, options.steps)


async def _inserts(count: int) -> None:
    await programs.inserts(count)


async def _awaiting(options: argparse.Namespace) -> None:
    await (one_by_one if options.load == "one" else many_on_loop)(options.runs, options.steps)


async def one_by_one(count: int, steps: int) -> None:
    """So many runs, each after the last has ended."""
    for number in range(count):
        await programs.chain(number, steps)


async def many_on_loop(count: int, steps: int) -> None:
    """So many runs, 200 at any time."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await programs.chain(number, steps)

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))


def many_in_threads(count: int, steps: int) -> None:
    """So many runs in 200 threads that call the workflow directly."""
    numbers = itertools.count()

    def lane() -> None:
        while (number := next(numbers)) < count:
            programs.chain_blocking(number, steps)

    threads = [threading.Thread(target=lane, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
