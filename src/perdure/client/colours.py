"""The two ways to drive an operation, and the error for the wrong one."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from perdure.client.current import App
from perdure.client.operations import Operation
from perdure.core.branch import current
from perdure.core.drive import drive, drive_blocking
from perdure.errors import WrongColour


def on_loop(
    make: Callable[[], Operation], app: App, instead: str = "the handle of perdure.sync"
) -> Coroutine[object, None, Any]:
    """Return the coroutine that drives an operation on the event loop; inside a workflow, as its code.

    Args:
        make: makes the operation when the coroutine runs, since its branch is that of the task it runs in.
        app: with which it is done outside of a workflow.
        instead: what to write in a blocking workflow, for the error.

    Raises:
        WrongColour: in a blocking workflow, which could not await it; at once, in the line that is wrong.
    """
    branch = current.get()
    if branch is not None and not branch.run.definition.colour:
        raise WrongColour(f"an async call in a blocking workflow does nothing: use {instead} ({where()})")
    return _on_loop(make, app)


async def _on_loop(make: Callable[[], Operation], app: App) -> Any:
    branch = current.get()
    if branch is None:
        return await drive(make(), app.runtime)
    return await drive(make(), branch.run.runtime, branch.run.host)


def blocking(make: Callable[[], Operation], app: App, instead: str = "its async form") -> Any:
    """Drive an operation in this thread; inside a workflow, as its code.

    Args:
        make: makes the operation.
        app: with which it is done outside of a workflow.
        instead: what to write in an async workflow, for the error.

    Raises:
        WrongColour: in an async workflow, whose event loop it would stop.
    """
    branch = current.get()
    if branch is None:
        if app.on_its_loop():
            raise WrongColour(
                f"a blocking call on the event loop that runs the app's workflows would stop it: await the async form, "
                f"or call it by asyncio.to_thread ({where()})"
            )
        return drive_blocking(make(), app.runtime)
    if branch.run.definition.colour:
        raise WrongColour(
            f"a blocking call in an async workflow would stop its event loop: use {instead} ({where()})"
        )
    return drive_blocking(make(), branch.run.runtime, branch.run.host)


def where() -> str:
    """File, line and text of the nearest frame that is not perdure's."""
    frame = sys._getframe(1)  # noqa: SLF001  (the cheapest way to a line, and in every CPython)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("perdure."):
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: {line}"
