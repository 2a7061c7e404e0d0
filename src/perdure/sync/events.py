"""Events, for blocking code."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from perdure.client import blocking, current_app
from perdure.client.exchange import MISSING, getting
from perdure.client.topics import Topic, named, written
from perdure.context.branch import blocking_branch
from perdure.core.branch import current
from perdure.core.events import set_event as set_event_operation
from perdure.models import Duration

T = TypeVar("T")
D = TypeVar("D")


@overload
def set_event(key: Topic[T], value: T) -> None: ...
@overload
def set_event(key: str, value: Any) -> None: ...
def set_event(key: Topic[Any] | str, value: Any) -> None:
    """Make a value known under a name; see `perdure.set_event`."""
    branch = blocking_branch("perdure.sync.set_event", "perdure.set_event")
    name, stored = written(key, value)
    blocking(lambda: set_event_operation(current.get() or branch, name, stored), current_app())


@overload
def get_event(id: str, key: Topic[T], *, timeout: Duration | None = None) -> T: ...
@overload
def get_event(id: str, key: Topic[T], *, timeout: Duration | None = None, default: D) -> T | D: ...
@overload
def get_event(id: str, key: str, *, type: type[T], timeout: Duration | None = None) -> T: ...
@overload
def get_event(id: str, key: str, *, type: type[T], timeout: Duration | None = None, default: D) -> T | D: ...
@overload
def get_event(id: str, key: str, *, timeout: Duration | None = None, default: Any = MISSING) -> Any: ...
def get_event(
    id: str,
    key: Topic[Any] | str,
    *,
    type: Any = None,
    timeout: Duration | None = None,
    default: Any = MISSING,
) -> Any:
    """Return the last value of a run's event; wait until it is set. See `perdure.get_event`."""
    wanted, app = named(key, type), current_app()
    return blocking(lambda: getting(app, id, wanted, timeout, default), app, "perdure.get_event")
