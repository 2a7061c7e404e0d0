"""Runs that go on as new, in blocking code."""

from __future__ import annotations

from typing import Any, NoReturn

from perdure.context.branch import blocking_branch
from perdure.context.change import going_on


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this life of the run, and begin its workflow anew under the same id; see `perdure.continue_as_new`."""
    raise going_on(
        blocking_branch("perdure.sync.continue_as_new", "perdure.continue_as_new").run, args, kwargs
    )
