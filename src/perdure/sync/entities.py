"""Durable objects, for blocking code."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from perdure.client import blocking, current_app
from perdure.declare.entities import Entity, EntityCommand, check_key, looking
from perdure.models import CommandInfo, Duration, seconds_of

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)


def call(command: EntityCommand[P, R], key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Carry out a command on a durable object: `perdure.sync.call(Account.withdraw, "alice", amount)`."""
    make = command.prepared(key, args, kwargs)
    return cast("R", blocking(make, current_app(), f"`await` {command!r}"))


def get(entity: type[E], key: str) -> E:
    """A durable object as it is now; see `perdure.Entity.get`."""
    make = lambda: looking(entity.__entity__, check_key(key), None, None)  # noqa: E731
    return cast("E", blocking(make, current_app(), f"`await {entity.__name__}.get(...)`"))


def history(entity: type[Entity], key: str, limit: int = 100) -> tuple[CommandInfo, ...]:
    """The last commands that a durable object has carried out; see `perdure.Entity.history`."""
    make = entity.looking_back(check_key(key), limit)
    found = blocking(make, current_app(), f"`await {entity.__name__}.history(...)`")
    return cast("tuple[CommandInfo, ...]", found)


def when(entity: type[E], key: str, condition: Callable[[E], bool], *, timeout: Duration | None = None) -> E:
    """Wait until a condition holds for a durable object; see `perdure.Entity.when`."""
    seconds = None if timeout is None else seconds_of(timeout, "timeout=")
    make = lambda: looking(entity.__entity__, check_key(key), condition, seconds)  # noqa: E731
    return cast("E", blocking(make, current_app(), f"`await {entity.__name__}.when(...)`"))
