"""Handles: a run as its starter sees it, in two colours."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from perdure.client.colours import blocking, on_loop
from perdure.client.current import App
from perdure.client.operations import Operation, act, describe, detail, found, read, wait_for_result
from perdure.core.effects import Use
from perdure.core.starting import Started
from perdure.models import CancelReason, Duration, RunInfo, Status, StepInfo
from perdure.serial import Payload

R_co = TypeVar("R_co", covariant=True)


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
        return read("status", lambda: str(describe(self._app, self.id).status), Payload.of(str))

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

    async def result(self, timeout: Duration | None = None) -> R_co:  # noqa: ASYNC109  (durable inside a workflow)
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
        return cast("R_co", await on_loop(self._wait(timeout), self._app))

    async def status(self) -> Status:
        """Where the run stands."""
        return Status(await on_loop(self._status(), self._app))

    async def describe(self) -> RunInfo:
        """What is known of the run at this moment."""
        return cast(
            "RunInfo", await on_loop(read("describe", lambda: describe(self._app, self.id)), self._app)
        )

    async def steps(self) -> tuple[StepInfo, ...]:
        """What the run's code has been told, in order."""
        return cast(
            "tuple[StepInfo, ...]",
            await on_loop(read("steps", lambda: detail(self._app, self.id).steps), self._app),
        )

    async def cancel(self) -> bool:
        """Ask the run to stop; False if it was too late for that."""
        return cast("bool", await on_loop(self._cancel(), self._app))


class BlockingHandle(_Handle[R_co]):
    """A run, for blocking code; see `Handle`."""

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result; see `Handle.result`."""
        return cast("R_co", blocking(self._wait(timeout), self._app))

    def status(self) -> Status:
        """Where the run stands."""
        return Status(blocking(self._status(), self._app))

    def describe(self) -> RunInfo:
        """What is known of the run at this moment."""
        return cast("RunInfo", blocking(read("describe", lambda: describe(self._app, self.id)), self._app))

    def steps(self) -> tuple[StepInfo, ...]:
        """What the run's code has been told, in order."""
        return cast(
            "tuple[StepInfo, ...]",
            blocking(read("steps", lambda: detail(self._app, self.id).steps), self._app),
        )

    def cancel(self) -> bool:
        """Ask the run to stop; False if it was too late for that."""
        return cast("bool", blocking(self._cancel(), self._app))
