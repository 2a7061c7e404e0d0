"""Handles for blocking code; `handles` has those for `async` code, and what both colours share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast, overload

from perdure.client.colours import blocking
from perdure.client.exchange import MISSING, reading
from perdure.client.handles import AnyHandle
from perdure.client.operations import Operation
from perdure.client.topics import Topic, named
from perdure.models import Discarded, Duration, EventInfo, Item, RunInfo, Status, StepInfo

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
D = TypeVar("D")


class BlockingHandle(AnyHandle[R_co]):
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

    def cancel(self, *, compensate: bool = True, reason: str | None = None) -> bool:
        """Ask the run to stop; False if it was too late for that. See `Handle.cancel`."""
        return cast("bool", self._now(lambda: self._cancel(compensate, reason)))

    @overload
    def send(self, topic: Topic[T], payload: T, *, key: str | None = None) -> None: ...
    @overload
    def send(self, topic: str, payload: Any, *, key: str | None = None) -> None: ...
    def send(self, topic: Topic[Any] | str, payload: Any, *, key: str | None = None) -> None:
        """Send the run a message; see `perdure.send`."""
        self._now(lambda: self._send(topic, payload, key))

    @overload
    def update(
        self,
        topic: Topic[T],
        payload: T,
        *,
        type: type[D],
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> D: ...
    @overload
    def update(
        self, topic: Topic[T], payload: T, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any: ...
    @overload
    def update(
        self,
        topic: str,
        payload: Any,
        *,
        type: type[D],
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> D: ...
    @overload
    def update(
        self, topic: str, payload: Any, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any: ...
    def update(
        self,
        topic: Topic[Any] | str,
        payload: Any,
        *,
        type: Any = None,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Ask the run for something and wait for its answer; see `Handle.update`."""
        return self._now(lambda: self._update(topic, payload, id, type, timeout))

    @overload
    def answer(self, type: type[D], timeout: Duration | None = None) -> D: ...
    @overload
    def answer(self, type: None = None, timeout: Duration | None = None) -> Any: ...
    def answer(self, type: Any = None, timeout: Duration | None = None) -> Any:
        """Wait for the answer to the update with which the run was started; see `Handle.answer`."""
        return self._now(self._answer(type, timeout))

    @overload
    def get_event(self, key: Topic[T], *, timeout: Duration | None = None) -> T: ...
    @overload
    def get_event(self, key: Topic[T], *, timeout: Duration | None = None, default: D) -> T | D: ...
    @overload
    def get_event(self, key: str, *, type: type[T], timeout: Duration | None = None) -> T: ...
    @overload
    def get_event(self, key: str, *, type: type[T], timeout: Duration | None = None, default: D) -> T | D: ...
    @overload
    def get_event(self, key: str, *, timeout: Duration | None = None, default: Any = MISSING) -> Any: ...
    def get_event(
        self,
        key: Topic[Any] | str,
        *,
        type: Any = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
    ) -> Any:
        """Return the last value of the run's event; wait until it is set. See `perdure.get_event`."""
        return self._now(lambda: self._get_event(key, type, timeout, default))

    @overload
    def stream(self, key: Topic[T], *, offset: int = 0) -> Iterator[Item[T] | Discarded]: ...
    @overload
    def stream(self, key: str, *, type: type[T], offset: int = 0) -> Iterator[Item[T] | Discarded]: ...
    @overload
    def stream(self, key: str, *, offset: int = 0) -> Iterator[Item[Any] | Discarded]: ...
    def stream(
        self, key: Topic[Any] | str, *, type: Any = None, offset: int = 0
    ) -> Iterator[Item[Any] | Discarded]:
        """Read the run's stream, as it is written; see `perdure.sync.read_stream`."""
        wanted = named(key, type)
        place: int | None = offset
        whose: list[int] = []
        while place is not None:
            at = place
            items, place = self._now(lambda: reading(self._app, self.id, wanted, at, whose))  # noqa: B023
            yield from items

    def events(self) -> tuple[EventInfo, ...]:
        """Every value of every event of the run, oldest first; not inside a workflow."""
        return cast("tuple[EventInfo, ...]", self._now(self._events))

    def _now(self, make: Callable[[], Operation]) -> Any:
        return blocking(
            lambda: self._operation(make),
            self._app,
            "the handle that `await perdure.start(...)` or `app.handle(id)` gives",
        )
