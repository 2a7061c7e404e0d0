"""Messages and updates, for async code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar, overload

from perdure.client import Operation, current_app, on_loop
from perdure.client.exchange import MISSING, asked, receiving, sending
from perdure.client.exchange import Request as _Request
from perdure.client.topics import Named, Topic, named, written
from perdure.context.branch import async_branch
from perdure.core.branch import Branch
from perdure.core.messages import Message
from perdure.models import Duration, seconds_of

T = TypeVar("T")
D = TypeVar("D")


@overload
def receive(topic: Topic[T], *, timeout: Duration | None = None) -> Coroutine[object, None, T]: ...
@overload
def receive(
    topic: Topic[T], *, timeout: Duration | None = None, default: D
) -> Coroutine[object, None, T | D]: ...
@overload
def receive(topic: str, *, type: type[T], timeout: Duration | None = None) -> Coroutine[object, None, T]: ...
@overload
def receive(
    topic: str, *, type: type[T], timeout: Duration | None = None, default: D
) -> Coroutine[object, None, T | D]: ...
@overload
def receive(
    topic: str, *, timeout: Duration | None = None, default: Any = MISSING
) -> Coroutine[object, None, Any]: ...
def receive(
    topic: Topic[Any] | str,
    *,
    type: Any = None,
    timeout: Duration | None = None,
    default: Any = MISSING,
) -> Coroutine[object, None, Any]:
    """Receive the next message of a topic: in the order in which they were sent, each exactly once.

    Args:
        topic: a `Topic`, or a name.
        type: of the message, if `topic` is a name; anything that JSON has, by default.
        timeout: seconds or `timedelta` to wait, counted from the first time this call is made; 0 only looks.
        default: what to return when the time is over, instead of raising.

    Raises:
        WaitTimeout: no message came in time.
        SerializationError: the message is no value of the type; it is consumed.
        NotInWorkflow: outside of a workflow's own code.
    """
    wanted, seconds = named(topic, type), wait_seconds(timeout)
    branch = async_branch("perdure.receive")
    return on_loop(lambda: receiving(branch, wanted, seconds, default), current_app())


def wait_seconds(timeout: Duration | None) -> float | None:
    """The seconds of a `timeout=`."""
    return None if timeout is None else seconds_of(timeout, "timeout=")


@overload
def send(
    id: str, topic: Topic[T], payload: T, *, key: str | None = None
) -> Coroutine[object, None, None]: ...
@overload
def send(id: str, topic: str, payload: Any, *, key: str | None = None) -> Coroutine[object, None, None]: ...
def send(
    id: str, topic: Topic[Any] | str, payload: Any, *, key: str | None = None
) -> Coroutine[object, None, None]:
    """Send a message to a run; from a workflow exactly once, from elsewhere once for each `key`.

    Args:
        id: of the run, which need not have begun.
        topic: a `Topic`, or a name.
        payload: of the topic's type.
        key: idempotency key: a second message of the same topic with it changes nothing.

    Raises:
        WorkflowNotFound: no run has this id.
        RunEnded: the run has ended.
        SerializationError: the payload is not of the topic's type.
    """
    message = message_of(id, topic, payload, key)
    app = current_app()
    return on_loop(lambda: sending(app, [message]), app, "perdure.sync.send")


def message_of(id: str, topic: Topic[Any] | str, payload: Any, key: str | None = None) -> Message:
    """A message as it is stored."""
    name, value = written(topic, payload)
    return Message(id, name, value, key)


def send_many(messages: Iterable[tuple[str, Topic[T] | str, T]]) -> Coroutine[object, None, None]:
    """Send messages to many runs in one commit: all of them or, if one cannot be sent, none.

    Args:
        messages: id, topic and payload of each, as `send` takes them.

    Raises:
        WorkflowNotFound: an id is unknown; from a workflow nothing was sent, from elsewhere all the others were.
        RunEnded: likewise for a run that has ended.
    """
    outgoing = [message_of(id, topic, payload) for id, topic, payload in messages]
    app = current_app()
    return on_loop(lambda: sending_many(app, outgoing), app, "perdure.sync.send_many")


def sending_many(app: Any, outgoing: list[Message]) -> Operation:
    """The operation behind `send_many`; nothing to send is no step."""
    if outgoing:
        yield from sending(app, outgoing)


class Request(_Request[T]):
    """An update that wants an answer: `reply` to it, or `reject` it.

    Attributes:
        payload: what is asked.
        id: of the update; asked again with the same id, it gets the same answer.
    """

    def reply(self, value: Any = None) -> Coroutine[object, None, None]:
        """Answer; remembered, and told to whoever asks with the same id."""
        return on_loop(lambda: self._reply(value), current_app())

    def reject(self, error: Exception) -> Coroutine[object, None, None]:
        """Answer with an error, which is raised where the update was asked for."""
        return on_loop(lambda: self._reject(error), current_app())


@overload
def updates(topic: Topic[T]) -> AsyncIterator[Request[T]]: ...
@overload
def updates(topic: str, *, type: type[T]) -> AsyncIterator[Request[T]]: ...
@overload
def updates(topic: str) -> AsyncIterator[Request[Any]]: ...
def updates(topic: Topic[Any] | str, *, type: Any = None) -> AsyncIterator[Request[Any]]:
    """The updates of this name that the run is asked for, one after the other; wait for each with `async for`.

    One whose payload is no value of the type is rejected at once. The loop ends with the run.

    Args:
        topic: name of the updates, or a `Topic`.
        type: of what is asked, if `topic` is a name.

    Example:
        async for request in perdure.updates("change address", type=Address):
            if request.payload.country != "NL":
                await request.reject(ValueError("we only deliver in the Netherlands"))
            else:
                await request.reply("changed")
    """
    return _updates(async_branch("perdure.updates"), named(topic, type))


async def _updates(branch: Branch, wanted: Named) -> AsyncIterator[Request[Any]]:
    while True:
        yield await on_loop(lambda: asked(branch, wanted, Request), current_app())
