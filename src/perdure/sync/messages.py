"""Messages and updates, for blocking code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from perdure.client import blocking, current_app
from perdure.client.exchange import MISSING, asked, receiving, sending
from perdure.client.exchange import Request as _Request
from perdure.client.topics import Topic, named
from perdure.context.branch import blocking_branch
from perdure.context.messages import message_of, sending_many, wait_seconds
from perdure.models import Duration

T = TypeVar("T")
D = TypeVar("D")


@overload
def receive(topic: Topic[T], *, timeout: Duration | None = None) -> T: ...
@overload
def receive(topic: Topic[T], *, timeout: Duration | None = None, default: D) -> T | D: ...
@overload
def receive(topic: str, *, type: type[T], timeout: Duration | None = None) -> T: ...
@overload
def receive(topic: str, *, type: type[T], timeout: Duration | None = None, default: D) -> T | D: ...
@overload
def receive(topic: str, *, timeout: Duration | None = None, default: Any = MISSING) -> Any: ...
def receive(
    topic: Topic[Any] | str, *, type: Any = None, timeout: Duration | None = None, default: Any = MISSING
) -> Any:
    """Receive the next message of a topic; see `perdure.receive`."""
    wanted, seconds = named(topic, type), wait_seconds(timeout)
    branch = blocking_branch("perdure.sync.receive", "perdure.receive")
    return blocking(lambda: receiving(branch, wanted, seconds, default), current_app())


@overload
def send(id: str, topic: Topic[T], payload: T, *, key: str | None = None) -> None: ...
@overload
def send(id: str, topic: str, payload: Any, *, key: str | None = None) -> None: ...
def send(id: str, topic: Topic[Any] | str, payload: Any, *, key: str | None = None) -> None:
    """Send a message to a run; see `perdure.send`."""
    message, app = message_of(id, topic, payload, key), current_app()
    blocking(lambda: sending(app, [message]), app, "perdure.send")


def send_many(messages: Iterable[tuple[str, Topic[T] | str, T]]) -> None:
    """Send messages to many runs in one commit; see `perdure.send_many`."""
    outgoing, app = [message_of(id, topic, payload) for id, topic, payload in messages], current_app()
    blocking(lambda: sending_many(app, outgoing), app, "perdure.send_many")


class Request(_Request[T]):
    """An update that wants an answer: `reply` to it, or `reject` it; see `perdure.Request`."""

    def reply(self, value: Any = None) -> None:
        """Answer; remembered, and told to whoever asks with the same id."""
        blocking(lambda: self._reply(value), current_app())

    def reject(self, error: Exception) -> None:
        """Answer with an error, which is raised where the update was asked for."""
        blocking(lambda: self._reject(error), current_app())


@overload
def updates(topic: Topic[T]) -> Iterator[Request[T]]: ...
@overload
def updates(topic: str, *, type: type[T]) -> Iterator[Request[T]]: ...
@overload
def updates(topic: str) -> Iterator[Request[Any]]: ...
def updates(topic: Topic[Any] | str, *, type: Any = None) -> Iterator[Request[Any]]:
    """The updates of this name that the run is asked for, one after the other; see `perdure.updates`."""
    branch, wanted = blocking_branch("perdure.sync.updates", "perdure.updates"), named(topic, type)
    while True:
        yield blocking(lambda: asked(branch, wanted, Request), current_app())
