"""`Entity` and `@command`: durable objects, which live in the database under a key."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

from perdure.arguments import limit as check_limit
from perdure.client import Operation, current_app, on_loop, read
from perdure.core.branch import current
from perdure.core.entities import (
    CommandDefinition,
    EntityDefinition,
    Order,
    Unjudged,
    give,
    state_when,
    telling,
    wait_for_state,
)
from perdure.core.registry import entities, name_of
from perdure.core.runtime import Runtime
from perdure.errors import DatabaseUnavailable, DefinitionError, PerdureError, WaitTimeout
from perdure.models import CommandInfo, Duration, seconds_of
from perdure.serial import Signature, check_size, check_text, decode_failure
from perdure.store import entities as stored
from perdure.store.entities import CommandRecord
from perdure.store.records import Ticket

P = ParamSpec("P")
R = TypeVar("R")
LONGEST_KEY: Final = 256
"""Characters: the type, a key and an id share an entry of an index, which has 2,700 bytes."""


class EntityCommand(Generic[P, R]):
    """A command of a class of durable objects: called with a key, it is carried out on that object, exactly once."""

    def __init__(
        self, entity: EntityDefinition, definition: CommandDefinition, id: str | None = None
    ) -> None:
        self._entity, self._definition, self._id = entity, definition, id

    def __repr__(self) -> str:
        return f"<command {self._definition.name}>"

    def __call__(self, key: str, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Carry it out on the object with this key, which is made if it is not there.

        Raises:
            Exception: whatever the command raises; the object is then as it was.
        """
        return on_loop(self.prepared(key, args, kwargs), current_app(), "perdure.sync.call")

    def options(self, *, id: str) -> EntityCommand[P, R]:
        """Return the command with an idempotency key, for code outside of workflows: once for each object and id."""
        if check_text(id, "id=", longest=LONGEST_KEY).startswith("!"):
            raise ValueError("id= begins with '!', which is for ids of perdure's own")
        return EntityCommand(self._entity, self._definition, id)

    def prepared(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Operation]:
        """What makes the operation; wrong arguments raise here, in the caller."""
        signature = self._definition.signature
        signature.bind(args, kwargs)
        sent = check_size(signature.encode_call(args, kwargs), what="the arguments")
        order = self.order(check_key(key), sent)
        return lambda: self._operation(order)

    def order(self, key: str, args: bytes) -> Order:
        """The command with its object and its arguments, as they are stored."""
        return Order(self._entity, self._definition, key, args)

    def tell(self, key: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """From the body of another command: have this one carried out after that one's commit, exactly once.

        Both are as good as one: what tells and what is told are committed together. Nobody waits for the result; a command
        that raises leaves its object as it was, and its error in the table `told`. What one object tells another is carried
        out in the order in which it was told, unless a worker dies in between.

        Raises:
            PerdureError: no command is being carried out.

        Example:
            @command
            def pay(self, to: str, amount: Decimal) -> None:
                self.balance -= amount
                Account.deposit.tell(to, amount)
        """
        told = telling.get()
        if told is None:
            raise PerdureError(
                f"{self._definition.name}.tell(...) is for the body of another command; elsewhere call it: "
                f"`await {self._definition.name.rpartition('.')[2]}(...)` on the class"
            )
        signature = self._definition.signature
        signature.bind(args, kwargs)
        told.append(
            self.order(check_key(key), check_size(signature.encode_call(args, kwargs), what="the arguments"))
        )

    def _operation(self, order: Order) -> Operation:
        branch = current.get()
        if branch is not None:
            if self._id is not None:
                raise PerdureError(
                    f"{order.command.name}: id= is for code outside of workflows; in one, each call is carried out once"
                )
            return give(branch, order)
        return _give_outside(current_app().runtime, order, self._id or str(uuid.uuid4()))


def _give_outside(runtime: Runtime, order: Order, id: str) -> Operation:
    run = runtime.new_key()
    record = CommandRecord(run, order.place, id, order.command.name, order.args, order.apply)
    ticket = Ticket(record)
    runtime.command(ticket)
    yield ticket
    if ticket.error is not None:
        reason = str(ticket.error) or "this worker was declared dead"
        raise DatabaseUnavailable(
            f"whether {order.command.name} was carried out on {order.key!r} is not known ({reason}); with "
            ".options(id=...) it can be given again without harm"
        ) from ticket.error
    if record.failed:
        raise decode_failure(record.value, exceptions=runtime.exceptions)
    return order.command.signature.result.decode(record.value)


def check_key(key: str) -> str:
    """Refuse what cannot be the key of an object."""
    return check_text(key, "key of an object", longest=LONGEST_KEY)


class Command(Generic[P, R]):
    """A decorated method: on the class the durable command, on an instance the plain method."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self.__wrapped__ = self.function = function
        self.__doc__ = function.__doc__
        self.name = function.__name__
        self._commands: dict[type, EntityCommand[P, R]] = {}
        """By class: its signature is worked out once, which takes half a millisecond."""

    @overload
    def __get__(self, instance: None, owner: type) -> EntityCommand[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, R]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """The plain method of an instance, or the command of the class."""
        if instance is not None:
            return self.function.__get__(instance, owner)
        made = self._commands.get(owner)
        if made is None:
            entity: EntityDefinition = owner.__entity__
            definition = CommandDefinition(
                f"{entity.name}.{self.name}", self.function, Signature(self.function, skip=1)
            )
            made = self._commands[owner] = EntityCommand(entity, definition)
        return made


def command(function: Callable[Concatenate[Any, P], R], /) -> Command[P, R]:
    """Make a method of an `Entity` a command: `await Account.withdraw("alice", amount)`.

    It is a plain function of the object's fields and its arguments: no steps, no I/O, no clock; it may be run again
    where a commit has to be repeated. What it raises leaves the object as it was.

    Raises:
        DefinitionError: it is `async def`, or no plain function.
    """
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
        raise DefinitionError(f"@command decorates a plain `def` method, not {function!r}")
    return Command(function)


class Entity:
    """Base of durable objects: an ordinary dataclass, whose objects live in the database under a key.

    An object is there from its first command on, and has to be made without arguments. Called on the class, a command is
    carried out under the lock of the object's row: one at a time for each key, with the checkpoint of the workflow that
    gives it. On an instance it is the plain method, so that unit tests need no database.

    Example:
        @dataclass
        class Account(Entity):
            balance: Decimal = Decimal(0)

            @command
            def withdraw(self, amount: Decimal) -> Decimal:
                if amount > self.balance:
                    raise InsufficientFunds(self.balance)
                self.balance -= amount
                return self.balance

        left = await Account.withdraw("alice", Decimal("12.50"))
    """

    __entity__: ClassVar[EntityDefinition]

    def __init_subclass__(cls, *, name: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if name is None and "__entity__" in cls.__dict__:
            name = cls.__dict__[
                "__entity__"
            ].name  # `dataclass(slots=True)` makes the class anew, without its arguments
        cls.__entity__ = EntityDefinition(name_of(cast("Any", cls), name), cls)
        entities[cls.__entity__.name] = cls

    @classmethod
    def get(cls, key: str) -> Coroutine[object, None, Self]:
        """The object as it is now; one that had no command yet is as it is made. In a workflow it is remembered."""
        return on_loop(cls._looking(check_key(key), None, None), current_app(), "perdure.sync.get")

    @classmethod
    def when(
        cls, key: str, condition: Callable[[Self], bool], *, timeout: Duration | None = None
    ) -> Coroutine[object, None, Self]:
        """Wait until a condition holds for the object, and return it as it is then.

        Args:
            key: of the object.
            condition: called with the object, again after each change that is seen; those in between are not.
            timeout: seconds or `timedelta` to wait.

        Raises:
            WaitTimeout: it did not hold in time.
        """
        seconds = None if timeout is None else seconds_of(timeout, "timeout=")
        make = cls._looking(check_key(key), condition, seconds)
        return on_loop(make, current_app(), "perdure.sync.when")

    @classmethod
    def history(cls, key: str, limit: int = 100) -> Coroutine[object, None, tuple[CommandInfo, ...]]:
        """The last commands that the object has carried out, newest first; not inside a workflow.

        Args:
            key: of the object.
            limit: at most so many, up to 10,000.
        """
        return on_loop(cls.looking_back(check_key(key), limit), current_app(), "perdure.sync.history")

    @classmethod
    def looking_back(cls, key: str, limit: int) -> Callable[[], Operation]:
        """What makes the operation behind `history`, for both colours."""
        check_limit(limit, "limit=")
        app, place = current_app(), (cls.__entity__.name, key)

        def look() -> tuple[CommandInfo, ...]:
            return tuple(CommandInfo(*row) for row in stored.history(app.database, place, limit))

        return lambda: read("history", look)

    @classmethod
    def _looking(
        cls, key: str, condition: Callable[[Any], bool] | None, seconds: float | None
    ) -> Callable[[], Operation]:
        return lambda: looking(cls.__entity__, key, condition, seconds)


def looking(
    entity: EntityDefinition, key: str, condition: Callable[[Any], bool] | None, seconds: float | None
) -> Operation:
    """The operation behind `get` and `when`, for both colours."""
    branch = current.get()
    if branch is not None:
        return (yield from state_when(branch, entity, key, condition, seconds))
    try:
        found = yield from wait_for_state(current_app().runtime, entity, key, condition, seconds)
    except Unjudged as raised:
        raise raised.error from None
    if found is None:
        raise WaitTimeout(f"{entity.name} {key!r} was not so within {seconds:g} s")
    return found


__all__ = ["Command", "Entity", "EntityCommand", "command"]
