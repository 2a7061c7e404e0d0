"""A workflow called like a function: its start and its result in one."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.client import App, current_app, new_id, result_of, result_payload, wait_for_result
from perdure.core.branch import Branch
from perdure.core.drive import Operation, drive, drive_blocking
from perdure.core.runtime import Runtime
from perdure.core.starting import Start, begin, confirmed, start_child
from perdure.errors import Cancelled


async def called(what: Start) -> Any:
    """Start a run from outside and wait for its result."""
    app = current_app()
    runtime = app.runtime
    return await drive(_direct_call(app, runtime, what), runtime)


def called_blocking(what: Start) -> Any:
    """The same, in this thread, which would only wait otherwise."""
    app = current_app()
    runtime = app.runtime
    return drive_blocking(_direct_call(app, runtime, what, here=True), runtime)


def _direct_call(app: App, runtime: Runtime, what: Start, *, here: bool = False) -> Operation:
    """The operation that starts a run and waits for its result.

    Args:
        app: with which it is called.
        runtime: the app's.
        what: what to start.
        here: run its code in this thread, which would only wait otherwise.
    """
    beginning = begin(runtime, what, new_id())
    started = yield from confirmed(runtime, what, beginning)
    run = beginning.run if started.created else None
    signal = runtime.end_of(started.key)
    if run is not None and here:
        runtime.execute(run)
    elif run is not None:
        runtime.launch(run, beginning.ticket)
    try:
        yield signal
    finally:
        app.unwatch(started.key, signal)
    if signal.error is not None:
        raise signal.error
    return result_of(signal.value, started.id, result_payload(what.definition), runtime.exceptions)


def child_call(branch: Branch, what: Start) -> Operation:
    """Start a child and wait for its result; cancelling the branch that waits cancels the child."""
    app = current_app()
    started = yield from start_child(branch, what)
    try:
        waiting = wait_for_result(app, started.key, started.id, result_payload(what.definition), None)
        return (yield from waiting)
    except BaseException as error:
        if is_cancel(error) and not branch.run.closed:
            branch.run.runtime.request_cancel(started.key)
        raise


def is_cancel(error: BaseException) -> bool:
    """Whether an error is the order to stop, of either colour."""
    return isinstance(error, asyncio.CancelledError | Cancelled)
