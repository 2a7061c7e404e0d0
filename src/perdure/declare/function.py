"""What every decorated function has in common."""

from __future__ import annotations

import inspect
from typing import Any, Generic, ParamSpec, TypeVar

from perdure.core.registry import Definition
from perdure.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")


class Decorated(Generic[P, R]):
    """A decorated function: keeps its name, docs and signature."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.__wrapped__ = definition.function
        self.__name__ = definition.function.__name__
        self.__qualname__ = definition.function.__qualname__
        self.__module__ = definition.function.__module__
        self.__doc__ = definition.function.__doc__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.definition.name}>"


def check_function(function: Any, decorator: str) -> None:
    """Refuse what cannot be decorated.

    Raises:
        DefinitionError: it is no plain function.
    """
    if not inspect.isfunction(function):
        raise DefinitionError(f"{decorator} decorates a function, not {function!r}")
    first = next(iter(inspect.signature(function).parameters), None)
    if first in ("self", "cls"):
        raise DefinitionError(
            f"{decorator}: {function.__qualname__} is a method, which cannot be durable yet: make it a function"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{decorator}: {function.__qualname__} is a generator, which cannot be durable")
