"""Everything of `perdure` for blocking code: the same names, without `await`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

from perdure.app import BlockingPerdure as Perdure
from perdure.app import BlockingRuns as Runs
from perdure.client import BlockingHandle as Handle
from perdure.client import blocking, current_app, started_handle, where
from perdure.context import branch_of, check_moment, info, now, random, uuid4
from perdure.core.drive import drive_blocking
from perdure.core.run import Branch
from perdure.core.waits import sleep as sleep_operation
from perdure.declare import AsyncStartable, AsyncStep, BlockingStartable, BlockingStep
from perdure.declare.steps import operation_of
from perdure.errors import WrongColour
from perdure.models import Duration, seconds_of

P = ParamSpec("P")
R = TypeVar("R")


def _branch(what: str, instead: str) -> Branch:
    branch = branch_of(what)
    if branch.run.definition.colour:
        raise WrongColour(f"{what} blocks: in an async workflow use {instead} ({where()})")
    return branch


def sleep(duration: Duration) -> None:
    """Sleep, for as long as it takes; see `perdure.sleep`."""
    branch = _branch("perdure.sync.sleep", "perdure.sleep")
    operation = sleep_operation(branch, seconds=seconds_of(duration, "sleep(...)"))
    drive_blocking(operation, branch.run.runtime, branch.run.host)


def sleep_until(moment: datetime) -> None:
    """Sleep until a time (an aware `datetime`); see `perdure.sleep_until`."""
    check_moment(moment)
    branch = _branch("perdure.sync.sleep_until", "perdure.sleep_until")
    drive_blocking(sleep_operation(branch, until=moment), branch.run.runtime, branch.run.host)


def run_step(step: AsyncStep[P, R] | BlockingStep[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a step of either colour from a blocking workflow; an `async def` one runs on the app's loop."""
    branch = _branch("perdure.sync.run_step", "perdure.run_step")
    step.definition.signature.bind(args, kwargs)
    operation = operation_of(branch, step.definition, args, kwargs)
    return cast("R", drive_blocking(operation, branch.run.runtime, branch.run.host))


def start(
    workflow: AsyncStartable[P, R] | BlockingStartable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Handle[R]:
    """Start a run of a workflow of either colour; see `perdure.start`."""
    if not isinstance(workflow, AsyncStartable | BlockingStartable):
        raise TypeError(f"perdure.sync.start(...) takes a workflow, or its .options(...), not {workflow!r}")
    what, app = workflow.what(args, kwargs), current_app()
    handle: Handle[R] = blocking(lambda: started_handle(app, what, Handle), app, "`await perdure.start(...)`")
    return handle


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
    branch = _branch("perdure.sync.gather", "asyncio.gather")
    results: list[Any] = branch.run.host.gather(thunks)
    return results


__all__ = [
    "Handle",
    "Perdure",
    "Runs",
    "gather",
    "info",
    "now",
    "random",
    "run_step",
    "sleep",
    "sleep_until",
    "start",
    "uuid4",
]
