"""Streams and progress, for blocking code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, overload

from perdure.client import blocking, current_app
from perdure.client.exchange import beating, reading, writing
from perdure.client.topics import Topic, named, written
from perdure.models import Discarded, Item
from perdure.store.records import StreamKind

T = TypeVar("T")


@overload
def write_stream(key: Topic[T], value: T) -> None: ...
@overload
def write_stream(key: str, value: Any) -> None: ...
def write_stream(key: Topic[Any] | str, value: Any) -> None:
    """Write an item on a stream of the run; see `perdure.write_stream`."""
    name, stored = written(key, value)
    blocking(lambda: writing(name, stored), current_app())


def close_stream(key: Topic[Any] | str) -> None:
    """End a stream of the run; see `perdure.close_stream`."""
    name = named(key).name
    blocking(lambda: writing(name, b"null", StreamKind.END), current_app())


@overload
def read_stream(id: str, key: Topic[T], *, offset: int = 0) -> Iterator[Item[T] | Discarded]: ...
@overload
def read_stream(id: str, key: str, *, type: type[T], offset: int = 0) -> Iterator[Item[T] | Discarded]: ...
@overload
def read_stream(id: str, key: str, *, offset: int = 0) -> Iterator[Item[Any] | Discarded]: ...
def read_stream(
    id: str, key: Topic[Any] | str, *, type: Any = None, offset: int = 0
) -> Iterator[Item[Any] | Discarded]:
    """Read a run's stream, as it is written; see `perdure.read_stream`."""
    wanted, app = named(key, type), current_app()
    place: int | None = offset
    whose: list[int] = []
    while place is not None:
        at = place
        items, place = blocking(lambda: reading(app, id, wanted, at, whose), app)  # noqa: B023  (driven at once)
        yield from items


def heartbeat(details: Any) -> None:
    """Say that the body of a long step lives, and how far it is; see `perdure.heartbeat`."""
    beating(details)
