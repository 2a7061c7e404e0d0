"""Bars of steps along the life of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure.cli.timeline import Timeline
from perdure.models import StepInfo

BORN = datetime(2026, 1, 1, tzinfo=UTC)


def step(at: float, seconds: float) -> StepInfo:
    return StepInfo("1", 1, "step", "x", False, b"1", 1, seconds, 1, BORN + timedelta(seconds=at))


@pytest.mark.parametrize(
    ("at", "seconds", "bar"),
    [
        (0, 0, "█·········"),
        (5, 3, "··████····"),
        (9.9, 0.01, "·········█"),
        (10, 10, "██████████"),
        (-5, 1, "█·········"),  # of the run from which this one was forked
        (20, 1, "·········█"),  # by a clock that is ahead
    ],
)
def test_a_bar_lies_where_its_step_was(at: float, seconds: float, bar: str) -> None:
    """From its beginning to its record, within the life of the run, and never without a cell."""
    assert Timeline(BORN, BORN + timedelta(seconds=10), 10).bar(step(at, seconds)) == bar


def test_a_run_that_took_no_time() -> None:
    """It has bars all the same."""
    assert Timeline(BORN, BORN, 3).bar(step(0, 0)) == "█··"
