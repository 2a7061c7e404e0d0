"""What code can say while it runs: sleep, the time, chance, who it is. The async half; `sync` has the other."""

from __future__ import annotations

import random as _random
import uuid
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from perdure.client import Handle, current_app, on_loop, started_handle, where
from perdure.core.drive import drive
from perdure.core.registry import Definition
from perdure.core.run import Branch, current, step_info
from perdure.core.steps import clock_reading
from perdure.core.waits import sleep as sleep_operation
from perdure.declare import AsyncStartable, AsyncStep, BlockingStartable, BlockingStep
from perdure.declare.steps import operation_of
from perdure.errors import NotInWorkflow, WrongColour
from perdure.models import Duration, Info, seconds_of

P = ParamSpec("P")
R = TypeVar("R")


def branch_of(what: str) -> Branch:
    """The branch whose code is running.

    Raises:
        NotInWorkflow: no workflow's code is.
    """
    branch = current.get()
    if branch is None:
        raise NotInWorkflow(f"{what} only means something in a workflow's own code, not in a step or outside")
    return branch


def async_branch(what: str) -> Branch:
    """The branch of an async workflow whose code is running."""
    branch = branch_of(what)
    if not branch.run.definition.colour:
        raise WrongColour(
            f"{what} is async: in a blocking workflow use perdure.sync.{what.rpartition('.')[2]} ({where()})"
        )
    return branch


def sleep(duration: Duration) -> Coroutine[object, None, None]:
    """Sleep, for as long as it takes: through crashes and deploys, without holding memory.

    Args:
        duration: seconds or `timedelta`, counted by the database's clock from the first time this call is made.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    seconds = seconds_of(duration, "sleep(...)")
    branch = async_branch("perdure.sleep")
    return _sleep(branch, seconds, None)


def sleep_until(moment: datetime) -> Coroutine[object, None, None]:
    """Sleep until a time (an aware `datetime`); one that has passed does not sleep."""
    check_moment(moment)
    branch = async_branch("perdure.sleep_until")
    return _sleep(branch, None, moment)


def check_moment(moment: datetime) -> None:
    """Refuse a time without a zone."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(
            f"sleep_until(...) takes an aware datetime, such as perdure.now() + timedelta(days=1), not {moment!r}"
        )


async def _sleep(caller: Branch, seconds: float | None, until: datetime | None) -> None:
    branch = current.get() or caller
    await drive(sleep_operation(branch, seconds=seconds, until=until), branch.run.runtime, branch.run.host)


def now() -> datetime:
    """The time (UTC) by the database's clock, the same on every replay; never earlier than before in the run.

    Outside of a workflow it is the app's idea of the database's time.
    """
    branch = current.get()
    return clock_reading(branch) if branch is not None else current_app().runtime.now()


def random() -> _random.Random:
    """Randomness that is the same on every replay: a `random.Random` seeded for the run and its branch.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return branch_of("perdure.random").random


def uuid4() -> uuid.UUID:
    """A random UUID that is the same on every replay.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return branch_of("perdure.uuid4").uuid4()


def info() -> Info:
    """What the code that is running can know of itself: run, workflow, step, attempt, idempotency key.

    Raises:
        NotInWorkflow: neither a workflow nor a step is running here.
    """
    step = step_info.get()
    branch = current.get()
    if branch is not None:
        run = branch.run
        return Info(
            run.id, run.definition.name, None, 1, f"{run.runtime.realm}-{run.key:x}", run.runtime.worker
        )
    if step is None:
        raise NotInWorkflow("perdure.info() only means something in a workflow or in a step that it called")
    return step


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
    workflow: AsyncStartable[P, R] | BlockingStartable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[object, None, Handle[R]]:
    """Start a run of a workflow of either colour, and return its handle.

    Args:
        workflow: the workflow, or what its `.options(...)` returned.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    if not isinstance(workflow, AsyncStartable | BlockingStartable):
        raise TypeError(f"perdure.start(...) takes a workflow, or its .options(...), not {workflow!r}")
    what, app = workflow.what(args, kwargs), current_app()
    return on_loop(lambda: started_handle(app, what, Handle), app, "perdure.sync.start")
