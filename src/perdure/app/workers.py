"""`app.workers`: the processes that work on the app's database."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

from perdure.arguments import count
from perdure.client import blocking, on_loop, read
from perdure.models import WorkerInfo
from perdure.store import workers as stored

if TYPE_CHECKING:
    from perdure.app.base import BaseApp
    from perdure.client import Operation


def _listing(app: BaseApp, gone: int) -> Operation:
    count(gone, "gone=")
    return read("workers.list", lambda: stored.list_workers(app.database, gone))


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


class BlockingWorkers:
    """The workers of the app's database; see `Workers`."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self, *, gone: int = 0) -> list[WorkerInfo]:
        """Workers that live, oldest first, and the last `gone` that have stopped or were declared dead."""
        return cast("list[WorkerInfo]", blocking(lambda: _listing(self._app, gone), self._app))
