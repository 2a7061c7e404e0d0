"""Which app a call is made with: the run's own, the bound one, or the only open one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from perdure.core.entities import applying
from perdure.core.runtime import Runtime
from perdure.errors import NoCurrentApp, PerdureError
from perdure.models import CancelReason
from perdure.store.database import Database
from perdure.store.operations import Note


class App(Protocol):
    """What the operations need of an open app."""

    name: str
    blocking: bool
    pid: int

    @property
    def runtime(self) -> Runtime:
        """The owner of new runs."""
        ...

    @property
    def database(self) -> Database:
        """The app's database."""
        ...

    def cancel_runs(self, keys: Sequence[int], reason: CancelReason, note: Note | None = None) -> list[int]:
        """Cancel runs; return the keys of those reached."""
        ...

    def changed(self) -> None:
        """Runs were changed by hand: there may be work, and ends."""
        ...

    def rescheduled(self) -> None:
        """Schedules were changed, or triggered: there may be ticks, and work."""
        ...

    def on_its_loop(self) -> bool:
        """Whether this thread is the one of the loop on which the app's async code runs."""
        ...

    def unwatch(self, key: int, signal: Any) -> None:
        """Nobody waits for the end of this run with this signal any more."""
        ...


open_apps: list[App] = []
"""The apps that are open in this process."""

bound_app: ContextVar[App | None] = ContextVar("perdure_app", default=None)


def current_app() -> App:
    """The app that a call is made with: the run's own, else the bound one, else the only open one.

    Raises:
        NoCurrentApp: there is none, or there are several.
        PerdureError: a command asks.
    """
    if (name := applying.get()) is not None:
        raise PerdureError(f"{name} is a command: a plain function of its object, which cannot call perdure")
    app = bound_app.get()
    if app is None:
        if len(open_apps) != 1:
            names = ", ".join(repr(app.name) for app in open_apps)
            raise NoCurrentApp(
                f"several apps are open ({names}): say which with `with app.bind():`"
                if names
                else "no app is open: `async with Perdure(...):` or `with perdure.sync.Perdure(...):` opens one"
            )
        app = open_apps[0]
    return app  # which checks its process itself, whatever it is asked for


def check_process(app: App) -> None:
    """Refuse an app that was opened in another process, whose threads and connections are not here."""
    if app.pid != os.getpid():
        raise PerdureError(
            f"app {app.name!r} was opened in process {app.pid} and cannot be used after fork(): open one in each "
            "process (gunicorn: in post_fork)"
        )
