"""Concurrent branches, in blocking code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from perdure.context.branch import blocking_branch

R = TypeVar("R")


def gather(*thunks: Callable[[], R]) -> list[R]:
    """Run functions without arguments as concurrent branches of a blocking workflow.

    Bodies of steps run at the same time; the workflow's own code runs in one branch at a time, so that a replay
    meets the same order.

    Args:
        thunks: the branches, such as `lambda: charge(order)`.

    Returns:
        Their results in the order of the arguments.

    Raises:
        BaseException: the first error of a branch, after all have ended.
    """
    branch = blocking_branch("perdure.sync.gather", "asyncio.gather")
    results: list[Any] = branch.run.host.gather(thunks)
    return results
