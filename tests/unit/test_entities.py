"""Durable objects without a database: plain objects in unit tests, and what a command may and may not do to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from perdure import DefinitionError, Entity, PayloadTooLarge, PerdureError, SerializationError, command, sync
from perdure.core.entities import Order
from perdure.serial import decode_failure
from perdure.store.entities import Applied
from tests.entity_tools import Account, Diary, InsufficientFunds


def apply(given: Any, state: bytes | None, *args: object, **kwargs: object) -> Applied:
    """Carry out a command on a stored state, as the lane does."""
    entity, definition = given._entity, given._definition
    return Order(entity, definition, "a", definition.signature.encode_call(args, kwargs)).apply(state)


def error_of(applied: Applied) -> BaseException:
    assert applied.failed
    assert applied.state is None
    return decode_failure(applied.value)


# -- on an instance --------------------------------------------------------------------------------------


def test_on_an_instance_a_command_is_the_plain_method() -> None:
    """It returns, raises and changes the object, without an app or a database."""
    account = Account(balance=Decimal(5))
    assert account.withdraw(Decimal(2)) == Decimal(3) == account.balance
    with pytest.raises(InsufficientFunds):
        account.withdraw(Decimal(4))
    assert Account() == Account("", Decimal(0), 0)


def test_a_command_can_call_another_on_itself() -> None:
    """`self.other()` and `super().other()` are plain calls."""

    @dataclass
    class Savings(Account, name="bank.savings"):
        @command
        def withdraw(self, amount: Decimal) -> Decimal:
            self.deposit(Decimal(1))
            return super().withdraw(amount)

    applied = apply(Savings.withdraw, b'{"balance": "9"}', Decimal(4))
    assert (applied.failed, applied.value) == (False, b'"6"')
    assert repr(Savings.withdraw) == "<command bank.savings.withdraw>"


# -- declaring -------------------------------------------------------------------------------------------


def test_an_async_command_is_refused() -> None:
    """It would run under a lock; the error says what a command is."""
    with pytest.raises(DefinitionError, match="plain `def` method"):

        @command
        async def wait(self: Any) -> None: ...


@pytest.mark.parametrize("what", [staticmethod(print), property(str), print, 5])
def test_only_plain_functions_are_commands(what: Any) -> None:
    """Anything else is refused where it is decorated."""
    with pytest.raises(DefinitionError, match="plain `def` method"):
        command(what)


def test_the_name_is_the_given_one_or_the_class_s() -> None:
    """`name=` is what is stored; without it, module and class."""

    @dataclass
    class Named(Entity, name="shop.cart"):
        @command
        def clear(self) -> None: ...

    @dataclass
    class Plain(Entity):
        @command
        def clear(self) -> None: ...

    assert repr(Named.clear) == "<command shop.cart.clear>"
    assert Plain.__entity__.name.endswith("Plain")
    assert Plain.__entity__.name != "Plain"


def test_a_dataclass_with_slots_keeps_its_name() -> None:
    """`dataclass(slots=True)` makes the class anew, without the arguments of its class statement."""

    @dataclass(slots=True)
    class Slotted(Entity, name="shop.slotted"):
        count: int = 0

        @command
        def clear(self) -> None:
            self.count = 0

    assert Slotted.__entity__.name == "shop.slotted"
    assert Slotted.__entity__.type is Slotted


@pytest.mark.parametrize(
    ("key", "error"), [("", ValueError), ("a\0b", ValueError), ("\ud800", ValueError), (5, TypeError)]
)
def test_a_key_that_cannot_be_stored_is_refused_in_the_caller(key: Any, error: type[Exception]) -> None:
    """Empty, with NUL, a lone surrogate, no text: before anything is sent."""
    with pytest.raises(error, match="key of an object"):
        Account.deposit.prepared(key, (Decimal(1),), {})


def test_wrong_arguments_raise_in_the_caller() -> None:
    """Of the wrong number and of the wrong type."""
    given: Any = Account.deposit
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        given.prepared("a", (), {})
    with pytest.raises(SerializationError, match="amount"):
        given.prepared("a", ("much",), {})


# -- carried out -----------------------------------------------------------------------------------------


def test_a_command_that_raises_leaves_the_object_as_it_was() -> None:
    """What it did to the fields before is gone; the error comes back as its class, with its fields."""
    error = error_of(apply(Account.withdraw, b'{"balance": "1"}', Decimal(2)))
    assert isinstance(error, InsufficientFunds)
    assert error.balance == Decimal(1)


@pytest.mark.parametrize("raised", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_whatever_a_command_raises_is_its_failure(raised: BaseException) -> None:
    """Also what is no `Exception`: let through, it would end the thread that carries out all commands."""

    @dataclass
    class Trap(Entity, name="bank.trap"):
        @command
        def leave(self) -> None:
            raise raised

    assert type(raised).__name__ in repr(error_of(apply(Trap.leave, None)).__dict__)


def test_a_command_cannot_call_perdure() -> None:
    """Another command in it would wait for the thread that it runs in; it is refused instead, with its name."""

    @dataclass
    class Nested(Entity, name="bank.nested"):
        @command
        def go(self, what: str) -> None:
            calls: dict[str, Callable[[], Any]] = {
                "call": lambda: sync.call(Account.deposit, "a", Decimal(1)),
                "get": lambda: sync.get(Account, "a"),
                "await": lambda: Account.deposit("a", Decimal(1)).close(),
            }
            calls[what]()

    for what in ("call", "get", "await"):
        error = error_of(apply(Nested.go, None, what))
        assert isinstance(error, PerdureError)
        assert "bank.nested.go" in str(error), what


def test_what_cannot_be_stored_is_the_command_s_failure() -> None:
    """A result without a form, NUL in the state, a state that is too large: refused, and the object is as it was."""
    assert isinstance(error_of(apply(Diary.answer, None, "object")), SerializationError)
    assert "NUL" in str(error_of(apply(Diary.write, None, "a\0b")))
    assert isinstance(error_of(apply(Diary.write, None, "x" * 1000, 17_000)), PayloadTooLarge)


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "a\\u0000b", "\\\\\\u0000"])
def test_text_that_looks_like_an_escaped_nul_is_text(text: str) -> None:
    """A backslash and `u0000` are characters that the database can store."""
    applied = apply(Diary.write, None, text)
    assert not applied.failed
    assert Diary.__entity__.read(applied.state).lines == [text]


@pytest.mark.parametrize("text", ["\0", "\\\0", "\\\\\0"])
def test_nul_is_found_behind_backslashes(text: str) -> None:
    """What the database would refuse is refused before, whatever stands in front of it."""
    assert "NUL" in str(error_of(apply(Diary.write, None, text)))


def test_an_object_that_needs_arguments_says_so() -> None:
    """Its first command fails with the reason, and what to do."""

    @dataclass
    class Needs(Entity, name="bank.needs"):
        owner: str

        @command
        def clear(self) -> None:
            self.owner = ""

    error = error_of(apply(Needs.clear, None))
    assert isinstance(error, DefinitionError)
    assert "give each field a default" in str(error)
    assert not apply(Needs.clear, b'{"owner": "me"}').failed


# -- evolution -------------------------------------------------------------------------------------------


def test_a_new_field_takes_its_default_and_a_removed_one_goes() -> None:
    """State of an older class is read by a newer one; what it no longer has is dropped at the next command."""

    @dataclass
    class Newer(Entity, name="bank.account"):
        balance: Decimal = Decimal(0)
        limits: dict[str, int] = field(default_factory=dict)

        @command
        def touch(self) -> Decimal:
            return self.balance

    old = apply(Account.deposit, None, Decimal(7)).state
    applied = apply(Newer.touch, old)
    assert applied == Applied(b'{"balance":"7","limits":{}}', False, b'"7"')


def test_state_that_is_none_of_the_class_is_a_clear_error() -> None:
    """Written by hand: the command fails with where and why, and the state stays."""
    for state in (b'{"balance": []}', b"[]", b'"text"', b"null"):
        error = error_of(apply(Account.deposit, state, Decimal(1)))
        assert isinstance(error, SerializationError)
        assert "Account" in str(error)
