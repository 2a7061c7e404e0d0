"""Handles: a run as its starter sees it, in two colours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, overload

from perdure.client.borrowed import committed, start_on_connection
from perdure.client.choosing import Command
from perdure.client.colours import on_loop
from perdure.client.current import App
from perdure.client.exchange import (
    MISSING,
    answering,
    getting,
    listing,
    new_update,
    reading,
    sending,
    update_letter,
    updating,
)
from perdure.client.managing import cancelling
from perdure.client.operations import (
    Operation,
    describe,
    detail,
    explained,
    found,
    read,
    result_payload,
    starting,
    starting_many,
    wait_for_result,
)
from perdure.client.topics import Topic, named, written
from perdure.core.effects import Use
from perdure.core.messages import Message
from perdure.core.starting import Start, Started
from perdure.errors import PerdureError
from perdure.models import Discarded, Duration, EventInfo, Item, RunInfo, Status, StepInfo
from perdure.serial import Payload

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
D = TypeVar("D")
H = TypeVar("H", bound="AnyHandle[Any]")


class AnyHandle(Generic[R_co]):
    """What both colours of handle have."""

    def __init__(
        self,
        app: App,
        id: str,
        result: Payload,
        started: Started | None = None,
        update: str | None = None,
        connection: Any = None,
    ) -> None:
        self._app, self.id, self._result = app, id, result
        self._update_id = update
        self._connection = connection  # on which it was started, until it is seen to be committed
        self._key = started.key if started else None
        self.created = started.created if started else False
        """Whether this start made the run; False: it was there, and the start attached to it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def _operation(self, make: Callable[[], Operation]) -> Operation:
        """What is done with the run: first see that it is committed, if it was started on a connection."""
        if self._connection is not None and self._key is not None:
            yield from committed(self._app, self._key, self.id, self._connection)
            self._connection = None
        return (yield from make())

    def _wait(self, timeout: Duration | None) -> Operation:
        if self._key is None:
            self._key, _ = yield Use(lambda: found(self._app, self.id))
        result = yield from wait_for_result(self._app, self._key, self.id, self._result, timeout)
        return result

    def _status(self) -> Operation:
        status = yield from read("status", lambda: str(describe(self._app, self.id).status), Payload.of(str))
        return Status(status)

    def _describe(self) -> Operation:
        return read("describe", lambda: explained(self._app, self.id))

    def _steps(self) -> Operation:
        return read("steps", lambda: detail(self._app, self.id).steps)

    def _send(self, topic: Topic[Any] | str, payload: Any, key: str | None) -> Operation:
        return sending(self._app, [Message(self.id, *written(topic, payload), key)])

    def _update(
        self, topic: Topic[Any] | str, payload: Any, id: str | None, type: Any, timeout: Duration | None
    ) -> Operation:
        answer = Payload.of(Any if type is None else type)
        return updating(self._app, self.id, written(topic, payload), id, answer, timeout)

    def _answer(self, type: Any, timeout: Duration | None) -> Callable[[], Operation]:
        update, known = self._update_id, self._key
        if update is None:
            raise PerdureError(
                f"the run {self.id} was not started by start_with_update(...) with this handle, so there is no answer to "
                "wait for: ask by update(...), with the id of the update, if it was asked before"
            )
        answer = Payload.of(Any if type is None else type)
        return lambda: answering(self._app, self.id, update, answer, timeout, known)

    def _get_event(
        self, key: Topic[Any] | str, type: Any, timeout: Duration | None, default: Any
    ) -> Operation:
        return getting(self._app, self.id, named(key, type), timeout, default)

    def _events(self) -> Operation:
        return listing(self._app, self.id)

    def _cancel(self, compensate: bool, reason: str | None) -> Operation:
        reached = yield from cancelling(self._app, Command(self.id, reason), compensate=compensate)
        return bool(reached)


class Handle(AnyHandle[R_co]):
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
        return self._soon(lambda: self._wait(timeout))

    def status(self) -> Coroutine[object, None, Status]:
        """Where the run stands."""
        return self._soon(self._status)

    def describe(self) -> Coroutine[object, None, RunInfo]:
        """What is known of the run at this moment; not inside a workflow."""
        return self._soon(self._describe)

    def steps(self) -> Coroutine[object, None, tuple[StepInfo, ...]]:
        """What the run's code has been told, in order; not inside a workflow."""
        return self._soon(self._steps)

    def cancel(self, *, compensate: bool = True, reason: str | None = None) -> Coroutine[object, None, bool]:
        """Ask the run to stop; False if it was too late for that.

        Args:
            compensate: let its code clean up and what undoes its steps run. False stops it at once: no more of its
                code is run, beyond the durable call that it is in.
            reason: for the audit.
        """
        return self._soon(lambda: self._cancel(compensate, reason))

    @overload
    def send(
        self, topic: Topic[T], payload: T, *, key: str | None = None
    ) -> Coroutine[object, None, None]: ...
    @overload
    def send(self, topic: str, payload: Any, *, key: str | None = None) -> Coroutine[object, None, None]: ...
    def send(
        self, topic: Topic[Any] | str, payload: Any, *, key: str | None = None
    ) -> Coroutine[object, None, None]:
        """Send the run a message; see `perdure.send`."""
        return self._soon(lambda: self._send(topic, payload, key))

    @overload
    def update(
        self,
        topic: Topic[T],
        payload: T,
        *,
        type: type[D],
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[object, None, D]: ...
    @overload
    def update(
        self, topic: Topic[T], payload: T, *, id: str | None = None, timeout: Duration | None = None
    ) -> Coroutine[object, None, Any]: ...
    @overload
    def update(
        self,
        topic: str,
        payload: Any,
        *,
        type: type[D],
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[object, None, D]: ...
    @overload
    def update(
        self, topic: str, payload: Any, *, id: str | None = None, timeout: Duration | None = None
    ) -> Coroutine[object, None, Any]: ...
    def update(
        self,
        topic: Topic[Any] | str,
        payload: Any,
        *,
        type: Any = None,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[object, None, Any]:
        """Ask the run for something and wait for its answer, which it gives in `perdure.updates`.

        Args:
            topic: name of the update, or a `Topic`.
            payload: what is asked.
            type: of the answer; anything that JSON has, by default.
            id: of the update: asked again with it, the run sees it once, and the answer is the same.
            timeout: seconds or `timedelta` to wait for the answer; the update stays with the run.

        Raises:
            WorkflowNotFound: no run has this id.
            RunEnded: the run ended without an answer.
            WaitTimeout: it took longer.
            Exception: whatever the run rejected it with.
        """
        return self._soon(lambda: self._update(topic, payload, id, type, timeout))

    @overload
    def answer(self, type: type[D], timeout: Duration | None = None) -> Coroutine[object, None, D]: ...
    @overload
    def answer(self, type: None = None, timeout: Duration | None = None) -> Coroutine[object, None, Any]: ...
    def answer(self, type: Any = None, timeout: Duration | None = None) -> Coroutine[object, None, Any]:
        """Wait for the answer to the update with which the run was started, by `start_with_update`.

        Args:
            type: of the answer; anything that JSON has, by default.
            timeout: seconds or `timedelta` to wait; the update stays with the run, and can be waited for again.

        Raises:
            PerdureError: the handle is not one that `start_with_update` made.
            RunEnded: the run ended without an answer.
            WaitTimeout: it took longer.
            Exception: whatever the run rejected it with.
        """
        return on_loop(self._answer(type, timeout), self._app)

    @overload
    def get_event(self, key: Topic[T], *, timeout: Duration | None = None) -> Coroutine[object, None, T]: ...
    @overload
    def get_event(
        self, key: Topic[T], *, timeout: Duration | None = None, default: D
    ) -> Coroutine[object, None, T | D]: ...
    @overload
    def get_event(
        self, key: str, *, type: type[T], timeout: Duration | None = None
    ) -> Coroutine[object, None, T]: ...
    @overload
    def get_event(
        self, key: str, *, type: type[T], timeout: Duration | None = None, default: D
    ) -> Coroutine[object, None, T | D]: ...
    @overload
    def get_event(
        self, key: str, *, timeout: Duration | None = None, default: Any = MISSING
    ) -> Coroutine[object, None, Any]: ...
    def get_event(
        self,
        key: Topic[Any] | str,
        *,
        type: Any = None,
        timeout: Duration | None = None,
        default: Any = MISSING,
    ) -> Coroutine[object, None, Any]:
        """Return the last value of the run's event; wait until it is set. See `perdure.get_event`."""
        return self._soon(lambda: self._get_event(key, type, timeout, default))

    @overload
    def stream(self, key: Topic[T], *, offset: int = 0) -> AsyncIterator[Item[T] | Discarded]: ...
    @overload
    def stream(self, key: str, *, type: type[T], offset: int = 0) -> AsyncIterator[Item[T] | Discarded]: ...
    @overload
    def stream(self, key: str, *, offset: int = 0) -> AsyncIterator[Item[Any] | Discarded]: ...
    async def stream(
        self, key: Topic[Any] | str, *, type: Any = None, offset: int = 0
    ) -> AsyncIterator[Item[Any] | Discarded]:
        """Read the run's stream, as it is written; see `perdure.read_stream`."""
        wanted = named(key, type)
        place: int | None = offset
        whose: list[int] = []
        while place is not None:
            at = place
            items, place = await self._soon(lambda: reading(self._app, self.id, wanted, at, whose))  # noqa: B023
            for item in items:
                yield item

    def events(self) -> Coroutine[object, None, tuple[EventInfo, ...]]:
        """Every value of every event of the run, oldest first; not inside a workflow."""
        return self._soon(self._events)

    def _soon(self, make: Callable[[], Operation]) -> Coroutine[object, None, Any]:
        return on_loop(lambda: self._operation(make), self._app)


def started_handle(app: App, what: Start, kind: type[H]) -> Operation:
    """The operation that starts a run and returns its handle, of the colour asked for."""
    connection = what.options.connection
    if connection is None:
        started: Started = yield from starting(app, what)
    else:
        started = yield from start_on_connection(app, what, blocking=not issubclass(kind, Handle))
    return kind(app, started.id, result_payload(what.definition), started, connection=connection)


def many_handles(app: App, starts: Sequence[Start], kind: type[H], *, return_errors: bool) -> Operation:
    """The operation that starts many runs and returns a handle of each, or, where wanted, its error."""
    if any(what.options.connection is not None for what in starts):
        raise PerdureError("connection= is for one start at a time")
    answers = yield from starting_many(app, starts)
    for answer in answers:
        if isinstance(answer, Exception) and not return_errors:
            raise answer
    return [
        answer
        if isinstance(answer, Exception)
        else kind(app, answer.id, result_payload(what.definition), answer)
        for what, answer in zip(starts, answers, strict=True)
    ]


def asked_handle(
    app: App, what: Start, request: tuple[str, bytes], update: str | None, kind: type[H]
) -> Operation:
    """As `started_handle`, of a run that is asked for an update in the same commit; once for each update id."""
    update = update or new_update()
    what = replace(what, update=(*update_letter(*request, update), update))
    started: Started = yield from starting(app, what)
    return kind(app, started.id, result_payload(what.definition), started, update)
