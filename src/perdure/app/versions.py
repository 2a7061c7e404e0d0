"""`app.versions`: which versions of the code still have runs, and workers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

from perdure.client import blocking, on_loop, read
from perdure.models import VersionInfo
from perdure.store import runs as stored

if TYPE_CHECKING:
    from perdure.app.base import BaseApp
    from perdure.client import Operation


def _listing(app: BaseApp) -> Operation:
    return read("versions.list", lambda: stored.list_versions(app.database))


class Versions:
    """The versions of the code that have unfinished runs, or workers."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self) -> Coroutine[object, None, list[VersionInfo]]:
        """What still lives on each version; one without runs can be taken out of `accepts`, and its workers stopped.

        Example:
            for version in await app.versions.list():
                print(version.version, sum(version.runs.values()), version.workers)
        """
        return on_loop(lambda: _listing(self._app), self._app)


class BlockingVersions:
    """The versions of the code that have unfinished runs, or workers; see `Versions`."""

    def __init__(self, app: BaseApp) -> None:
        self._app = app

    def list(self) -> list[VersionInfo]:
        """What still lives on each version."""
        return cast("list[VersionInfo]", blocking(lambda: _listing(self._app), self._app))
