"""CPU time that was spent, by thread of ours, by process of Postgres, by statement; without any profiler."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from typing import Final

import psutil  # type: ignore[import-untyped]
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.server import Server
from perdure.sql import load as load_statements

console: Final = Console()
OURS: Final = load_statements("perdure")
WORD: Final = re.compile(r"[a-z_]{2,}")


def statements(server: Server, url: str, runs: int) -> None:
    """Print where Postgres's time went, where it counts statements."""
    rows = server.slowest_statements(url)
    if not rows:
        return
    title("Statements, by time in the server")
    table = table_of("us a run", "calls", "rows a call", "us a call", "us a row")
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


def title(text: str) -> None:
    """Print a heading."""
    console.print(text, style="bold", highlight=False)


def table_of(*numbers: str) -> Table:
    """An empty table with columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
