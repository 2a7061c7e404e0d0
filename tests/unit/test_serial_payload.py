"""Values come back as themselves, whatever class they are of."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Literal,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from perdure.serial import Payload
from tests.serial_types import (
    NOON,
    ONE,
    Address,
    Box,
    Choice,
    Colour,
    Computed,
    Customer,
    Delivery,
    Hidden,
    IntBox,
    Json,
    Level,
    Line,
    Many,
    Money,
    Names,
    Node,
    Odd,
    Options,
    Order,
    Packet,
    Pair,
    Parcel,
    Person,
    Point,
    Rights,
    UserId,
    patient,
    person,
)

SELVES: list[tuple[Any, Any]] = [
    (None, None),
    (bool, True),
    (int, 10**40),
    (float, -0.0),
    (str, "é\u2028\0"),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"abc")),
    (datetime, NOON),
    (datetime, datetime(2026, 3, 1)),  # noqa: DTZ001
    (datetime, NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30)))),
    (date, date.min),
    (time, time(23, 59, 59, 999999)),
    (timedelta, timedelta(days=-2, microseconds=1)),
    (Decimal, Decimal("1.500E+10")),
    (UUID, ONE),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (Odd, Odd.PAIR),
    (Rights, Rights.READ | Rights.WRITE),
    (Literal["a", 1, True] | None, True),
    (Literal[Colour.RED, Level.LOW, Odd.HALF], Odd.HALF),
    (int | None, None),
    (UserId, UserId(4)),
    (Names, ["a"]),
    (Many[Line], {"a": Line("x")}),
    (Json, {"a": [1, {"b": None}, 2.5]}),
    (Annotated[int, "a remark"], 4),
    (Annotated[list[int], ["unhashable"]], [4]),
    (list, [1, "a"]),
    (list[Line], [Line("a")]),
    (set[int], {1, 2}),
    (frozenset[tuple[int, str]], frozenset({(1, "a")})),
    (tuple, (1, "a")),
    (tuple[()], ()),
    (tuple[int, Line], (1, Line("a"))),
    (tuple[Line | Money, ...], (Line("a"), Money(Decimal(1)))),
    (Sequence[int], [1]),
    (Mapping[str, int], {"a": 1}),
    (dict, {"a": 1}),
    (dict[int, str], {1: "a"}),
    (dict[UUID, Line | Money], {ONE: Line("a")}),
    (dict[float, int], {1.5: 1}),
    (dict[date, int], {date(2026, 1, 1): 1}),
    (dict[bytes, list[Line | Money]], {b"a": [Line("a")]}),
    (dict[Level, Odd], {Level.LOW: Odd.HALF}),
    (dict[tuple[int, int], str], {(1, 2): "a"}),
    (dict[bool, Line], {True: Line("a")}),
    (dict[int | str, int], {1: 1, "1": 2}),
    (Line, Line("a", 2)),
    (Order, Order(ONE, [Line("a")], Money(Decimal("1.50")), frozenset({"x"}), NOON)),
    (Node, Node(1, [Node(2)])),
    (Choice, Choice(Line("a"), [Choice(Money(Decimal(1)))])),
    (Computed, Computed(2)),
    (Hidden, Hidden(1, "no")),
    (Box[Line], Box(Line("a"), [Line("b")])),
    (Box[Line | Money], Box(Money(Decimal(2)))),
    (IntBox, IntBox(1, [2], "x")),
    (Point, Point(1, 2.0)),
    (Options, {"name": "a"}),
    (list[Options], [{"name": "a", "depth": 1}]),
    (Packet, Packet(1, b"x")),
    (Pair, Pair(1, Line("a"))),
    (Customer, Customer("a", 5, date(2000, 1, 1))),
    (Address, Address(street="a", since=NOON)),
    (Person, person("a", person("c"))),
    (Parcel, Parcel(1.5, Address(street="a"))),
    (Delivery, Delivery(Parcel(1.5, Address(street="a")), {1: person("b")})),
]


@pytest.mark.parametrize(("annotation", "value"), SELVES, ids=str)
def test_annotated_values_come_back_as_themselves(annotation: Any, value: Any) -> None:
    """What is written under an annotation is read back equal and of the same class."""
    payload = Payload.of(annotation)
    stored, seen = payload.record(value)
    assert seen == value
    assert type(seen) is type(value)
    if not isinstance(value, set | frozenset | BaseModel | Delivery):  # unordered; zones of pydantic's own
        assert str(seen) == str(value)
    assert payload.encode(value) == stored
    assert payload.encode(seen) == stored
    assert payload.decode(stored) == value
    json.loads(stored)


def test_the_code_never_shares_a_mutable_value_with_the_record() -> None:
    """What the code sees is a copy: changing the original later changes nothing."""
    for annotation, value in (
        (Any, [1]),
        (list[int], [1]),
        (Line, Line("a")),
        (Address, Address(street="a")),
    ):
        seen = Payload.of(annotation).record(value)[1]
        assert seen == value
        assert seen is not value


def test_plain_immutable_values_pass_through() -> None:
    """None, bool, int, str, float and enum members are not decoded, as they are the same anyway."""
    for annotation, value in ((Any, "long text"), (str, "long text"), (int | None, 10**9), (Odd, Odd.HALF)):
        assert Payload.of(annotation).record(value)[1] is value


def test_an_int_under_float_becomes_a_float_at_once() -> None:
    """The first run sees the float that a replay would see."""
    for annotation in (float, float | None, float | str):
        seen = Payload.of(annotation).record(3)[1]
        assert type(seen) is float


def test_a_named_zone_becomes_its_offset_at_once() -> None:
    """The first run sees the fixed offset that a replay would see."""
    moment = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris"))
    seen = Payload.of(datetime).record(moment)[1]
    assert seen == moment
    assert seen.tzinfo == timezone(timedelta(hours=2))


def test_a_subclass_of_uuid_is_a_uuid() -> None:
    """Drivers have UUID classes of their own; they come back as the standard one."""

    class DriverUUID(UUID):
        pass

    for annotation in (UUID, UUID | None, UUID | str, list[UUID]):
        given: Any = DriverUUID(int=1)
        seen = Payload.of(annotation).record([given] if annotation == list[UUID] else given)[1]
        found = seen[0] if isinstance(seen, list) else seen
        assert type(found) is UUID
        assert found == ONE


def test_abstract_annotations_take_what_they_mean() -> None:
    """A tuple is a Sequence, and comes back as the list that is one too."""
    assert Payload.of(Sequence[int]).record((1, 2))[1] == [1, 2]


def test_unknown_fields_are_ignored_and_missing_ones_take_defaults() -> None:
    """A row of a newer or an older version of a class is read."""
    for annotation, expected in (
        (Line, Line("a")),
        (Hidden, Hidden(1)),
        (Point, Point(1)),
        (Customer, Customer("a")),
        (Choice, Choice(Line("a"))),
        (Packet, Packet(1)),
        (Options, {"name": "a"}),
        (Address, Address(street="a")),
    ):
        row = b'{"sku":"a","_secret":1,"x":1,"name":"a","either":{"$type":"Line","sku":"a"},"orderId":1,'
        assert Payload.of(annotation).decode(row + b'"street":"a","new":[1]}') == expected


def test_pydantic_reads_lax_and_by_alias() -> None:
    """A row by another hand is validated as pydantic does it."""
    payload = Payload.of(Person)
    found = payload.decode(b'{"address":{"street":"a","since":0},"Name":"b"}')
    assert found.name == "b"
    assert found.address.since == datetime.fromtimestamp(0, UTC)


def test_fields_that_a_hook_computes_keep_what_was_stored() -> None:
    """A field outside `__init__` comes back as it was, even where the hook would make it anew."""
    value = Computed(2)
    value.double = 7
    assert Payload.of(Computed).record(value)[1] == value


def test_classes_made_in_a_function_can_refer_to_themselves() -> None:
    """A local class is carried as well, as far as its names can be found."""

    @dataclass
    class Tree:
        left: Tree | None = None

    assert Payload.of(Tree).record(Tree(Tree()))[1] == Tree(Tree())


def test_one_payload_serves_all_callers() -> None:
    """The codec of a type is built once."""
    assert Payload.of(list[Line]) is Payload.of(list[Line])


def test_threads_build_the_same_payload() -> None:
    """Many first uses at once give one codec that works."""

    @dataclass
    class Fresh:
        inner: list[Fresh | Line]

    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        found.append(Payload.of(Fresh).encode(Fresh([Fresh([Line("a")])])))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@patient
@given(plain)
def test_untyped_round_trip(value: Any) -> None:
    """Whatever JSON carries without an annotation comes back equal, and its classes too."""
    stored, seen = Payload.of(Any).record(value)
    assert repr(Payload.of(Any).decode(stored)) == repr(seen) == repr(value)


minutes = st.integers(-1439, 1439).map(lambda offset: timezone(timedelta(minutes=offset)))
moments = st.datetimes(timezones=st.none() | minutes)
scalars: dict[Any, st.SearchStrategy[Any]] = {
    bytes: st.binary(),
    datetime: moments,
    date: st.dates(),
    time: st.times(timezones=st.none() | minutes),
    timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Rights: st.sampled_from(list(Rights)),
}


@patient
@given(st.data())
def test_scalar_round_trip(data: st.DataObject) -> None:
    """Every value of a scalar class comes back the same, alone, in a union and as an item."""
    annotation = data.draw(st.sampled_from(list(scalars)))
    value = data.draw(scalars[annotation])
    for wider in (annotation, annotation | None, annotation | str | Line, annotation | complex):
        seen = Payload.of(wider).record(value)[1]
        assert seen == value
        assert type(seen) is type(value)
        assert str(seen) == str(value)
    many: Any = tuple.__class_getitem__((annotation, ...))
    assert Payload.of(dict[str, many]).record({"a": (value,)})[1] == {"a": (value,)}


@patient
@given(
    st.builds(Choice, st.builds(Line) | st.builds(Money, st.decimals(allow_nan=False, allow_infinity=False)))
)
def test_tagged_fields_round_trip(value: Choice) -> None:
    """A dataclass with a union of classes in a field comes back as itself."""
    assert Payload.of(Choice).record(value)[1] == value
