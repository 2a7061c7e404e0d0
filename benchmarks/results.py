"""What was measured: samples by row and column, and their medians."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.measures import GROUPS, Group, Row


@dataclass
class Results:
    """Samples by row and column; a column is a contestant, with its colour where it has two: `DBOS, sync`."""

    about: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _samples: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _cpu: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, contestant: str, said: dict[str, Any]) -> None:
        """Add what a contestant has reported or noted."""
        if "note" in said:
            text = f"{contestant}: {said['note']}"
            if text not in self.notes:
                self.notes.append(text)
            return
        column = f"{contestant}, {said['column']}" if said["column"] else contestant
        self._samples[said["row"], column].append(said["value"])
        if said["cpu"]:
            self._cpu[said["row"], column].append(tuple(said["cpu"]))

    def median(self, row: Row, column: str) -> float | None:
        """The median of the rounds."""
        samples = self._samples.get((row.key, column))
        return statistics.median(samples) if samples else None

    def range(self, row: Row, column: str) -> tuple[float, float] | None:
        """The lowest and the highest of the rounds."""
        samples = self._samples.get((row.key, column))
        return (min(samples), max(samples)) if samples else None

    def cpu(self, row: Row, column: str) -> tuple[float, float] | None:
        """The medians of the CPU times, in microseconds: its own, its server's."""
        samples = self._cpu.get((row.key, column))
        if not samples:
            return None
        return statistics.median(s[0] for s in samples), statistics.median(s[1] for s in samples)

    def columns(self, group: Group) -> list[str]:
        """Who has any figure in a group, in the order in which they came."""
        keys = {row.key for row in group.rows}
        return list(dict.fromkeys(column for key, column in self._samples if key in keys))

    def best(self, row: Row, contestant: str) -> tuple[str, float] | None:
        """The best column of a contestant, and its median."""
        found = [
            (column, median)
            for column in {column for key, column in self._samples if key == row.key}
            if column.partition(",")[0] == contestant and (median := self.median(row, column)) is not None
        ]
        if not found:
            return None
        return (max if row.more_is_better else min)(found, key=lambda pair: pair[1])

    def save(self, path: Path) -> None:
        """Write every sample as JSON."""
        document = {
            "about": self.about,
            "notes": self.notes,
            "samples": [[*key, values] for key, values in self._samples.items()],
            "cpu": [[*key, values] for key, values in self._cpu.items()],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        document = json.loads(path.read_text())
        results = cls(document["about"], document["notes"])
        for row, column, values in document["samples"]:
            results._samples[row, column] = values
        for row, column, values in document["cpu"]:
            results._cpu[row, column] = [tuple(pair) for pair in values]
        return results


def ahead(results: Results, ours: str, peers: list[str]) -> list[tuple[Row, str, float, str, float]]:
    """Rows in which a peer is ahead of us: row, its column and figure, ours; the widest lead first."""
    found = []
    for group in GROUPS:
        for row in group.rows:
            own = results.best(row, ours)
            for peer in peers:
                other = results.best(row, peer)
                if own and other and row.times_better(other[1], own[1]) > 1:
                    found.append((row, *other, *own))
    return sorted(found, key=lambda lead: -lead[0].times_better(lead[2], lead[4]))
