"""What every decorated function has in common."""

from __future__ import annotations

import copy
import inspect
from typing import Any, Generic, ParamSpec, Self, TypeVar

from perdure.core.registry import Definition, Method
from perdure.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")


class Decorated(Generic[P, R]):
    """A decorated function: keeps its name, docs and signature. In a class it is a method like others."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.receiver: tuple[Any, ...] = ()
        """The instance or class on which it was looked up."""
        self.__wrapped__ = definition.function
        self.__name__ = definition.function.__name__
        self.__qualname__ = definition.function.__qualname__
        self.__module__ = definition.function.__module__
        self.__doc__ = definition.function.__doc__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.definition.name}>"

    def __set_name__(self, owner: type, name: str) -> None:
        if self.definition.method is not None:
            self.definition.owner = owner

    def bound_to(self, instance: object | None, owner: type | None) -> Self:
        """The method as it is seen on an instance or on a class."""
        method = self.definition.method
        if method is None or (method == "instance" and instance is None):
            return self
        bound = copy.copy(self)
        bound.receiver = (instance if method == "instance" else owner or type(instance),)
        return bound

    def named(self, coroutine: Any) -> Any:
        """Give a coroutine the function's name, which Python says if nobody awaits it."""
        coroutine.__name__, coroutine.__qualname__ = self.__name__, self.__qualname__
        return coroutine

    def received(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments as the function takes them, what it was looked up on first.

        Raises:
            TypeError: it is a method, and was not looked up on an instance.
        """
        if self.definition.method is not None and not self.receiver:
            raise TypeError(f"{self.__qualname__} is a method: call it on an instance")
        return (*self.receiver, *args)


def unwrapped(function: Any, decorator: str) -> tuple[Any, Method | None]:
    """The function that is decorated, and what kind of method it is.

    Raises:
        DefinitionError: it cannot be decorated.
    """
    method: Method | None = None
    if isinstance(function, staticmethod | classmethod):
        method = "class" if isinstance(function, classmethod) else None
        function = function.__func__
    if not inspect.isfunction(function):
        raise DefinitionError(f"{decorator} decorates a function, not {function!r}")
    first = next(iter(inspect.signature(function).parameters), None)
    if first == "cls" and method is None:
        raise DefinitionError(
            f"{decorator}: {function.__qualname__} looks like a class method: write {decorator} above @classmethod"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{decorator}: {function.__qualname__} is a generator, which cannot be durable")
    return function, "instance" if first == "self" and method is None else method
