"""`Perdure`, for async code and for blocking code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

from perdure.app.base import BaseApp
from perdure.app.blocking_runs import BlockingRuns
from perdure.app.queues import BlockingQueues, Queues
from perdure.app.runs import Runs
from perdure.app.schedules import BlockingSchedules, Schedules
from perdure.app.versions import BlockingVersions, Versions
from perdure.app.workers import BlockingWorkers, Workers
from perdure.client import (
    BlockingHandle,
    Handle,
    blocking,
    call_to_start,
    many_handles,
    on_loop,
    options_of,
    result_payload,
    started_handle,
)
from perdure.declare.workflows import Bound, Options
from perdure.errors import PerdureError
from perdure.serial import check_text

R = TypeVar("R")


class Perdure(BaseApp):
    """An app for async code: `async with Perdure(...) as app:`. `BaseApp` says what its arguments are."""

    blocking = False

    @property
    def runs(self) -> Runs:
        """The runs in the app's database."""
        return Runs(self)

    @property
    def queues(self) -> Queues:
        """Queues: what is in them, and their limits, which can be changed live."""
        return Queues(self)

    @property
    def schedules(self) -> Schedules:
        """What runs by itself, at times."""
        return Schedules(self)

    @property
    def workers(self) -> Workers:
        """The processes that work on the app's database."""
        return Workers(self)

    @property
    def versions(self) -> Versions:
        """Which versions of the code still have runs, and workers."""
        return Versions(self)

    async def open(self) -> Self:
        """Connect, migrate, and begin to work; `async with` does it.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
            SchemaMismatch: the schema does not fit this version of perdure.
        """
        loop = (asyncio.get_running_loop(), threading.get_ident())
        await asyncio.to_thread(self._open, loop)
        return self

    async def close(self) -> None:
        """Finish what can be finished within `grace`, hand the rest over, and stop; `async with` does it."""
        if self._engine is None:
            return
        engine = self._engine
        await asyncio.to_thread(engine.drain)
        await engine.pools.close_async()
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def start(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Coroutine[object, None, Handle[Any]]:
        """Start a workflow by its stored name, whose code need not be here; see `AsyncWorkflow.options`."""
        what = call_to_start(self, name, args, kwargs or {}, options_of(options))
        return on_loop(lambda: started_handle(self, what, Handle), self)

    @overload
    def start_many(
        self, starts: Iterable[Bound[R]], *, return_errors: Literal[False] = False
    ) -> Coroutine[object, None, list[Handle[R]]]: ...
    @overload
    def start_many(
        self, starts: Iterable[Bound[R]], *, return_errors: Literal[True]
    ) -> Coroutine[object, None, list[Handle[R] | PerdureError]]: ...
    def start_many(
        self, starts: Iterable[Bound[Any]], *, return_errors: bool = False
    ) -> Coroutine[object, None, list[Any]]:
        """Start many runs at once; they share commits. Return a handle for each, in their order.

        Args:
            starts: what `workflow.bind(...)` or `workflow.options(...).bind(...)` return.
            return_errors: put the error of a start that failed in its place; else the first is raised, and the others are
                started all the same.

        Raises:
            WorkflowConflict: an id is taken, by another workflow or against `on_conflict`.
            DatabaseUnavailable: whether one was started is not known.

        Example:
            handles = await app.start_many(ship.options(id=f"ship-{order.id}").bind(order) for order in orders)
        """
        wanted = [bound.what for bound in starts]
        return on_loop(lambda: many_handles(self, wanted, Handle, return_errors=return_errors), self)

    def handle(self, id: str) -> Handle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return Handle(self, check_text(id, "id of a run"), result_payload(None))


class BlockingPerdure(BaseApp):
    """An app for blocking code: `with Perdure(...) as app:`. `BaseApp` says what its arguments are."""

    blocking = True

    @property
    def runs(self) -> BlockingRuns:
        """The runs in the app's database."""
        return BlockingRuns(self)

    @property
    def queues(self) -> BlockingQueues:
        """Queues: what is in them, and their limits, which can be changed live."""
        return BlockingQueues(self)

    @property
    def schedules(self) -> BlockingSchedules:
        """What runs by itself, at times."""
        return BlockingSchedules(self)

    @property
    def workers(self) -> BlockingWorkers:
        """The processes that work on the app's database."""
        return BlockingWorkers(self)

    @property
    def versions(self) -> BlockingVersions:
        """Which versions of the code still have runs, and workers."""
        return BlockingVersions(self)

    def open(self) -> Self:
        """Connect, migrate, and begin to work; `with` does it. Raises as `perdure.Perdure.open` does."""
        self._open(None)
        return self

    def close(self) -> None:
        """Finish what can be finished within `grace`, hand the rest over, and stop; `with` does it."""
        if self._engine is None:
            return
        engine = self._engine
        engine.drain()
        if engine.pools.has_async():
            engine.loops.call(engine.pools.close_async, (), {})
        self._close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> BlockingHandle[Any]:
        """Start a workflow by its stored name, whose code need not be here; see `AsyncWorkflow.options`."""
        what = call_to_start(self, name, args, kwargs or {}, options_of(options))
        handle: BlockingHandle[Any] = blocking(lambda: started_handle(self, what, BlockingHandle), self)
        return handle

    @overload
    def start_many(
        self, starts: Iterable[Bound[R]], *, return_errors: Literal[False] = False
    ) -> list[BlockingHandle[R]]: ...
    @overload
    def start_many(
        self, starts: Iterable[Bound[R]], *, return_errors: Literal[True]
    ) -> list[BlockingHandle[R] | PerdureError]: ...
    def start_many(self, starts: Iterable[Bound[Any]], *, return_errors: bool = False) -> list[Any]:
        """Start many runs at once; they share commits. See `Perdure.start_many`."""
        wanted = [bound.what for bound in starts]
        started = blocking(
            lambda: many_handles(self, wanted, BlockingHandle, return_errors=return_errors), self
        )
        return cast("list[Any]", started)

    def handle(self, id: str) -> BlockingHandle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return BlockingHandle(self, check_text(id, "id of a run"), result_payload(None))
