"""The measures of one process, and how large they are; what crosses processes is in `between.py`."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.results import Results, Row
from benchmarks.server import Server

AT_ONCE: Final = 200


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


ONE: Final = {
    steps: Row(f"one-{steps}", f"one at a time, {_steps(steps)}", "ms a run") for steps in (1, 3, 10)
}
MANY: Final = {
    steps: Row(f"many-{steps}", f"{AT_ONCE} at once, {_steps(steps)}", "runs/s", True) for steps in (1, 3)
}
NAIVE: Final = Row("naive-1", "... a commit each", "runs/s", True)
TRANSACTION: Final = Row("transaction", "transaction step", "ms a step")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in one round.

    Attributes:
        rounds: how often everything is measured, in turns.
        one: runs one at a time, by number of steps.
        many: runs of each "at once" measure, by number of steps.
        transactions: transaction steps.
        pings: runs through the queue.
        idle: seconds for which an idle worker is watched.
        killed: runs in the process that is killed.
    """

    rounds: int
    one: dict[int, int]
    many: dict[int, int]
    transactions: int
    pings: int
    idle: float
    killed: int


QUICK: Final = Sizes(3, {1: 150, 3: 80, 10: 30}, {1: 3000, 3: 1500}, 150, 40, 10.0, 200)
FULL: Final = Sizes(5, {1: 500, 3: 250, 10: 100}, {1: 10_000, 3: 5000}, 500, 100, 30.0, 1000)


@contextmanager
def timed(server: Server, results: Results, row: Row, column: str, count: int) -> Iterator[None]:
    """Time a block that does something so many times, with the CPU it took here and in Postgres."""
    gc.collect()
    postgres, python = server.cpu_seconds(), time.process_time()
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    python, after = time.process_time() - python, server.cpu_seconds()
    results.add(row, column, count / seconds if row.more_is_better else seconds / count * 1000)
    if postgres is not None and after is not None:
        results.add_cpu(row, column, python / count * 1e6, (after - postgres) / count * 1e6)
