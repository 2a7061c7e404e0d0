"""Where the time of a run goes: by thread, by part, by function, by statement.

Two passes over the same load. The first is undisturbed: CPU time of every thread of ours, of Postgres's
backends, and what `pg_stat_statements` says of each statement. The second puts `cProfile`, counting CPU time
of the thread and not waiting for its turn, into the thread that calls and into those of ours that work.
What is built in counts for the Python function that calls it. Profiling slows small functions more than large
ones: shares are to be believed, sums are not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# As a script, this file would hide the module `profile` that cProfile imports.
ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import cProfile  # noqa: E402 - after the path is right
import pstats  # noqa: E402

import perdure  # noqa: E402
from benchmarks import programs  # noqa: E402
from benchmarks.protocol import AT_ONCE  # noqa: E402
from benchmarks.server import Server, running  # noqa: E402
from benchmarks.spent import Threads, backend_seconds, console, statements, table_of, title  # noqa: E402

WORKING: Final = ("perdure-journal", "perdure-producer")
PARTS: Final = (
    ("arguments and results, to and from JSON", ("perdure/serial",)),
    (
        "the call: what is started, the wait for its result",
        ("perdure/core/starting", "perdure/client", "perdure/declare", "perdure/app", "perdure/options"),
    ),
    (
        "the code's task: begin, end, hand-overs",
        ("perdure/core/loop", "perdure/core/tasks", "perdure/core/ending", "perdure/core/threads",
         "perdure/core/calling", "perdure/core/pool", "perdure/worker/executor", "perdure/worker/loops",
         "perdure/worker/watcher", "perdure/worker/incarnation"),
    ),
    ("steps: identity, record, body, drivers", ("perdure/core",)),
    ("hints", ("perdure/worker/hints",)),
    ("claims", ("perdure/worker", "perdure/store/claim", "perdure/store/counting")),
    ("signals between threads", ("perdure/store/signal",)),
    ("batches: queue, columns, packets", ("perdure/store",)),
    ("psycopg, libpq, the socket", ("psycopg",)),
    ("the event loop", ("asyncio", "base_events.py", "events.py", "selectors.py", "runners.py", "uvloop")),
    ("threading", ("threading.py",)),
)  # fmt: skip
"""What files are for; the first that fits counts."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "load",
        nargs="?",
        choices=LOADS,
        default="many",
        help=f"many: runs, {AT_ONCE} at once (default); one: one run at a time; enqueue, bulk: starts in a queue, one or a "
        "hundred a call; bare: a worker that drains runs without steps",
    )
    parser.add_argument("--sync", dest="blocking", action="store_true", help="many, one: blocking workflows")
    parser.add_argument("--uvloop", action="store_true", help="many, one, bare: on uvloop")
    parser.add_argument("--steps", type=int, default=1, help="many, one: steps of a run (1)")
    parser.add_argument("--runs", type=int, help="runs in each pass")
    parser.add_argument("--top", type=int, default=30, help="functions to print of each thread (30)")
    parser.add_argument("--database", metavar="URL", help="a server that is there")
    options = parser.parse_args()
    options.runs = options.runs or (1000 if options.load in ("one", "enqueue") else 10_000)
    return options


def main() -> None:
    """Run the passes and print what they found."""
    options = parse()
    load = LOADS[options.load]
    with running(options.database) as server:
        console.print(server.describe(), highlight=False)
        with server.database(count_statements=True) as url:
            load(options, url, lambda work: undisturbed(server, url, options.runs, work))
        with server.database() as url, profiled() as profiles:
            load(options, url, lambda work: profile_caller(options, work))
        for name, several in profiles.items():
            report(f"{name} (the warm-up included)", several, options)


Work = Callable[[], None]
Measured = Callable[[Work], None]


def calling(options: argparse.Namespace, url: str, measured: Measured) -> None:
    """Workflows that are called where they run."""
    if options.blocking:
        with perdure.sync.Perdure(url):
            many_in_threads(5 * AT_ONCE, options.steps)
            measured(lambda: _blocking(options))
        return
    with _runner(options) as runner:
        app = perdure.Perdure(url)
        runner.run(app.open())
        try:
            runner.run(many_on_loop(5 * AT_ONCE, options.steps))
            measured(lambda: runner.run(_awaiting(options)))
        finally:
            runner.run(app.close())


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


LOADS: Final = {
    "many": calling,
    "one": calling,
    "enqueue": enqueueing,
    "bulk": enqueueing,
    "bare": draining,
}


def _runner(options: argparse.Namespace) -> asyncio.Runner:
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    return asyncio.Runner(loop_factory=factory)


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


# -- the first pass ----------------------------------------------------------------------------------------


def undisturbed(server: Server, url: str, runs: int, work: Work) -> None:
    """Run the load and print the CPU time of threads, backends and statements."""
    server.forget_statements(url)
    threads, backends = Threads(), backend_seconds(server)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    spent = threads.seconds() + [
        (name, total - backends.get(name, 0.0)) for name, total in backend_seconds(server).items()
    ]
    title(f"{runs / seconds:,.0f} runs/s, {seconds / runs * 1e6:,.0f} us of wall time a run; CPU time:")
    table = table_of("us a run", "of a core")
    table.add_column("thread or backend")
    for name, cpu in sorted(spent, key=lambda item: -item[1]):
        if cpu / seconds >= 0.005:
            table.add_row(f"{cpu / runs * 1e6:.1f}", f"{cpu / seconds:.2f}", name)
    console.print(table)
    statements(server, url, runs)


# -- the second ----------------------------------------------------------------------------------------


@contextmanager
def profiled() -> Iterator[dict[str, list[cProfile.Profile]]]:
    """Profile every thread that begins to run within the block and works on runs, by its name."""
    profiles: dict[str, list[cProfile.Profile]] = defaultdict(list)
    original: Any = threading.Thread.run

    def run(self: threading.Thread) -> None:
        name = self.name if self.name in WORKING else "" if self.name.startswith("perdure") else "callers"
        if not name:
            original(self)
            return
        profiles[name].append(counting_cpu())
        profiles[name][-1].runcall(original, self)

    threading.Thread.run = run  # type: ignore[method-assign]
    try:
        yield profiles
    finally:
        threading.Thread.run = original  # type: ignore[method-assign]


def counting_cpu() -> cProfile.Profile:
    """A profile by the thread's own CPU time: waiting, for the database or for the interpreter, is none."""
    return cProfile.Profile(time.thread_time_ns, 1e-9, builtins=False)


def profile_caller(options: argparse.Namespace, work: Work) -> None:
    """Run the load with a profile of this thread."""
    profile = counting_cpu()
    profile.runcall(work)
    if not (options.blocking and options.load == "many"):  # there it only waits for the callers
        report("calling thread", [profile], options)


def report(whose: str, profiles: list[cProfile.Profile], options: argparse.Namespace) -> None:
    """Print the functions with the most time of their own, and the shares of the parts."""
    statistics: Any = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        statistics.add(profile)
    rows = [(own, total, calls, *where) for where, (_, calls, own, total, _) in statistics.stats.items()]
    everything = sum(row[0] for row in rows)
    title(f"Profile of the {whose}: {everything / options.runs * 1e6:,.0f} us a run under the profiler")
    table = table_of("own %", "own us a run", "with callees", "calls a run")
    table.add_column("function", no_wrap=True)
    for own, total, calls, file, line, name in sorted(rows, reverse=True)[: options.top]:
        per_run = (own / options.runs * 1e6, total / options.runs * 1e6, calls / options.runs)
        table.add_row(
            f"{own / everything * 100:.1f}", *(f"{value:.2f}" for value in per_run), _place(file, line, name)
        )
    console.print(table)
    parts: dict[str, float] = defaultdict(float)
    for row in rows:
        parts[part_of(_place(row[3], 0, ""))] += row[0]
    for name, share in sorted(parts.items(), key=lambda item: -item[1]):
        if share / everything >= 0.005:
            console.print(f"{share / everything:6.0%}  {name}", highlight=False)
    console.print()


def part_of(place: str) -> str:
    """What the code in this file is for."""
    return next((part for part, files in PARTS if place.startswith(files)), "others")


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        return name or "built in"
    parts = Path(file).parts
    for package in ("perdure", "psycopg", "asyncio"):
        if package in parts:
            parts = parts[len(parts) - 1 - parts[::-1].index(package) :]
            break
    else:
        parts = parts[-1:]
    place = "/".join(parts)
    return f"{place}:{line} {name}" if name else place


if __name__ == "__main__":
    main()
