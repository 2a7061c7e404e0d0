"""Calling steps and starting runs of either colour from blocking code."""

from __future__ import annotations

from typing import ParamSpec, TypeVar, cast

from perdure.client import BlockingHandle as Handle
from perdure.client import blocking, current_app
from perdure.context.branch import blocking_branch
from perdure.core.drive import drive_blocking
from perdure.declare import AsyncStep, BlockingStep, Startable
from perdure.declare.steps import operation_of

P = ParamSpec("P")
R = TypeVar("R")


def run_step(step: AsyncStep[P, R] | BlockingStep[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a step of either colour from a blocking workflow; an `async def` one runs on the app's loop."""
    branch = blocking_branch("perdure.sync.run_step", "perdure.run_step")
    step.definition.signature.bind(args, kwargs)
    operation = operation_of(branch, step.definition, args, kwargs)
    return cast("R", drive_blocking(operation, branch.run.runtime, branch.run.host))


def start(workflow: Startable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
    """Start a run of a workflow of either colour; see `perdure.start`."""
    if not isinstance(workflow, Startable):
        raise TypeError(f"perdure.sync.start(...) takes a workflow, or its .options(...), not {workflow!r}")
    starts = workflow.starts(args, kwargs, Handle)
    return cast("Handle[R]", blocking(starts, current_app(), "`await perdure.start(...)`"))
