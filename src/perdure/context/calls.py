"""Calling steps and starting runs of either colour from async code."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

from perdure.client import Handle, current_app, on_loop
from perdure.context.branch import async_branch, branch_of
from perdure.core.drive import drive
from perdure.core.registry import Definition
from perdure.declare import AsyncStep, BlockingStep, Startable
from perdure.declare.steps import operation_of

P = ParamSpec("P")
R = TypeVar("R")


def run_step(
    step: AsyncStep[P, R] | BlockingStep[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[object, None, R]:
    """Call a step of either colour from an async workflow; a `def` one runs in a thread."""
    async_branch("perdure.run_step")
    if not isinstance(step, AsyncStep | BlockingStep):
        raise TypeError(f"perdure.run_step(...) takes a @step or a @transaction, not {step!r}")
    step.definition.signature.bind(args, kwargs)
    return _run_step(step.definition, args, kwargs)


async def _run_step(definition: Definition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    branch = branch_of("perdure.run_step")
    return await drive(operation_of(branch, definition, args, kwargs), branch.run.runtime, branch.run.host)


def start(
    workflow: Startable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[object, None, Handle[R]]:
    """Start a run of a workflow of either colour, and return its handle.

    Args:
        workflow: the workflow, or what its `.options(...)` or `.start_with_update(...)` returned.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    if not isinstance(workflow, Startable):
        raise TypeError(f"perdure.start(...) takes a workflow, or its .options(...), not {workflow!r}")
    return on_loop(workflow.starts(args, kwargs, Handle), current_app(), "perdure.sync.start")
