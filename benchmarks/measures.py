"""What is measured: groups of rows, their units, and what a row means. What is done in each: `contestants/README.md`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its key in the protocol, how tables call it, its unit, whether a larger figure is better."""

    key: str
    label: str
    unit: str
    more_is_better: bool = False

    def times_better(self, one: float, other: float) -> float:
        """How many times better the first figure is than the other."""
        if not one or not other:
            return float("nan")
        return one / other if self.more_is_better else other / one


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are measured together and stand in one table.

    Attributes:
        key: as in a job's `wanted`.
        title: of the table.
        rows: its columns.
        quick: whether `--quick` measures it.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    quick: bool = False


def _rate(key: str, label: str, unit: str = "runs/s") -> Row:
    return Row(key, label, unit, True)


SIZES: Final = ("10k", "100k", "1m")

GROUPS: Final = (
    Group(
        "one",
        "One at a time: each run called after the last has ended",
        tuple(Row(f"one-{steps}", f"{steps} step{'s' * (steps > 1)}", "ms a run") for steps in (1, 3, 10)),
        quick=True,
    ),
    Group(
        "many",
        "200 at once, in one process",
        (_rate("many-1", "1 step"), _rate("many-3", "3 steps")),
        quick=True,
    ),
    Group(
        "transaction",
        "A step that commits together with its own rows",
        (Row("transaction", "transaction step", "ms"),),
        quick=True,
    ),
    Group(
        "queue",
        "Through a queue",
        (
            _rate("enqueue-one", "enqueue, one at a time", "jobs/s"),
            _rate("enqueue-bulk", "enqueue, in bulk", "jobs/s"),
            _rate("bare-1", "bare jobs, 1 worker", "jobs/s"),
            _rate("bare-2", "bare jobs, 2 workers", "jobs/s"),
            _rate("drain-1", "1 step, 1 worker"),
            _rate("drain-2", "1 step, 2 workers"),
        ),
    ),
    Group(
        "start",
        "From enqueue to start, in an idle worker process",
        (Row("start-50", "p50", "ms"), Row("start-99", "p99", "ms")),
    ),
    Group(
        "messages",
        "Messages: two runs play ping-pong; a client asks a run",
        (
            Row("send-50", "send and answer, p50", "ms"),
            Row("send-99", "p99", "ms"),
            Row("event-50", "question and event, p50", "ms"),
            Row("event-99", "p99", "ms"),
        ),
    ),
    Group(
        "recovery",
        "1,000 runs of a killed process, from the moment that another may take them to the last one's end",
        (Row("recovery", "all ended", "s"),),
    ),
    Group(
        "waiting",
        "Runs asleep for an hour, in one worker",
        (Row("waiting-10k", "10,000", "kB a run"), Row("waiting-100k", "100,000", "kB a run")),
    ),
    Group(
        "cold",
        "From nothing",
        (Row("import", "import", "s"), Row("cold", "process start to the first run's end", "s")),
    ),
    Group(
        "objects",
        "perdure alone: commands of durable objects",
        (
            Row("object-one", "one at a time", "ms"),
            _rate("object-many", "200 at once, to 1,000 objects", "commands/s"),
            _rate("object-same", "200 at once, to one", "commands/s"),
        ),
    ),
    Group(
        "payload",
        "perdure alone: runs of one step that takes and returns so much, one at a time",
        tuple(Row(f"payload-{size}", f"{size} KB", "ms a run") for size in (1, 10, 100)),
    ),
    Group(
        "counts",
        "perdure alone: counts for each step of runs of ten, and of an idle worker",
        (
            Row("commits-one", "one at a time", "commits"),
            Row("wal-one", "one at a time", "bytes of WAL"),
            Row("commits-many", "200 at once", "commits"),
            Row("wal-many", "200 at once", "bytes of WAL"),
            Row("idle", "an idle worker", "transactions/s"),
        ),
    ),
    Group(
        "scaling",
        "perdure alone: a backlog of runs of one step, drained by so many processes",
        tuple(_rate(f"workers-{count}", f"{count}") for count in (1, 2, 3, 4)),
    ),
    Group(
        "history",
        "perdure alone: beside so many ended runs, and in front of so many that wait",
        (
            *(Row(f"history-{size}", f"{size} ended, one at a time", "ms a run") for size in SIZES),
            *(_rate(f"history-many-{size}", f"{size} ended, 200 at once") for size in SIZES),
            *(_rate(f"backlog-{size}", f"{size} waiting, 1 worker") for size in SIZES),
        ),
    ),
)
