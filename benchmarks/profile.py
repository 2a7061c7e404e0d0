"""Where the time of a run goes: by thread, by function, by statement.

Three passes over the same load. The first is undisturbed: CPU time of every thread of ours, of Postgres's
backends, and what `pg_stat_statements` says of each statement. The other two put `cProfile`, counting CPU
time of the thread and not waiting for its turn, into the thread of the user's code and into the journal's.
Profiling slows small functions more than large ones: shares are to be believed, sums are not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
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

import psutil  # type: ignore[import-untyped]  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import perdure  # noqa: E402
from benchmarks import programs  # noqa: E402
from benchmarks.protocol import AT_ONCE  # noqa: E402
from benchmarks.server import Server, running  # noqa: E402
from perdure.sql import load as load_statements  # noqa: E402

console: Final = Console()
OURS: Final = load_statements("perdure")
WORD: Final = re.compile(r"[a-z_]{2,}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.set_defaults(blocking=False)
    colour = parser.add_mutually_exclusive_group()
    colour.add_argument("--async", dest="blocking", action="store_false", help="async workflows (default)")
    colour.add_argument("--sync", dest="blocking", action="store_true", help="blocking ones in 200 threads")
    parser.add_argument("--one", action="store_true", help=f"one run at a time instead of {AT_ONCE} at once")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop")
    parser.add_argument("--steps", type=int, default=1, help="steps of a run (1)")
    parser.add_argument("--runs", type=int, help="runs in each pass")
    parser.add_argument("--top", type=int, default=30, help="functions to print of each thread (30)")
    parser.add_argument("--database", metavar="URL", help="a server that is there")
    return parser.parse_args()


def main() -> None:
    """Run the passes and print what they found."""
    options = parse()
    options.runs = options.runs or (1000 if options.one else 10_000)
    with running(options.database) as server:
        console.print(server.describe(), highlight=False)
        with server.database(count_statements=True) as url:
            load(options, url, lambda work: undisturbed(server, url, options.runs, work))
        with server.database() as url:
            load(options, url, lambda work: profile_caller(options, work))
        with server.database() as url, profiled(lambda t: t.name == "perdure-journal") as journals:
            load(options, url, lambda work: work())
        report("journal's thread (the warm-up included)", journals, options)


Work = Callable[[], None]


def load(options: argparse.Namespace, url: str, measured: Callable[[Work], None]) -> None:
    """Open an app, warm up, and have `measured` call the load."""
    if options.blocking:
        with perdure.sync.Perdure(url):
            many_in_threads(5 * AT_ONCE, options.steps)
            measured(lambda: _blocking(options))
        return
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        app = perdure.Perdure(url)
        runner.run(app.open())
        try:
            runner.run(many_on_loop(5 * AT_ONCE, options.steps))
            measured(lambda: runner.run(_awaiting(options)))
        finally:
            runner.run(app.close())


def _blocking(options: argparse.Namespace) -> None:
    if options.one:
        for number in range(options.runs):
            programs.chain_blocking(number, options.steps)
    else:
        many_in_threads(options.runs, options.steps)


async def _awaiting(options: argparse.Namespace) -> None:
    await (one_by_one if options.one else many_on_loop)(options.runs, options.steps)


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
    _title(f"{runs / seconds:,.0f} runs/s, {seconds / runs * 1e6:,.0f} us of wall time a run; CPU time:")
    table = _table("us a run", "of a core")
    table.add_column("thread or backend")
    for name, cpu in sorted(spent, key=lambda item: -item[1]):
        if cpu / seconds >= 0.005:
            table.add_row(f"{cpu / runs * 1e6:.1f}", f"{cpu / seconds:.2f}", name)
    console.print(table)
    statements(server, url, runs)


def statements(server: Server, url: str, runs: int) -> None:
    """Print where Postgres's time went, where it counts statements."""
    rows = server.slowest_statements(url)
    if not rows:
        return
    _title("Statements, by time in the server")
    table = _table("us a run", "calls", "rows a call", "us a call", "us a row")
    table.add_column("statement", no_wrap=True)
    for calls, affected, microseconds, text in rows:
        table.add_row(
            f"{microseconds / runs:.1f}",
            f"{calls:,}",
            f"{affected / calls:.1f}",
            f"{microseconds / calls:,.0f}",
            f"{microseconds / affected:.1f}" if affected else "",
            name_of(text),
        )
    console.print(table)


def name_of(text: str) -> str:
    """The name of the statement in our SQL files that has most words in common with this text."""
    words = set(WORD.findall(text.lower()))

    def likeness(name: str) -> float:
        others = set(WORD.findall(OURS[name].lower()))
        return len(words & others) / len(words | others)

    best = max(reversed(list(OURS)), key=likeness)  # of two alike, the one of the journal
    return best if likeness(best) > 0.7 else " ".join(text.split())[:60]


class Threads:
    """CPU time of this process's threads, from here on; those that end meanwhile count under `others`."""

    def __init__(self) -> None:
        self._before = self._read()
        self._process = time.process_time()

    def seconds(self) -> list[tuple[str, float]]:
        """CPU time by name of the thread, largest first."""
        total = time.process_time() - self._process
        after = self._read()
        spent = [(name, after[name] - self._before.get(name, 0.0)) for name in after]
        return [*spent, ("other threads of ours", total - sum(cpu for _, cpu in spent))]

    @staticmethod
    def _read() -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for thread in threading.enumerate():
            if thread.ident is not None:
                clock = time.pthread_getcpuclockid(thread.ident)
                found[thread.name] += time.clock_gettime(clock)
        return dict(found)


def backend_seconds(server: Server) -> dict[str, float]:
    """CPU time so far of the server's processes, by what they call themselves."""
    found: dict[str, float] = defaultdict(float)
    if server.pid is None:
        return {}
    with server.connect() as connection:
        rows = connection.execute(
            "select pid, application_name, backend_type from pg_stat_activity"
        ).fetchall()
    names = {pid: application or kind for pid, application, kind in rows}
    for process in psutil.Process(server.pid).children():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[f"Postgres: {names.get(process.pid, 'others')}"] += times.user + times.system
    return dict(found)


# -- the other two -----------------------------------------------------------------------------------------


@contextmanager
def profiled(wanted: Callable[[threading.Thread], bool]) -> Iterator[list[cProfile.Profile]]:
    """Profile every thread that begins to run within the block, if it is wanted: one profile each."""
    profiles: list[cProfile.Profile] = []
    original: Any = threading.Thread.run

    def run(self: threading.Thread) -> None:
        if wanted(self):
            profiles.append(counting_cpu())
            profiles[-1].runcall(original, self)
        else:
            original(self)

    threading.Thread.run = run  # type: ignore[method-assign]
    try:
        yield profiles
    finally:
        threading.Thread.run = original  # type: ignore[method-assign]


def counting_cpu() -> cProfile.Profile:
    """A profile by the thread's own CPU time: waiting, for the database or for the interpreter, is none."""
    return cProfile.Profile(time.thread_time_ns, 1e-9)


def profile_caller(options: argparse.Namespace, work: Work) -> None:
    """Run the load with a profile of the loop's thread, or of the threads that call."""
    if options.blocking and not options.one:
        with profiled(lambda thread: not thread.name.startswith("perdure")) as profiles:
            work()
        report(f"{len(profiles)} calling threads", profiles, options)
        return
    profile = counting_cpu()
    profile.runcall(work)
    report("calling thread" if options.blocking else "loop's thread", [profile], options)


def report(title: str, profiles: list[cProfile.Profile], options: argparse.Namespace) -> None:
    """Print the functions with the most time of their own, and the shares of the files."""
    statistics: Any = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        statistics.add(profile)
    rows = [(own, total, calls, *where) for where, (_, calls, own, total, _) in statistics.stats.items()]
    everything = sum(row[0] for row in rows)
    _title(f"Profile of the {title}: {everything / options.runs * 1e6:,.0f} us a run under the profiler")
    table = _table("own %", "own us a run", "with callees", "calls a run")
    table.add_column("function", no_wrap=True)
    for own, total, calls, file, line, name in sorted(rows, reverse=True)[: options.top]:
        per_run = (own / options.runs * 1e6, total / options.runs * 1e6, calls / options.runs)
        table.add_row(
            f"{own / everything * 100:.1f}", *(f"{value:.2f}" for value in per_run), _place(file, line, name)
        )
    console.print(table)
    files: dict[str, float] = defaultdict(float)
    for row in rows:
        files[_place(row[3], 0, "")] += row[0]
    shares = sorted(files.items(), key=lambda item: -item[1])[:12]
    console.print(", ".join(f"{name} {share / everything:.0%}" for name, share in shares), highlight=False)
    console.print()


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


def _title(text: str) -> None:
    console.print(text, style="bold", highlight=False)


def _table(*numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    main()
