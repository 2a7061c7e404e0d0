"""A workflow called like a function: its start and its result in one."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.client import current_app, new_id, result_of, result_payload, wait_for_result
from perdure.core.branch import Branch
from perdure.core.starting import Start, begin, confirmed, start_child
from perdure.errors import Cancelled


def direct_call(what: Start, *, here: bool = False) -> Any:
    """Start a run from outside and wait for its result.

    Args:
        what: what to start.
        here: run its code in this thread, which would only wait otherwise.
    """
    app = current_app()
    runtime = app.runtime
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


def child_call(branch: Branch, what: Start) -> Any:
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
