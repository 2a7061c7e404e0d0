"""Concurrent branches of blocking code: all of several, the first of several, many with a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from perdure.client import BlockingHandle as Handle
from perdure.context.branch import blocking_branch
from perdure.context.concurrency import MapWork, Winner
from perdure.declare import AsyncStep
from perdure.models import MapResult
from perdure.sync.calls import run_step

R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Handle[Any])


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
    results: list[Any] = branch.run.host.fan_out(thunks).all()
    return results


def race(*thunks: Callable[[], R]) -> Winner[R]:
    """Run functions as concurrent branches until the first of them ends; tell the others to stop.

    They stop at the durable call where they wait, or at their next one: a `def` step that runs is waited for.

    Args:
        thunks: the branches, such as `lambda: receive(approval)` or `lambda: sleep(3600)`.

    Returns:
        Which one was first, and its result; a replay finds the same.

    Raises:
        ValueError: there are none.
        Exception: what the first one raised.
    """
    branch = blocking_branch("perdure.sync.race", "perdure.race")
    if not thunks:
        raise ValueError("race(...) needs at least one function")
    return Winner(*branch.run.host.fan_out(thunks, race=True).first())


def wait_any(handles: Iterable[H]) -> H:
    """Wait for the first of several runs to end, however it does, and return its handle."""
    several = list(handles)
    if not several:
        raise ValueError("wait_any(...) needs at least one handle")
    winner = race(*((lambda handle=handle: _ended(handle)) for handle in several))
    return several[winner.which]


def _ended(handle: Handle[Any]) -> None:
    try:
        handle.result()
    except Exception:
        return


def map_steps(
    step: Callable[[T], R], items: Iterable[T], *, limit: int = 20, tolerate: float = 0
) -> MapResult[T, R]:
    """Call a step, or a workflow, for each of many items, so many at a time; see `perdure.map_steps`.

    Each of those under way has a thread, which it gives back while it only waits.
    """
    todo = list(items)
    work: MapWork[T] = MapWork(todo, limit, tolerate)

    def worker() -> None:
        for index, item in work:
            try:
                work.done(index, run_step(step, item) if isinstance(step, AsyncStep) else step(item))
            except Exception as error:
                work.failed(index, error)

    gather(*[worker for _ in range(min(limit, len(todo)))])
    return work.result()
