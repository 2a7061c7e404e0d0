"""`Perdure`, for async code and for blocking code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Self, Unpack

from perdure.app.base import BaseApp
from perdure.app.blocking_runs import BlockingRuns
from perdure.app.runs import Runs
from perdure.app.versions import BlockingVersions, Versions
from perdure.client import (
    BlockingHandle,
    Handle,
    blocking,
    call_to_start,
    on_loop,
    options_of,
    result_payload,
    started_handle,
)
from perdure.declare.workflows import Options


class Perdure(BaseApp):
    """An app for async code: `async with Perdure(...) as app:`. `BaseApp` says what its arguments are."""

    blocking = False

    @property
    def runs(self) -> Runs:
        """The runs in the app's database."""
        return Runs(self)

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

    def handle(self, id: str) -> Handle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return Handle(self, id, result_payload(None))


class BlockingPerdure(BaseApp):
    """An app for blocking code: `with Perdure(...) as app:`. `BaseApp` says what its arguments are."""

    blocking = True

    @property
    def runs(self) -> BlockingRuns:
        """The runs in the app's database."""
        return BlockingRuns(self)

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

    def handle(self, id: str) -> BlockingHandle[Any]:
        """A handle of the run with this id, of whatever workflow."""
        return BlockingHandle(self, id, result_payload(None))
