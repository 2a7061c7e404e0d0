"""A run's steps in the order in which its code was told of them, and as bars along its life."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from perdure.models import StepInfo


def in_order(steps: Sequence[StepInfo]) -> list[StepInfo]:
    """Steps as the code was told them, and readings of the clock, which have no place among them, by time."""
    readings = deque(step for step in steps if step.group is None)
    ordered: list[StepInfo] = []
    for step in steps:
        if step.group is None:
            continue
        while readings and readings[0].recorded < step.recorded:
            ordered.append(readings.popleft())
        ordered.append(step)
    return [*ordered, *readings]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The time from a run's birth to its end, or to now, as so many cells.

    Attributes:
        begin, end: of the run.
        cells: how wide it is drawn.
    """

    begin: datetime
    end: datetime
    cells: int

    def bar(self, step: StepInfo) -> str:
        """Where a step lies in it, from the beginning of its last attempt to its record; one cell at least."""
        first = self._cell(step.recorded - timedelta(seconds=step.seconds))
        last = max(first, self._cell(step.recorded))
        return "·" * first + "█" * (last - first + 1) + "·" * (self.cells - last - 1)

    def _cell(self, moment: datetime) -> int:
        """The cell of a moment; of one outside, as clocks and forks have them, the first or the last."""
        whole = (self.end - self.begin).total_seconds()
        if whole <= 0:
            return 0
        place = int((moment - self.begin).total_seconds() / whole * self.cells)
        return min(max(place, 0), self.cells - 1)
