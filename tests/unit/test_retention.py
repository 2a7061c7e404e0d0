"""Which rule is a run's, and which rules cannot be."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from perdure import Retention
from perdure.models import Status
from perdure.retention import Pruned, checked_retention

DAY = 86400.0
KEPT = Retention(
    succeeded=timedelta(days=1),
    workflows={
        "shop.*": 2 * DAY,
        "shop.pay*": Retention(succeeded=3 * DAY),
        "shop.pay": None,
        "poll": timedelta(hours=1),
    },
)


@pytest.mark.parametrize(
    ("workflow", "status", "seconds"),
    [
        ("other", Status.SUCCEEDED, DAY),
        ("other", Status.CONTINUED, DAY),
        ("other", Status.FAILED, None),
        ("shop.", Status.FAILED, 2 * DAY),
        ("shop.order", Status.CANCELLED, 2 * DAY),
        ("shop", Status.SUCCEEDED, DAY),
        ("shop.payment", Status.SUCCEEDED, 3 * DAY),
        ("shop.payment", Status.FAILED, None),
        ("shop.pay", Status.SUCCEEDED, None),
        ("poll", Status.FAILED, 3600.0),
        ("polls", Status.FAILED, None),
    ],
)
def test_the_most_particular_rule_decides(workflow: str, status: Status, seconds: float | None) -> None:
    """A whole name, then the longest beginning, then the status alone; what a rule leaves out is kept for ever."""
    assert KEPT.kept(workflow, status) == seconds


def test_the_shortest_and_the_longest_time_are_known() -> None:
    """The walk stops at births younger than the one, and workers keep their names for the other."""
    assert (KEPT.least, KEPT.longest) == (3600.0, 3 * DAY)
    assert (Retention().least, Retention().longest) == (None, 0.0)
    assert Retention(workflows={"a": None}).least is None


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"succeeded": -1}, ValueError, "succeeded=...\\) must be between"),
        ({"failed": math.nan}, ValueError, "failed=...\\) must be between"),
        ({"failed": math.inf}, ValueError, "century"),
        ({"cancelled": 59.9}, ValueError, "at least 60 s"),
        ({"cancelled": "1 day"}, TypeError, "None for ever, not '1 day'"),
        ({"succeeded": True}, TypeError, "None for ever, not True"),
        ({"workflows": {"a": 1}}, ValueError, "'a'.* at least 60 s"),
        ({"workflows": {"a": "x"}}, TypeError, "'a'"),
        ({"workflows": {"": 60}}, ValueError, "not ''"),
        ({"workflows": {"*": 60}}, ValueError, "for all workflows say"),
        ({"workflows": {"a*b": 60}}, ValueError, "not 'a\\*b'"),
        ({"workflows": {"a**": 60}}, ValueError, "not 'a\\*\\*'"),
        ({"workflows": {3: 60}}, TypeError, "not 3"),
        ({"workflows": [("a", 60)]}, TypeError, "a mapping"),
        ({"workflows": {"a": Retention(workflows={"b": 60})}}, ValueError, "of its own"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Retention(**given)


def test_only_a_retention_is_one() -> None:
    """A number of days in its place would mean nothing."""
    with pytest.raises(TypeError, match=r"must be a perdure\.Retention"):
        checked_retention(7)
    assert checked_retention(None) is None


def test_what_was_pruned_adds_up() -> None:
    one = Pruned(2, 1, {"a": {"failed": 2}}, {"steps": 3})
    two = Pruned(1, 1, {"a": {"failed": 1, "succeeded": 4}, "b": {"failed": 1}}, {"ends": 1}, complete=False)
    assert one + two == Pruned(
        3,
        2,
        {"a": {"failed": 3, "succeeded": 4}, "b": {"failed": 1}},
        {"steps": 3, "ends": 1},
        complete=False,
    )
