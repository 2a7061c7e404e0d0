"""Events, for async code."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, overload

from perdure.client import current_app, on_loop
from perdure.client.exchange import MISSING, getting
from perdure.client.topics import Topic, named, written
from perdure.context.branch import async_branch
from perdure.core.branch import current
from perdure.core.events import set_event as set_event_operation
from perdure.models import Duration

T = TypeVar("T")
D = TypeVar("D")


@overload
def set_event(key: Topic[T], value: T) -> Coroutine[object, None, None]: ...
@overload
def set_event(key: str, value: Any) -> Coroutine[object, None, None]: ...
def set_event(key: Topic[Any] | str, value: Any) -> Coroutine[object, None, None]:
    """Make a value known under a name: to whoever asks, also after the run has ended. Earlier values stay as history.

    Args:
        key: a name, or a `Topic`.
        value: of the topic's type.

    Raises:
        NotInWorkflow: outside of a workflow's own code.
        SerializationError: the value is not of the topic's type.
    """
    branch, (name, stored) = async_branch("perdure.set_event"), written(key, value)
    return on_loop(lambda: set_event_operation(current.get() or branch, name, stored), current_app())


@overload
def get_event(id: str, key: Topic[T], *, timeout: Duration | None = None) -> Coroutine[object, None, T]: ...
@overload
def get_event(
    id: str, key: Topic[T], *, timeout: Duration | None = None, default: D
) -> Coroutine[object, None, T | D]: ...
@overload
def get_event(
    id: str, key: str, *, type: type[T], timeout: Duration | None = None
) -> Coroutine[object, None, T]: ...
@overload
def get_event(
    id: str, key: str, *, type: type[T], timeout: Duration | None = None, default: D
) -> Coroutine[object, None, T | D]: ...
@overload
def get_event(
    id: str, key: str, *, timeout: Duration | None = None, default: Any = MISSING
) -> Coroutine[object, None, Any]: ...
def get_event(
    id: str,
    key: Topic[Any] | str,
    *,
    type: Any = None,
    timeout: Duration | None = None,
    default: Any = MISSING,
) -> Coroutine[object, None, Any]:
    """Return the last value of a run's event; wait until it is set.

    Args:
        id: of the run.
        key: the event's name, or a `Topic`.
        type: of the value, if `key` is a name; anything that JSON has, by default.
        timeout: seconds or `timedelta` to wait; 0 only looks.
        default: what to return when the time is over, instead of raising.

    Raises:
        WorkflowNotFound: no run has this id.
        RunEnded: the run has ended without setting it.
        WaitTimeout: it was not set in time.
    """
    wanted, app = named(key, type), current_app()
    return on_loop(lambda: getting(app, id, wanted, timeout, default), app, "perdure.sync.get_event")
