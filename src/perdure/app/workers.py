"""`app.workers`: the processes that work on the app's database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

from perdure.app.draining import LOOK_AGAIN, still_running, until_of
from perdure.arguments import count
from perdure.client import blocking, on_loop, read
from perdure.models import Duration, WorkerInfo
from perdure.store import workers as stored

if TYPE_CHECKING:
    from perdure.app.base import BaseApp
    from perdure.client import Operation


def _listing(app: BaseApp, gone: int) -> Operation:
    count(gone, "gone=")
    return read("workers.list", lambda: stored.list_workers(app.database, gone))


def _pausing(app: BaseApp, number: int, *, paused: bool) -> Operation:
    if type(number) is not int:
        raise TypeError(f"number must be that of a worker, as app.workers.list() tells it, not {number!r}")

    def pause() -> bool:
        known = stored.pause(app.database, number, paused=paused)
        app.engine.hints.cancel()  # which has every worker look again
        return known

    return read("workers.pause" if paused else "workers.resume", pause)


class Workers:
    """The workers of the app's database, on whatever machines."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self, *, gone: int = 0) -> Coroutine[object, None, list[WorkerInfo]]:
        """Workers that live, oldest first.

        Args:
            gone: add so many of those that have stopped or were declared dead, the last ones first.

        Raises:
            ValueError: `gone` is no whole number from 0 to 10,000.

        Example:
            for worker in await app.workers.list():
                print(worker.name, worker.queues, worker.running)
        """
        return on_loop(lambda: _listing(self._app, gone), self._app)

    async def pause(self, number: int) -> bool:
        """Have a worker take no more runs; those that it has go on. Whether there is one of this number.

        It hears of it at once, or at its next look, within two seconds. What is started in its process runs on other workers.
        """
        return bool(await on_loop(lambda: _pausing(self._app, number, paused=True), self._app))

    async def resume(self, number: int) -> bool:
        """Have a worker take runs again; whether there is one of this number."""
        return bool(await on_loop(lambda: _pausing(self._app, number, paused=False), self._app))

    async def drain(self, number: int, timeout: Duration | None = None) -> bool:  # noqa: ASYNC109
        """Pause a worker, and wait until it has no run; whether there is one of this number.

        Args:
            number: of the worker (`WorkerInfo.number`).
            timeout: seconds or `timedelta` to wait; for ever by default. The worker stays paused.

        Raises:
            WaitTimeout: it still has some.

        Example:
            for worker in await app.workers.list():
                if worker.host == "node-7":
                    await app.workers.drain(worker.number, timeout=600)
        """
        until = until_of(timeout)
        known = await self.pause(number)
        while _running(await self.list(), number, until):  # noqa: ASYNC110  (another process ends them)
            await asyncio.sleep(LOOK_AGAIN)
        return known


class BlockingWorkers:
    """The workers of the app's database; see `Workers`."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self, *, gone: int = 0) -> list[WorkerInfo]:
        """Workers that live, oldest first, and the last `gone` that have stopped or were declared dead."""
        return cast("list[WorkerInfo]", blocking(lambda: _listing(self._app, gone), self._app))

    def pause(self, number: int) -> bool:
        """Have a worker take no more runs; see `Workers.pause`."""
        return bool(blocking(lambda: _pausing(self._app, number, paused=True), self._app))

    def resume(self, number: int) -> bool:
        """Have a worker take runs again; whether there is one of this number."""
        return bool(blocking(lambda: _pausing(self._app, number, paused=False), self._app))

    def drain(self, number: int, timeout: Duration | None = None) -> bool:
        """Pause a worker, and wait until it has no run; see `Workers.drain`."""
        until = until_of(timeout)
        known = self.pause(number)
        while _running(self.list(), number, until):
            threading.Event().wait(LOOK_AGAIN)
        return known


def _running(workers: list[WorkerInfo], number: int, until: float | None) -> bool:
    running = sum(worker.running for worker in workers if worker.number == number)
    return still_running(running, until, f"worker {number} still has {running} runs; it is paused")
