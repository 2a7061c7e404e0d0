"""`@step` and `@transaction`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, get_args, overload

import psycopg

from perdure.client import current_app, where
from perdure.core.branch import Branch, current
from perdure.core.drive import drive, drive_blocking
from perdure.core.registry import (
    Definition,
    Isolation,
    StepDefinition,
    TransactionDefinition,
    name_of,
    register,
)
from perdure.core.steps import step as step_operation
from perdure.core.transactions import plain_transaction
from perdure.core.transactions import transaction as transaction_operation
from perdure.declare.function import Decorated, unwrapped
from perdure.errors import DefinitionError, WrongColour
from perdure.models import Duration, seconds_of
from perdure.policy import Retry
from perdure.serial import Signature
from perdure.store.session import LOCK_MODES

AsyncConnection = psycopg.AsyncConnection[Any]
"""What an `async def` `@transaction` gets first: psycopg's connection, inside an open transaction."""
Connection = psycopg.Connection[Any]
"""What a `def` `@transaction` gets first: psycopg's connection, inside an open transaction."""

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class AsyncStep(Decorated[P, R]):
    """An `async def` step or transaction. Outside a workflow it is a plain call."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: AsyncStep[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> AsyncStep[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The step as a method of an instance or a class."""
        return self.bound_to(instance, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Call it: remembered, inside a workflow."""
        self.definition.signature.bind(args, kwargs)
        branch = current.get()
        if branch is not None and not branch.run.definition.colour:
            raise WrongColour(
                f"{self.__qualname__} is async: in a blocking workflow call it by perdure.sync.run_step ({where()})"
            )
        return cast("Coroutine[object, None, R]", self.named(self._call(self.received(args), kwargs)))

    async def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        branch = current.get()
        if branch is not None:
            operation = operation_of(branch, self.definition, args, kwargs)
            return cast("R", await drive(operation, branch.run.runtime, branch.run.host))
        if isinstance(self.definition, TransactionDefinition):
            operation = plain_transaction(current_app().runtime, self.definition, args, kwargs)
            return cast("R", await drive(operation, current_app().runtime))
        return cast("R", await self.definition.function(*args, **kwargs))


class BlockingStep(Decorated[P, R]):
    """A `def` step or transaction. Outside a workflow it is a plain call."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: BlockingStep[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> BlockingStep[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The step as a method of an instance or a class."""
        return self.bound_to(instance, owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it: remembered, inside a workflow."""
        self.definition.signature.bind(args, kwargs)
        branch, given = current.get(), self.received(args)
        if branch is not None:
            if branch.run.definition.colour:
                raise WrongColour(
                    f"{self.__qualname__} is blocking: in an async workflow write `await perdure.run_step("
                    f"{self.__qualname__}, ...)`, which runs it in a thread ({where()})"
                )
            operation = operation_of(branch, self.definition, given, kwargs)
            return cast("R", drive_blocking(operation, branch.run.runtime, branch.run.host))
        if isinstance(self.definition, TransactionDefinition):
            operation = plain_transaction(current_app().runtime, self.definition, given, kwargs)
            return cast("R", drive_blocking(operation, current_app().runtime))
        return cast("R", self.definition.function(*given, **kwargs))


def operation_of(
    branch: Branch, definition: Definition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The operation of calling a step or a transaction from a workflow."""
    if isinstance(definition, TransactionDefinition):
        return transaction_operation(branch, definition, args, kwargs)
    return step_operation(branch, cast("StepDefinition", definition), args, kwargs)


class _StepDecorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> BlockingStep[P, R]: ...


@overload
def step(function: classmethod[Any, P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
@overload
def step(function: classmethod[Any, P, R], /) -> BlockingStep[P, R]: ...
@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
@overload
def step(function: Callable[P, R], /) -> BlockingStep[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    at_most_once: bool = False,
    compensate: Callable[..., Any] | None = None,
) -> _StepDecorator: ...
def step(
    function: Any = None,  # a function, a classmethod or a staticmethod
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    at_most_once: bool = False,
    compensate: Callable[..., Any] | None = None,
) -> Any:
    """Make a function a step: called from a workflow, it runs at least once, and its result is remembered.

    Args:
        function: what is decorated.
        name: stored name; module and qualified name by default.
        retry: how often and when to try again; not at all by default.
        timeout: seconds or `timedelta` for one attempt. An attempt of a `def` step cannot be interrupted: it has
            failed after `timeout`, and is not retried while its thread still runs.
        at_most_once: after a crash inside it the step raises `OutcomeUnknown` instead of running again. What its
            body raises is its outcome: it takes no `retry`.
        compensate: a function, step or transaction that undoes it: if the run ends failed or cancelled it is called
            with the step's result and its arguments, newest step first, each once remembered. Where nobody knows
            whether the step took effect (it was interrupted, or ran out of time) its first argument is an
            `OutcomeUnknown`. A plain function is tried five times.

    Raises:
        DefinitionError: it is no plain function, or its name is taken.

    Example:
        @step(retry=Retry(max_attempts=5))
        async def charge(order: Order) -> Payment: ...
    """

    def decorate(function: Any) -> Any:
        function, method = unwrapped(function, "@step")
        if at_most_once and retry is not None:
            raise DefinitionError(
                f"@step: {function.__qualname__} cannot have at_most_once=True and retry=: an attempt that raised "
                "may have taken effect"
            )
        seconds = None if timeout is None else seconds_of(timeout, "@step(timeout=...)")
        definition = StepDefinition(
            name_of(function, name),
            function,
            Signature(function, skip=1 if method else 0),
            method=method,
            retry=retry,
            timeout=seconds,
            at_most_once=at_most_once,
            compensate=None if compensate is None else _compensation(compensate),
        )
        register(definition)
        return AsyncStep(definition) if definition.colour else BlockingStep(definition)

    return decorate if function is None else decorate(function)


def _compensation(function: Callable[..., Any]) -> Definition:
    """What undoes a step, as a definition: a step of its own, unless it is one."""
    if isinstance(function, AsyncStep | BlockingStep):
        return function.definition
    function, method = unwrapped(function, "@step(compensate=...)")
    signature = Signature(function, skip=1 if method else 0)
    return StepDefinition(
        name_of(function, None), function, signature, method=method, retry=Retry(max_attempts=5)
    )


class _TransactionDecorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, R]], /
    ) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Connection, P], R], /) -> BlockingStep[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, AsyncConnection, P], Coroutine[Any, Any, R]], /
    ) -> AsyncStep[Concatenate[S, P], R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, Connection, P], R], /
    ) -> BlockingStep[Concatenate[S, P], R]: ...


@overload
def transaction(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, R]], /
) -> AsyncStep[P, R]: ...
@overload
def transaction(function: Callable[Concatenate[Connection, P], R], /) -> BlockingStep[P, R]: ...  # type: ignore[overload-overlap]
@overload
def transaction(
    function: Callable[Concatenate[S, AsyncConnection, P], Coroutine[Any, Any, R]], /
) -> AsyncStep[Concatenate[S, P], R]: ...
@overload
def transaction(
    function: Callable[Concatenate[S, Connection, P], R], /
) -> BlockingStep[Concatenate[S, P], R]: ...
@overload
def transaction(
    *,
    name: str | None = None,
    isolation: Isolation | None = None,
    lock: Mapping[str, str] | None = None,
    retry: Retry | None = None,
) -> _TransactionDecorator: ...
def transaction(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    isolation: Isolation | None = None,
    lock: Mapping[str, str] | None = None,
    retry: Retry | None = None,
) -> Any:
    """Make a function a transaction step: what it writes and its record commit together, exactly once.

    The function's first argument is a connection inside an open transaction of the app's database.
    `commit()` and `rollback()` on it raise; `conn.transaction()` is a savepoint. Serialization failures and
    deadlocks are retried. Anything else that the function does, outside of the database, may happen again.

    Args:
        function: what is decorated.
        name: stored name; module and qualified name by default.
        isolation: "read committed", "repeatable read" or "serializable"; the database's default else.
        lock: table locks to take first, table to mode, such as {"stock": "share row exclusive"}.
        retry: how often and when to try again after other errors; not at all by default.

    Raises:
        DefinitionError: it is no plain function, takes no connection, or a lock mode does not exist.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function, method = unwrapped(function, "@transaction")
        if len(inspect.signature(function).parameters) < (2 if method else 1):
            raise DefinitionError(
                f"@transaction: the first argument of {function.__qualname__} (after `self`) is the connection"
            )
        if isolation is not None and isolation not in get_args(Isolation):
            choices = ", ".join(map(repr, get_args(Isolation)))
            raise DefinitionError(f"@transaction(isolation=...): {isolation!r} is none of {choices}")
        for table, mode in (lock or {}).items():
            if mode.lower() not in LOCK_MODES:
                raise DefinitionError(
                    f"@transaction(lock=...): {mode!r} for {table!r} is no lock mode of Postgres"
                )
        definition = TransactionDefinition(
            name_of(function, name),
            function,
            Signature(function, skip=2 if method else 1),
            method=method,
            isolation=isolation,
            lock=dict(lock or {}),
            retry=retry,
        )
        register(definition)
        return AsyncStep(definition) if definition.colour else BlockingStep(definition)

    return decorate if function is None else decorate(function)
