"""Where the time of a run goes: by thread, by part, by function, by statement.

Two passes over the same load. The first is undisturbed: CPU time of every thread of ours, of Postgres's
backends, and what `pg_stat_statements` says of each statement. The second puts `cProfile`, counting CPU time
of the thread and not waiting for its turn, into the thread that calls and into those of ours that work.
What is built in counts for the Python function that calls it. Profiling slows small functions more than large
ones: shares are to be believed, sums are not.

`import` has no database: the CPU time of `import perdure` in fresh processes, by package and by part.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# As a script, this file would hide the module `profile` that cProfile imports.
ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import cProfile  # noqa: E402 - after the path is right
import pstats  # noqa: E402

from benchmarks.loads import LOADS, LOOP, Work  # noqa: E402
from benchmarks.protocol import AT_ONCE  # noqa: E402
from benchmarks.server import Server, running  # noqa: E402
from benchmarks.spent import Threads, backend_seconds, console, statements, table_of, title  # noqa: E402

Parts = Sequence[tuple[str, tuple[str, ...]]]
WORKING: Final = (LOOP, "perdure-journal", "perdure-producer", "perdure-hints", "perdure-listener")
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
    (
        "the transaction: its connection, BEGIN, its record, COMMIT",
        ("perdure/core/transactions", "perdure/store/session", "perdure/store/pools", "psycopg_pool"),
    ),
    ("steps: identity, record, body, drivers", ("perdure/core",)),
    (
        "hints",
        ("perdure/worker/hints", "perdure/worker/listener", "perdure/worker/engine", "perdure/worker/service"),
    ),
    ("claims", ("perdure/worker", "perdure/store/claim", "perdure/store/counting")),
    ("signals between threads", ("perdure/store/signal",)),
    ("batches: queue, columns, packets", ("perdure/store",)),
    ("psycopg, libpq, the socket", ("psycopg",)),
    ("the event loop", ("asyncio", "base_events.py", "events.py", "selectors.py", "runners.py", "uvloop")),
    ("threading", ("threading.py",)),
)  # fmt: skip
"""What files are for; the first that fits counts."""
PACKAGES: Final = ("perdure", "psycopg", "psycopg_pool", "asyncio")
COMPILED_ONCE: Final = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
IMPORT: Final = "import perdure"
PROFILED_IMPORT: Final = f"""
import cProfile, sys, time
profile = cProfile.Profile(time.thread_time_ns, 1e-9, builtins=False)
profile.run({IMPORT!r})
profile.dump_stats(sys.argv[1])
"""
USUAL_RUNS: Final = {"many": 10_000, "bulk": 10_000, "bare": 10_000, "start": 200, "import": 15}
IMPORT_PARTS: Final = (
    ("finding and reading modules", ("<frozen importlib", "<frozen os", "<frozen zipimport")),
    ("making dataclasses", ("dataclasses.py", "inspect.py", "<string>")),
    (
        "annotations, named tuples, enums",
        ("typing", "enum.py", "types.py", "<frozen abc", "__init__.py"),
    ),
    ("perdure's modules: their functions, classes, tables", ("perdure",)),
    ("psycopg's", ("psycopg",)),
    ("asyncio's", ("asyncio",)),
    ("regular expressions", ("_parser.py", "_compiler.py")),
)
"""The same of an import."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "load",
        nargs="?",
        choices=[*LOADS, "import"],
        default="many",
        help=f"many: runs, {AT_ONCE} at once (default); one: one run at a time; enqueue, bulk: starts in a queue, one or a "
        "hundred a call; bare: a worker that drains runs without steps; transaction: transaction steps of one run; start: starts "
        "for an idle worker; import: `import perdure`",
    )
    parser.add_argument(
        "--sync", dest="blocking", action="store_true", help="many, one, transaction: blocking workflows"
    )
    parser.add_argument("--uvloop", action="store_true", help="on uvloop, where there is a loop")
    parser.add_argument("--steps", type=int, default=1, help="many, one: steps of a run (1)")
    parser.add_argument("--runs", type=int, help="runs in each pass")
    parser.add_argument("--top", type=int, default=30, help="functions to print of each thread (30)")
    parser.add_argument("--database", metavar="URL", help="a server that is there")
    options = parser.parse_args(namespace=argparse.Namespace(profiling=False))
    options.runs = options.runs or USUAL_RUNS.get(options.load, 1000)
    return options


def main() -> None:
    """Run the passes and print what they found."""
    options = parse()
    if options.load == "import":
        importing(options)
        return
    load = LOADS[options.load]
    with running(options.database) as server:
        console.print(server.describe(), highlight=False)
        with server.database(count_statements=True) as url:
            load(options, url, lambda work: undisturbed(server, url, options.runs, work))
        options.profiling = True
        with server.database() as url, profiled() as profiles:
            load(options, url, lambda work: profile_caller(options, work))
        for name, several in profiles.items():
            report(f"{name} (the warm-up included)", several, options)


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


def report(whose: str, profiles: Sequence[Any], options: argparse.Namespace, parts: Parts = PARTS) -> None:
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
    shares: dict[str, float] = defaultdict(float)
    for row in rows:
        shares[part_of(_place(row[3], 0, ""), parts)] += row[0]
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        if share / everything >= 0.005:
            console.print(f"{share / everything:6.0%}  {name}", highlight=False)
    console.print()


def part_of(place: str, parts: Parts) -> str:
    """What the code in this file is for."""
    return next((part for part, files in parts if place.startswith(files)), "others")


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        return name or "built in"
    parts = Path(file).parts
    inside = [len(parts) - 1 - parts[::-1].index(package) for package in PACKAGES if package in parts]
    parts = parts[
        max(inside, default=-1) :
    ]  # the innermost: the environment may be in a folder called perdure
    place = "/".join(parts)
    return f"{place}:{line} {name}" if name else place


# -- the import --------------------------------------------------------------------------------------------


def importing(options: argparse.Namespace) -> None:
    """Print what `import perdure` takes: in all, by package, by part."""
    _python("-c", IMPORT)  # so that everything is compiled
    took = sorted(_cpu_of(IMPORT) - _cpu_of("pass") for _ in range(options.runs))
    title(f"{took[len(took) // 2] * 1000:.0f} ms of CPU (median of {len(took)}), by package:")
    packages: dict[str, float] = defaultdict(float)
    for _ in range(options.runs):
        told = _python("-X", "importtime", "-c", IMPORT)
        for own, module in re.findall(r"import time: +(\d+) \|[ \d]+\| +(\S+)", told):
            packages[module.partition(".")[0]] += int(own) / 1000 / options.runs
    table = table_of("ms")
    table.add_column("package")
    for name, took_it in sorted(packages.items(), key=lambda item: -item[1])[:10]:
        table.add_row(f"{took_it:.1f}", name)
    console.print(table)
    with tempfile.TemporaryDirectory() as folder:
        profiles = [f"{folder}/{number}" for number in range(options.runs)]
        for profile in profiles:
            _python("-c", PROFILED_IMPORT, profile)
        report("import", profiles, options, IMPORT_PARTS)


def _cpu_of(code: str) -> float:
    before = os.times()
    _python("-c", code)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _python(*arguments: str) -> str:
    """Run a fresh interpreter, and return what it says on the way."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=COMPILED_ONCE, stderr=subprocess.PIPE, text=True, check=True).stderr


if __name__ == "__main__":
    main()
