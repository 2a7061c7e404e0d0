"""Unions keep the class of their value, in a form that anybody would write where JSON allows it."""

from __future__ import annotations

import enum
import itertools
import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel

from perdure.errors import SerializationError
from perdure.serial import Payload
from tests.serial_types import patient


@dataclass
class Card:
    number: str = ""


@dataclass
class Cash:
    amount: int = 0


@dataclass
class Coins(Cash):
    pieces: int = 0


@dataclass
class Tree:
    leaf: Card | Cash
    branches: list[Tree | Card] = field(default_factory=list)


@attrs.define
class Bill:
    amount: int = 0


class Wire(BaseModel):
    iban: str = ""


class Numbers(RootModel[list[int]]):
    pass


class Cheque(msgspec.Struct):
    name: str = ""


class Cat(msgspec.Struct, tag=True):
    lives: int = 9


class Dog(msgspec.Struct, tag=True):
    name: str = ""


class Owned(msgspec.Struct, tag=True):
    by: Card | Cash


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


def another_card() -> type:
    @dataclass
    class Card:
        code: int = 0

    return Card


Card2: Any = another_card()
NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)

FORMS: list[tuple[Any, Any, bytes]] = [
    (Card | None, None, b"null"),
    (Card | None, Card("1"), b'{"number":"1"}'),
    (Card | list[Card], [Card("1")], b'[{"number":"1"}]'),
    (Card | list[Card], Card("1"), b'{"number":"1"}'),
    (int | str | bool | None, True, b"true"),
    (int | float, 1.0, b"1.0"),
    (int | float, 1, b"1"),
    (int | Decimal, Decimal("1.0"), b'"1.0"'),
    (Decimal | float, 1.5, b"1.5"),
    (Card | Cash, Cash(2), b'{"$type":"Cash","amount":2}'),
    (Cash | Coins, Coins(2, 3), b'{"$type":"Coins","amount":2,"pieces":3}'),
    (Cash | Coins, Cash(2), b'{"$type":"Cash","amount":2}'),
    (Card | Bill | Wire | Cheque, Bill(1), b'{"$type":"Bill","amount":1}'),
    (Card | Bill | Wire | Cheque, Wire(iban="x"), b'{"$type":"Wire","iban":"x"}'),
    (Card | Bill | Wire | Cheque, Cheque("x"), b'{"$type":"Cheque","name":"x"}'),
    (str | datetime, "2026-03-01T12:30:00Z", b'"2026-03-01T12:30:00Z"'),
    (str | datetime, NOON, b'{"$type":"datetime","$value":"2026-03-01T12:30:00Z"}'),
    (datetime | date, NOON.date(), b'{"$type":"date","$value":"2026-03-01"}'),
    (UUID | bytes, b"a", b'{"$type":"bytes","$value":"YQ=="}'),
    (Colour | str, Colour.RED, b'{"$type":"Colour","$value":"red"}'),
    (Colour | str, "red", b'"red"'),
    (Level | int, Level.LOW, b'{"$type":"Level","$value":1}'),
    (Level | int, 1, b"1"),
    (Level | float, 1, b"1.0"),
    (typing.Union[Literal["all"], str], "all", b'"all"'),  # noqa: PYI051, UP007
    (Literal["all"] | int, "all", b'"all"'),
    (list[int] | set[int], [1], b"[1]"),
    (list[int] | set[int], {1}, b'{"$type":"set[int]","$value":[1]}'),
    (list[Card] | list[Cash], [Cash(1)], b'{"$type":"list[Cash]","$value":[{"amount":1}]}'),
    (dict[str, int] | Card, {"$type": 1}, b'{"$type":"dict[str, int]","$value":{"$type":1}}'),
    (dict[str, Any] | datetime, NOON, b'"2026-03-01T12:30:00Z"'),
    (dict[str, int] | date | str, {"a": 1}, b'{"$type":"dict[str, int]","$value":{"a":1}}'),
    (Any | Card, Card("1"), b'{"$type":"Card","number":"1"}'),
    (Cat | Dog, Dog("x"), b'{"type":"Dog","name":"x"}'),
    (Cat | Dog | None, None, b"null"),
    (Numbers, Numbers([1]), b"[1]"),
    (Numbers | int, Numbers([1]), b'{"$type":"Numbers","$value":[1]}'),
    (Numbers | list[str], Numbers([1]), b'{"$type":"Numbers","$value":[1]}'),
    (Numbers | None, None, b"null"),
    (Cat | Owned, Owned(Cash(1)), b'{"$type":"Owned","type":"Owned","by":{"$type":"Cash","amount":1}}'),
    (tuple[Card | Cash, int | timedelta], (Card(), timedelta(1)), b'[{"$type":"Card","number":""},"P1D"]'),
]


@pytest.mark.parametrize(("annotation", "value", "stored"), FORMS, ids=str)
def test_members_of_unions_come_back_as_themselves(annotation: Any, value: Any, stored: bytes) -> None:
    """Each value has the expected form and comes back equal and of the same class."""
    payload = Payload.of(annotation)
    written, seen = payload.record(value)
    assert written == stored
    assert repr(seen) == repr(value if annotation != Level | float else 1.0)


def test_two_classes_of_one_name_are_told_apart() -> None:
    """Where the short names are the same, the whole name is the tag."""
    payload = Payload.of(Card | Card2)
    for value in (Card("1"), Card2(1)):
        assert type(payload.record(value)[1]) is type(value)


def test_the_order_of_members_means_nothing() -> None:
    """Equal unions share a codec, so a form must not depend on which was seen first."""
    members: tuple[Any, ...] = (Card, Cash, datetime, str, list[int], set[int])
    values = (Card("1"), Cash(1), NOON, "x", [1], {1})
    forms = {
        tuple(Payload(typing.Union[order]).encode(value) for value in values)  # noqa: UP007
        for order in itertools.islice(itertools.permutations(members), 0, 720, 97)
    }
    assert len(forms) == 1


def test_a_subclass_outside_the_union_is_refused() -> None:
    """A value of a class that is no member is not cut down to the base that is one."""
    with pytest.raises(SerializationError, match=r"expected Card \| Cash, got Coins"):
        Payload.of(Card | Cash).encode(Coins())


def test_a_plain_class_that_became_a_union_is_still_read() -> None:
    """Rows written before a second class came are read, if only one member has their fields."""
    before = Payload.of(Card).encode(Card("1"))
    assert Payload.of(Card | Cash).decode(before) == Card("1")
    assert Payload.of(list[Card | Cash]).decode(b"[" + before + b"]") == [Card("1")]
    assert Payload.of(Cat | Owned).decode(b'{"type":"Cat","lives":3}') == Cat(3)
    assert Payload.of(date | UUID).decode(b'"2026-03-01"') == date(2026, 3, 1)


def test_a_union_that_became_a_plain_class_is_still_read() -> None:
    """A tag that is needed no more is an unknown field."""
    before = Payload.of(Card | Cash).encode(Card("1"))
    assert Payload.of(Card).decode(before) == Card("1")


def test_an_object_that_fits_several_members_is_refused() -> None:
    """Without a tag, what could be two classes is neither; the message lists the tags."""
    with pytest.raises(SerializationError, match=r"\$type, which is one of: Bill, Cash"):
        Payload.of(Cash | Bill).decode(b'{"amount":1}')


@pytest.mark.parametrize(
    "tag", ['"os.system"', '"Coins"', '"builtins.object"', "null", "1", "[]", '"__class__"', '""']
)
def test_a_row_cannot_choose_a_class(tag: str) -> None:
    """A tag that names no member raises, whatever it names."""
    for body in ('{"$type":%s,"amount":1}', '{"$type":%s,"$value":{"amount":1}}'):
        with pytest.raises(SerializationError, match="is none of Card, Cash"):
            Payload.of(Card | Cash).decode((body % tag).encode())


def test_recursive_unions_round_trip() -> None:
    """A class whose fields are unions with itself comes back whole."""
    tree = Tree(Cash(1), [Tree(Card("1")), Card("2")])
    assert Payload.of(Tree).record(tree)[1] == tree


members = st.one_of(
    st.builds(Card, st.text()),
    st.builds(Cash, st.integers()),
    st.builds(Coins, st.integers(), st.integers()),
    st.builds(Bill, st.integers()),
    st.builds(Wire, iban=st.text()),
    st.datetimes(),
    st.dates(),
    st.timedeltas(),
    st.text(),
    st.integers(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.uuids(),
    st.lists(st.integers()),
    st.sets(st.integers()),
    st.dictionaries(st.text() | st.just("$type") | st.just("$value"), st.integers()),
    st.sampled_from(Colour),
)
Everything = (
    Card | Cash | Coins | Bill | Wire | datetime | date | timedelta | str | int | bool | None | bytes | UUID
    | list[int] | set[int] | dict[str, int] | Colour
)  # fmt: skip


@patient
@given(members)
def test_large_unions_round_trip(value: Any) -> None:
    """However many members there are, each value comes back as itself, alone and inside."""
    annotation: Any = Everything
    seen = Payload.of(annotation).record(value)[1]
    assert seen == value
    assert type(seen) is type(value)
    assert Payload.of(dict[str, annotation]).record({"a": value})[1] == {"a": value}
