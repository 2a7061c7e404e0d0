"""Durable objects: what a command is, and how it is given from a workflow.

A command is a plain function of the object's state. It runs in the process that gives it, under the lock of the
object's row, and its effect commits together with the step that gives it: exactly once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from perdure.core.branch import Branch
from perdure.core.effects import Await, Use
from perdure.core.gate import Call, Told
from perdure.core.recorded import group_for, recorded
from perdure.core.registry import entities
from perdure.core.runtime import Runtime
from perdure.core.steps import failure
from perdure.errors import DefinitionError, SerializationError, WaitTimeout
from perdure.models import Kind
from perdure.serial import Payload, Signature, check_size, decode_failure, encode_failure
from perdure.store.entities import Applied, CommandRecord, Place
from perdure.store.records import StepRecord, Ticket

applying: ContextVar[str | None] = ContextVar("perdure_applying", default=None)
"""The command that this thread carries out, if it does."""
telling: ContextVar[list[Order] | None] = ContextVar("perdure_telling", default=None)
"""What the command that this thread carries out has told other objects to do."""
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True, eq=False)
class CommandDefinition:
    """A method of a durable object that changes it."""

    name: str
    function: Callable[..., Any]
    signature: Signature


@dataclass(frozen=True, slots=True, eq=False)
class EntityDefinition:
    """A class of durable objects: its stored name, and how its state is stored."""

    name: str
    type: type

    @property
    def payload(self) -> Payload:
        """The codec of the state."""
        return Payload.of(self.type)

    def read(self, state: bytes | None) -> Any:
        """The object of a stored state; a new one where there is none.

        Raises:
            DefinitionError: a new one cannot be made without arguments.
        """
        if state is not None:
            entity = self.payload.decode(state)
            for field in fields(self.type) if is_dataclass(self.type) else ():
                # What the state lacks is only on the class so far, and would not be stored with the rest.
                object.__setattr__(entity, field.name, getattr(entity, field.name))
            return entity
        try:
            return self.type()
        except TypeError as error:
            raise DefinitionError(
                f"{self.name} has to be made without arguments, before its first command: give each field a default "
                f"({error})"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A command to be given: to which object, what, and with which arguments, as they are stored."""

    entity: EntityDefinition
    command: CommandDefinition
    key: str
    args: bytes

    @property
    def place(self) -> Place:
        """Type and key of the object."""
        return self.entity.name, self.key

    def apply(self, state: bytes | None) -> Applied:
        """Run the command on a stored state; what raises leaves the object as it was."""
        told: list[Order] = []
        token, list_token = applying.set(self.command.name), telling.set(told)
        try:
            entity = self.entity.read(state)
            args, kwargs = self.command.signature.decode_call(self.args)
            result = self.command.function(entity, *args, **kwargs)
            value = check_size(self.command.signature.result.encode(result), what="the result")
            changed = check_size(self.entity.payload.encode(entity), what=f"the state of {self.entity.name}")
            if _NUL.search(changed):
                raise SerializationError(f"the state of {self.entity.name} holds a NUL character")
        except BaseException as error:  # whatever it is, it is the command's own: the lane goes on
            return Applied(None, True, encode_failure(error))
        finally:
            applying.reset(token)
            telling.reset(list_token)
        tells = tuple((each.place, each.command.name, each.args, each.apply) for each in told)
        return Applied(changed, False, value, tells)


def order_of(type: str, key: str, command: str, args: bytes) -> Order | None:
    """A command that was stored by name; None where its code is not here."""
    owner: Any = entities.get(type)
    found = getattr(owner, command.removeprefix(f"{type}."), None)
    return None if found is None else found.order(key, args)


def give(branch: Branch, order: Order) -> Generator[Any, Any, Any]:
    """Give a command from a workflow."""
    run, result = branch.run, order.command.signature.result

    def produce(call: Call) -> Generator[Any, Any, Told]:
        group = yield from group_for(call, run)
        yield from run.barrier()
        step = StepRecord(run.key, call.position, group, 0, call.kind, call.name, False, b"null")
        id = f"!{run.key:x}/{call.position}"  # no caller's own id begins so
        record = CommandRecord(run.key, order.place, id, order.command.name, order.args, order.apply, step)
        ticket = run.pending = Ticket(record)
        run.runtime.command(ticket)
        calling, run.calling = (
            run.calling,
            False,
        )  # it cannot be called back: a cancel comes with the next call
        try:
            yield ticket
        finally:
            run.calling = calling
        run.confirm(ticket)
        told = Told(record.failed, record.value, None, group=group)
        exceptions = run.runtime.exceptions
        told.seen = (
            decode_failure(record.value, exceptions=exceptions)
            if record.failed
            else result.decode(record.value)
        )
        return told

    return recorded(branch, Kind.COMMAND, order.command.name, produce, result.decode)


def state_when(
    branch: Branch,
    entity: EntityDefinition,
    key: str,
    condition: Callable[[Any], bool] | None,
    timeout: float | None = None,
) -> Generator[Any, Any, Any]:
    """The object as it is, once a condition holds; remembered."""
    run = branch.run

    def produce(_call: Call) -> Generator[Any, Any, Told]:
        yield from run.barrier()
        try:
            found = yield from wait_for_state(run.runtime, entity, key, condition, timeout)
        except Unjudged as error:
            return failure(run, error.error)
        if found is None:
            return failure(run, WaitTimeout(f"{entity.name} {key!r} was not so within {timeout:g} s"))
        return Told(False, entity.payload.encode(found), found)

    return recorded(branch, Kind.COMMAND, f"{entity.name}/{key}", produce, entity.payload.decode)


class Unjudged(Exception):
    """The object cannot be read, or the condition raises: `error` is for whoever asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def wait_for_state(
    runtime: Runtime,
    entity: EntityDefinition,
    key: str,
    condition: Callable[[Any], bool] | None,
    timeout: float | None,
) -> Generator[Any, Any, Any]:
    """Look at an object, again whenever it has changed, until the condition holds; None if that takes too long."""
    until = None if timeout is None else runtime.monotonic() + timeout
    seen, state = yield from _look(runtime, entity.name, key)
    while True:
        try:
            found = entity.read(state)
            met = condition is None or condition(found)
        except Exception as error:
            raise Unjudged(error) from error
        if met:
            return found
        left = None if until is None else until - runtime.monotonic()
        if left is not None and left <= 0:
            return None
        signal = runtime.entity_after(entity.name, key, seen)
        try:
            yield Await(signal, left)
        finally:
            runtime.unwatch_entity(entity.name, key, seen, signal)
        if signal.error is not None:
            raise signal.error
        if signal.done:
            seen, state = signal.value
        else:
            seen, state = yield from _look(runtime, entity.name, key)


def _look(runtime: Runtime, type: str, key: str) -> Generator[Any, Any, tuple[int, bytes | None]]:
    found: tuple[int, bytes | None] = yield Use(runtime.find_entity, (type, key))
    return found
