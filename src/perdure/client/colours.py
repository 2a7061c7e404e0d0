"""The two ways to drive an operation, and the error for the wrong one."""

from __future__ import annotations

import linecache
import sys
from typing import Any

from perdure.client.current import App
from perdure.client.operations import Operation
from perdure.core.drive import drive, drive_blocking
from perdure.core.run import current
from perdure.errors import WrongColour


def on_loop(operation: Operation, app: App) -> Any:
    """Drive an operation on the event loop; inside a workflow, as its code."""
    branch = current.get()
    if branch is None:
        return drive(operation, app.runtime)
    if not branch.run.definition.colour:
        operation.close()
        raise WrongColour(f"an async call in a blocking workflow; use perdure.sync ({where()})")
    return drive(operation, branch.run.runtime, branch.run.host)


def blocking(operation: Operation, app: App) -> Any:
    """Drive an operation in this thread; inside a workflow, as its code."""
    branch = current.get()
    if branch is None:
        return drive_blocking(operation, app.runtime)
    if branch.run.definition.colour:
        operation.close()
        raise WrongColour(f"a blocking call in an async workflow would stop its event loop ({where()})")
    return drive_blocking(operation, branch.run.runtime, branch.run.host)


def where() -> str:
    """File, line and text of the nearest frame that is not perdure's."""
    frame = sys._getframe(1)  # noqa: SLF001  (the cheapest way to a line, and in every CPython)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("perdure."):
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: {line}"
