"""Streams and progress, for async code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar, overload

from perdure.client import current_app, on_loop
from perdure.client.exchange import beating, reading, writing
from perdure.client.topics import Topic, named, written
from perdure.models import Discarded, Item
from perdure.store.records import StreamKind

T = TypeVar("T")


@overload
def write_stream(key: Topic[T], value: T) -> Coroutine[object, None, None]: ...
@overload
def write_stream(key: str, value: Any) -> Coroutine[object, None, None]: ...
def write_stream(key: Topic[Any] | str, value: Any) -> Coroutine[object, None, None]:
    """Write an item on a stream of the run: from a workflow exactly once, from the body of a step as it is made.

    A body's items can be read while it runs. They stay where its attempt fails or its worker dies, and are followed
    by a `Discarded`, since the next attempt writes its own.

    Args:
        key: name of the stream, or a `Topic`.
        value: of the topic's type.

    Raises:
        NotInWorkflow: neither a workflow nor a step is running here.
    """
    name, stored = written(key, value)
    return on_loop(lambda: writing(name, stored), current_app())


def close_stream(key: Topic[Any] | str) -> Coroutine[object, None, None]:
    """End a stream of the run: its readers stop. The end of the run ends it too."""
    name = named(key).name
    return on_loop(lambda: writing(name, b"null", StreamKind.END), current_app())


@overload
def read_stream(id: str, key: Topic[T], *, offset: int = 0) -> AsyncIterator[Item[T] | Discarded]: ...
@overload
def read_stream(
    id: str, key: str, *, type: type[T], offset: int = 0
) -> AsyncIterator[Item[T] | Discarded]: ...
@overload
def read_stream(id: str, key: str, *, offset: int = 0) -> AsyncIterator[Item[Any] | Discarded]: ...
async def read_stream(
    id: str, key: Topic[Any] | str, *, type: Any = None, offset: int = 0
) -> AsyncIterator[Item[Any] | Discarded]:
    """Read a run's stream, as it is written; in a workflow each item is remembered.

    Args:
        id: of the run.
        key: name of the stream, or a `Topic`.
        type: of the items, if `key` is a name.
        offset: where to begin: 0, or one more than the last `Item.offset` that was seen.

    Returns:
        An iterator of `Item(offset, value)` and `Discarded(from_offset)`; it ends with the stream, or its run.

    Raises:
        WorkflowNotFound: no run has this id.
    """
    wanted, app = named(key, type), current_app()
    place: int | None = offset
    whose: list[int] = []
    while place is not None:
        at = place
        items, place = await on_loop(lambda: reading(app, id, wanted, at, whose), app)  # noqa: B023  (driven at once)
        for item in items:
            yield item


async def heartbeat(details: Any) -> None:
    """Say that the body of a long step lives, and how far it is; its next attempt finds it in `info().heartbeat`.

    Args:
        details: anything that JSON has; small, since it is written each time.

    Raises:
        NotInWorkflow: outside of the body of a step that a workflow called.
    """
    beating(details)
