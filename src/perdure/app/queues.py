"""`app.queues`: look at queues, and change them live."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from perdure.app.draining import LOOK_AGAIN, still_running, until_of
from perdure.client import blocking, on_loop
from perdure.models import Duration
from perdure.queues import QueueInfo, limits_of

if TYPE_CHECKING:
    from perdure.app.base import BaseApp


class Queues:
    """The queues of an app's database, for async code. Changes hold for all workers, from their next claim on."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    async def list(self) -> list[QueueInfo]:
        """Every queue that was declared or changed, is served by a worker, or has unfinished runs."""
        return list(await on_loop(lambda: self._app.queues_operation(None), self._app))

    async def get(self, name: str) -> QueueInfo | None:
        """One queue, or None if nothing is known of it."""
        return _first(await on_loop(lambda: self._app.queues_operation([name]), self._app))

    async def set(self, name: str, **limits: Any) -> None:
        """Change limits of a queue, those given; None takes one away. See `Queue` for their names.

        Raises:
            TypeError: there is no such limit.
            ValueError: a limit has a value that it cannot have.

        Example:
            await app.queues.set("mail", concurrency=5, rate=Rate(100, per=60))
        """
        await on_loop(lambda: self._app.queue_operation(name, limits_of(**limits)), self._app)

    async def pause(self, name: str) -> None:
        """Begin no more runs of a queue; those that have begun go on."""
        await on_loop(lambda: self._app.queue_operation(name, {"paused": True}), self._app)

    async def resume(self, name: str) -> None:
        """Begin runs of a queue again."""
        await on_loop(lambda: self._app.queue_operation(name, {"paused": False}), self._app)

    async def drain(self, name: str, timeout: Duration | None = None) -> None:  # noqa: ASYNC109
        """Pause a queue, and wait until none of its runs is running; those that wait durably are not waited for.

        Args:
            name: of the queue.
            timeout: seconds or `timedelta` to wait; for ever by default. The queue stays paused.

        Raises:
            WaitTimeout: some still run.
        """
        until = until_of(timeout)
        await self.pause(name)
        while _running(await self.get(name), name, until):  # noqa: ASYNC110  (other processes end runs too)
            await asyncio.sleep(LOOK_AGAIN)

    async def delete(self, name: str) -> bool:
        """Forget a queue's limits; whether there were any. Its runs stay, and are served without limits."""
        return bool(await on_loop(lambda: self._app.forget_queue_operation(name), self._app))


class BlockingQueues:
    """The queues of an app's database, for blocking code; see `Queues`."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self) -> list[QueueInfo]:
        """Every queue that was declared or changed, is served by a worker, or has unfinished runs."""
        return list(blocking(lambda: self._app.queues_operation(None), self._app))

    def get(self, name: str) -> QueueInfo | None:
        """One queue, or None if nothing is known of it."""
        return _first(blocking(lambda: self._app.queues_operation([name]), self._app))

    def set(self, name: str, **limits: Any) -> None:
        """Change limits of a queue; see `Queues.set`."""
        blocking(lambda: self._app.queue_operation(name, limits_of(**limits)), self._app)

    def pause(self, name: str) -> None:
        """Begin no more runs of a queue; those that have begun go on."""
        blocking(lambda: self._app.queue_operation(name, {"paused": True}), self._app)

    def resume(self, name: str) -> None:
        """Begin runs of a queue again."""
        blocking(lambda: self._app.queue_operation(name, {"paused": False}), self._app)

    def drain(self, name: str, timeout: Duration | None = None) -> None:
        """Pause a queue, and wait until none of its runs is running; see `Queues.drain`."""
        until = until_of(timeout)
        self.pause(name)
        while _running(self.get(name), name, until):
            threading.Event().wait(LOOK_AGAIN)

    def delete(self, name: str) -> bool:
        """Forget a queue's limits; whether there were any."""
        return bool(blocking(lambda: self._app.forget_queue_operation(name), self._app))


def _first(found: Any) -> QueueInfo | None:
    return found[0] if found else None


def _running(queue: QueueInfo | None, name: str, until: float | None) -> bool:
    running = queue.running if queue is not None else 0
    return still_running(running, until, f"{running} runs of queue {name!r} still run; it is paused")
