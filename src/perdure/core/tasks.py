"""Tasks of workflow code: numbered as branches before they start, their steps counted, their end known."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, Protocol, cast
from zlib import crc32

from perdure.core.branch import Branch, current
from perdure.core.gate import Call
from perdure.core.run import Run


class TracingHost(Protocol):
    """What a traced task tells its host."""

    run: Run
    acts: int
    branches: set[Traced]

    def pump(self) -> None:
        """Look whether the run is quiet."""
        ...


def future_of(call: Call) -> asyncio.Future[Any]:
    """The future that the caller waits for (behind it, the body may wait for the gate)."""
    future: asyncio.Future[Any] = call.resume[0] if isinstance(call.resume, tuple) else call.resume
    return future


class BranchTask(asyncio.Task[Any]):
    """A branch's task, with a hash that is the same on every replay.

    asyncio hands out sets of tasks (`asyncio.wait`) and walks over its own (`TaskGroup`); in a set the order is that
    of the hashes, which are addresses by default. A task made by somebody else's factory keeps those.
    """

    def __init__(self, branch: Branch, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._hash = hash((branch.run.key, crc32(branch.path.encode())))  # before asyncio puts it into a set
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        """By the branch's path, not by address."""
        return self._hash


def forget_outcome(task: asyncio.Task[Any]) -> None:
    """Have asyncio not report how this task ended: its run was taken off the stack."""
    if not task.cancelled():
        task.exception()


class Traced(Coroutine[Any, Any, Any]):
    """A coroutine of a run's code: its steps are counted, and its end is known."""

    __slots__ = ("_coroutine", "_host", "path", "task", "waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], host: TracingHost, path: str = "") -> None:
        self._coroutine, self._host, self.path = coroutine, host, path
        self.task: asyncio.Task[Any] | None = None
        self.waits_for: Any = None
        host.branches.add(self)

    def send(self, value: Any) -> Any:
        """Step the code."""
        host = self._host
        host.acts += 1
        try:
            waits_for = self._coroutine.send(value)
        except BaseException:
            self._ended(host)
            raise
        self.waits_for = waits_for
        return waits_for

    def throw(self, *error: Any) -> Any:
        """Step the code with an error."""
        host = self._host
        host.acts += 1
        try:
            waits_for = self._coroutine.throw(*error)
        except BaseException:
            self._ended(host)
            raise
        self.waits_for = waits_for
        return waits_for

    def close(self) -> None:
        """Close the code."""
        self._ended(self._host)
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coroutine.__await__())

    def is_foreign(self, host: TracingHost) -> bool:
        """Whether the code waits for something that neither the gate nor the run's own tasks can bring."""
        future = self.waits_for
        if future is None or any(future_of(call) is future for call in host.run.gate.parked_calls()):
            return False
        if isinstance(future, asyncio.Task):
            return future not in {branch.task for branch in host.branches}
        return not hasattr(future, "_children")  # gather's own future: its children are tasks of the run

    def _ended(self, host: TracingHost) -> None:
        if self in host.branches:
            self.task = self.waits_for = None
            host.branches.discard(self)
            host.run.tasks = max(1, len(host.branches))
            if not host.run.gate.idle:
                host.pump()


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Have the tasks that workflow code creates on this loop numbered and traced; others pass through."""
    chained = loop.get_task_factory()
    if getattr(chained, "perdure", False):
        return

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        branch: Branch | None = current.get()
        if branch is None or branch.run.closed or not asyncio.iscoroutine(coroutine):
            return _create(chained, loop, coroutine, options)
        host: TracingHost = branch.run.host
        context = options.pop("context", None) or copy_context()
        fork = branch.fork()
        context.run(current.set, fork)
        traced = Traced(coroutine, host, fork.path)
        branch.run.tasks = len(host.branches)
        options["context"] = context
        if chained is None:
            traced.task = BranchTask(fork, traced, loop=loop, **options)
        else:
            traced.task = cast("asyncio.Task[Any]", chained(loop, traced, **options))
        return traced.task

    factory.perdure = True  # type: ignore[attr-defined]
    loop.set_task_factory(factory)


def _create(chained: Any, loop: asyncio.AbstractEventLoop, coroutine: Any, options: dict[str, Any]) -> Any:
    if chained is not None:
        return chained(loop, coroutine, **options)
    return asyncio.Task(coroutine, loop=loop, **options)
