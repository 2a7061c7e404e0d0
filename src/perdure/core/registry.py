"""Definitions: what the decorators found out about a function, and the one registry of them by name.

The name is what is stored, so it must not depend on how the program was started: a module run as
`__main__` is registered under the name it would be imported by.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from perdure.errors import DefinitionError
from perdure.policy import Retry
from perdure.schedules import Plan
from perdure.serial import Signature, check_text

Method = Literal["instance", "class"]
Isolation = Literal["read committed", "repeatable read", "serializable"]


@dataclass(slots=True, eq=False)
class Definition:
    """A decorated function."""

    name: str
    function: Callable[..., Any]
    signature: Signature
    method: Method | None = field(default=None, kw_only=True)
    """What its first argument is, if that is given by where it is looked up."""
    owner: type | None = field(default=None, kw_only=True)
    """The class that it is a method of."""

    @property
    def is_async(self) -> bool:
        """Whether the function is `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def place(self) -> str:
        """File and line of the function, for error texts."""
        code = getattr(self.function, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else "an unknown place"


@dataclass(slots=True, eq=False)
class StepDefinition(Definition):
    """A `@step`."""

    retry: Retry | None = None
    timeout: float | None = None
    at_most_once: bool = False
    compensate: Definition | None = None
    """What undoes it, given its result and its arguments: a step or a transaction."""
    colour: bool = field(init=False)

    def __post_init__(self) -> None:
        self.colour = self.is_async


@dataclass(slots=True, eq=False)
class TransactionDefinition(Definition):
    """A `@transaction`."""

    isolation: Isolation | None = None
    lock: Mapping[str, str] = field(default_factory=dict)
    retry: Retry | None = None
    colour: bool = field(init=False)

    def __post_init__(self) -> None:
        self.colour = self.is_async


@dataclass(slots=True, eq=False)
class WorkflowDefinition(Definition):
    """A `@workflow`."""

    timeout: float | None = None
    max_recoveries: int = 20
    colour: bool = field(init=False)

    def __post_init__(self) -> None:
        self.colour = self.is_async


@dataclass(frozen=True, slots=True, eq=False)
class ScheduleDefinition:
    """A `@scheduled`: of which workflow, and what makes its plan, once annotations can be resolved."""

    name: str
    workflow: WorkflowDefinition
    plan: Callable[[], Plan]


class Compensation(NamedTuple):
    """A call that undoes a step: what to call, and with which arguments, the step's result first."""

    definition: Definition
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


workflows: dict[str, WorkflowDefinition] = {}
"""Every workflow of the process by its stored name: the one registry."""

steps: dict[str, Definition] = {}
entities: dict[str, type] = {}
"""Classes of durable objects, by their stored names."""

schedules: dict[str, ScheduleDefinition] = {}
"""What `@scheduled` has declared, by name."""


def register(definition: Definition) -> None:
    """Add a definition.

    Raises:
        DefinitionError: another function has the name already.
    """
    table: dict[str, Any] = workflows if isinstance(definition, WorkflowDefinition) else steps
    known = table.get(definition.name)
    if known is not None and known.place != definition.place:
        raise DefinitionError(
            f"two functions are called {definition.name!r}: {known.place} and {definition.place}; "
            "give one of them another name with name=..."
        )
    table[definition.name] = definition


def register_schedule(definition: ScheduleDefinition) -> None:
    """Add the declaration of a schedule.

    Raises:
        DefinitionError: another has the name already.
    """
    known = schedules.get(definition.name)
    if known is not None and known.workflow is definition.workflow:
        raise DefinitionError(
            f"{definition.workflow.name} has two schedules called {definition.name!r}: give them names with name=..."
        )
    if known is not None and known.workflow.place != definition.workflow.place:
        raise DefinitionError(
            f"two schedules are called {definition.name!r}: at {known.workflow.place} and {definition.workflow.place}"
        )
    schedules[definition.name] = definition


def name_of(function: Callable[..., Any], name: str | None) -> str:
    """The stored name of a function: the one given, or module and qualified name."""
    if name is not None:
        return check_text(name, "name=")
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        if spec is not None and spec.name:
            module = spec.name.removesuffix(".__main__")
        elif getattr(main, "__file__", None):
            module = Path(str(main.__file__)).stem
    return f"{module}.{function.__qualname__}"
