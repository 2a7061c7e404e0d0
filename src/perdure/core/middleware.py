"""Middleware: one seam around the start of runs, their code, and the bodies of their steps.

Its hooks are context managers, since those have no colour: the same middleware serves `async def` and `def` code. What
`start` puts into the context travels with the run, and with the runs that it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perdure.core.branch import current
from perdure.models import Info

if TYPE_CHECKING:
    from perdure.core.run import Run
    from perdure.core.runtime import Runtime


_NOTHING: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class StartInfo:
    """A run that is about to be started.

    Attributes:
        workflow: stored name of the workflow.
        id: the id that was given, or None.
        context: travels with the run; JSON, to be changed in place. Of a child it begins with its parent's.
    """

    workflow: str
    id: str | None
    context: dict[str, Any] = field(default_factory=dict)


class Middleware:
    """Base of the user's own: override what is needed, and give it to `Perdure(middleware=[...])`.

    Example:
        class Tenants(perdure.Middleware):
            def start(self, start):
                start.context.setdefault("tenant", tenant.get())

            @contextmanager
            def run(self, info, context):
                token = tenant.set(context["tenant"])
                try:
                    yield
                finally:
                    tenant.reset(token)

            step = run
    """

    def start(self, start: StartInfo) -> None:
        """Called before a run is started; raising refuses it. In a workflow every replay calls it again."""

    def run(self, info: Info, context: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Entered around the code of a workflow, on every replay too; it must be as deterministic as that."""
        return nullcontext()

    def step(self, info: Info, context: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Entered around each attempt of the body of a step, in the body's own context."""
        return nullcontext()


def context_of_start(runtime: Runtime, workflow: str, id: str | None) -> Mapping[str, Any]:
    """What is to travel with a run that is about to be started."""
    branch = current.get()
    inherited = branch.run.context if branch is not None else {}
    if not runtime.middleware:
        return inherited
    start = StartInfo(workflow, id, dict(inherited))
    for each in runtime.middleware:
        each.start(start)
    return start.context


def around_run(run: Run) -> AbstractContextManager[Any]:
    """All middleware around the code of a run."""
    if not run.runtime.middleware:
        return _NOTHING
    return _all([each.run for each in run.runtime.middleware], run.info(), run.context)


def around_step(
    run: Run, function: Callable[..., Any], info: Callable[[], Info], *, is_async: bool
) -> Callable[..., Any]:
    """A step's function with all middleware around it."""
    if not run.runtime.middleware:
        return function
    return partial(_called if is_async else _called_blocking, run, function, info)


async def _called(
    run: Run, function: Callable[..., Any], info: Callable[[], Info], *args: Any, **kwargs: Any
) -> Any:
    with _around_step(run, info()):
        return await function(*args, **kwargs)


def _called_blocking(
    run: Run, function: Callable[..., Any], info: Callable[[], Info], *args: Any, **kwargs: Any
) -> Any:
    with _around_step(run, info()):
        return function(*args, **kwargs)


def _around_step(run: Run, info: Info) -> AbstractContextManager[Any]:
    return _all([each.step for each in run.runtime.middleware], info, run.context)


@contextmanager
def _all(
    hooks: Sequence[Callable[[Info, Mapping[str, Any]], AbstractContextManager[Any]]],
    info: Info,
    context: Mapping[str, Any],
) -> Iterator[None]:
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook(info, context))
        yield
