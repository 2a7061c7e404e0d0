"""Handles: a run as its starter sees it, in two colours."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from perdure.client.colours import blocking, on_loop
from perdure.client.current import App
from perdure.client.operations import (
    Operation,
    act,
    describe,
    detail,
    found,
    read,
    result_payload,
    starting,
    wait_for_result,
)
from perdure.core.effects import Use
from perdure.core.starting import Start, Started
from perdure.models import CancelReason, Duration, RunInfo, Status, StepInfo
from perdure.serial import Payload

R_co = TypeVar("R_co", covariant=True)
H = TypeVar("H", bound="_Handle[Any]")


class _Handle(Generic[R_co]):
    """What both colours of handle have."""

    def __init__(self, app: App, id: str, result: Payload, started: Started | None = None) -> None:
        self._app, self.id, self._result = app, id, result
        self._key = started.key if started else None
        self.created = started.created if started else False
        """Whether this start made the run; False: it was there, and the start attached to it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def _wait(self, timeout: Duration | None) -> Operation:
        if self._key is None:
            self._key, _ = yield Use(lambda: found(self._app, self.id))
        result = yield from wait_for_result(self._app, self._key, self.id, self._result, timeout)
        return result

    def _status(self) -> Operation:
        status = yield from read("status", lambda: str(describe(self._app, self.id).status), Payload.of(str))
        return Status(status)

    def _describe(self) -> Operation:
        return read("describe", lambda: describe(self._app, self.id))

    def _steps(self) -> Operation:
        return read("steps", lambda: detail(self._app, self.id).steps)

    def _cancel(self) -> Operation:
        def cancel() -> bool:
            return bool(act(self._app, self.id, lambda keys: self._app.cancel_runs(keys, CancelReason.ASKED)))

        return read("cancel", cancel, Payload.of(bool))


class Handle(_Handle[R_co]):
    """A run, for `async` code.

    Attributes:
        id: the run's id.
        created: whether this start made it, or found it there.
    """

    def result(self, timeout: Duration | None = None) -> Coroutine[object, None, R_co]:
        """Wait for the run's end and return its result.

        Args:
            timeout: seconds or `timedelta` after which to stop waiting; the run goes on.

        Raises:
            WaitTimeout: it took longer.
            WorkflowFailed: it failed with an error whose class is not known here; else that error itself.
            WorkflowCancelled: it was cancelled.
            WorkflowTimeout: it did not finish within its own timeout.
            WorkflowParked: perdure gave it up; the text says why.
        """
        return on_loop(lambda: self._wait(timeout), self._app)

    def status(self) -> Coroutine[object, None, Status]:
        """Where the run stands."""
        return on_loop(self._status, self._app)

    def describe(self) -> Coroutine[object, None, RunInfo]:
        """What is known of the run at this moment; not inside a workflow."""
        return on_loop(self._describe, self._app)

    def steps(self) -> Coroutine[object, None, tuple[StepInfo, ...]]:
        """What the run's code has been told, in order; not inside a workflow."""
        return on_loop(self._steps, self._app)

    def cancel(self) -> Coroutine[object, None, bool]:
        """Ask the run to stop; False if it was too late for that."""
        return on_loop(self._cancel, self._app)


class BlockingHandle(_Handle[R_co]):
    """A run, for blocking code; see `Handle`."""

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result; see `Handle.result`."""
        return cast("R_co", self._now(lambda: self._wait(timeout)))

    def status(self) -> Status:
        """Where the run stands."""
        return cast("Status", self._now(self._status))

    def describe(self) -> RunInfo:
        """What is known of the run at this moment; not inside a workflow."""
        return cast("RunInfo", self._now(self._describe))

    def steps(self) -> tuple[StepInfo, ...]:
        """What the run's code has been told, in order; not inside a workflow."""
        return cast("tuple[StepInfo, ...]", self._now(self._steps))

    def cancel(self) -> bool:
        """Ask the run to stop; False if it was too late for that."""
        return cast("bool", self._now(self._cancel))

    def _now(self, make: Callable[[], Operation]) -> Any:
        return blocking(
            make, self._app, "the handle that `await perdure.start(...)` or `app.handle(id)` gives"
        )


def started_handle(app: App, what: Start, kind: type[H]) -> Operation:
    """The operation that starts a run and returns its handle, of the colour asked for."""
    started: Started = yield from starting(app, what)
    return kind(app, started.id, result_payload(what.definition), started)
