"""What was measured: samples by measure and column, their medians, and the tables that show them.

Every figure is shown beside what psycopg alone needs for the same commits in the same run, because only the
ratio survives a change of machine; absolute figures do not.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

RAW: Final = "psycopg"
COLUMNS: Final = ("asyncio", "uvloop", "sync")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its key, how the table calls it, its unit, whether a larger figure is better."""

    key: str
    label: str
    unit: str
    more_is_better: bool = False


class Results:
    """Samples, by measure and column."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._cpu: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        self.notes: list[str] = []

    def add(self, row: Row, column: str, value: float) -> None:
        """Add one round's figure, in the unit of the row."""
        self._samples[row.key, column].append(value)

    def add_cpu(self, row: Row, column: str, python: float, postgres: float) -> None:
        """Add one round's CPU time for each run, in microseconds."""
        self._cpu[row.key, column].append((python, postgres))

    def median(self, row: Row, column: str) -> float | None:
        """The median of the rounds."""
        samples = self._samples.get((row.key, column))
        return statistics.median(samples) if samples else None

    def cpu(self, row: Row, column: str) -> tuple[float, float] | None:
        """The medians of the CPU times."""
        samples = self._cpu.get((row.key, column))
        if not samples:
            return None
        return statistics.median(s[0] for s in samples), statistics.median(s[1] for s in samples)

    def has(self, row: Row) -> bool:
        """Whether it was measured at all."""
        return any(key == row.key for key, _ in self._samples)

    def raw_for(self, row: Row, column: str) -> float | None:
        """What psycopg alone took; of the same colour, where the colours were measured apart."""
        colour = "sync" if column == "sync" else "async"
        own = self.median(row, f"{RAW} {colour}")
        return own if own is not None else self.median(row, RAW)

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write every sample as JSON."""
        samples = {f"{key}: {column}": values for (key, column), values in sorted(self._samples.items())}
        path.write_text(
            json.dumps({"about": about, "samples": samples, "notes": self.notes}, indent=1) + "\n"
        )


def show(console: Console, title: str, rows: Sequence[Row], results: Results) -> None:
    """Print one table, with the ratio of each figure to psycopg's."""
    rows = [row for row in rows if results.has(row)]
    columns = [name for name in COLUMNS if any(results.median(row, name) is not None for row in rows)]
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column(RAW, justify="right")
    for column in columns:
        table.add_column(column, justify="right")
        table.add_column("ratio", justify="right", style="dim")
    for row in rows:
        cells = [row.label, row.unit, _raw(row, results)]
        for column in columns:
            value, raw = results.median(row, column), results.raw_for(row, column)
            cells += [_figure(value), f"{value / raw:.2f}" if value is not None and raw else ""]
        table.add_row(*cells)
    console.print(table)


def show_cpu(console: Console, rows: Sequence[Row], results: Results) -> None:
    """Print the CPU time of each run, of our process and of Postgres."""
    rows = [row for row in rows if any(results.cpu(row, column) for column in (RAW, *COLUMNS))]
    if not rows:
        return
    columns = [name for name in (RAW, *COLUMNS) if any(results.cpu(row, name) for row in rows)]
    title = "CPU time of a run, us: Python + Postgres"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        spent = [results.cpu(row, column) for column in columns]
        table.add_row(row.label, *(f"{cpu[0]:,.0f} + {cpu[1]:,.0f}" if cpu else "" for cpu in spent))
    console.print(table)


def _raw(row: Row, results: Results) -> str:
    plain = results.median(row, RAW)
    if plain is not None:
        return _figure(plain)
    blocking, awaiting = results.median(row, f"{RAW} sync"), results.median(row, f"{RAW} async")
    if blocking is None and awaiting is None:
        return ""
    return f"{_figure(awaiting)}, sync {_figure(blocking)}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
