"""What does not fit its annotation, or is no such value, is refused where it is given."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Literal,
)
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

from perdure.errors import PayloadTooLarge, SerializationError
from perdure.serial import Payload, check_size
from tests.serial_types import (
    NOON,
    ONE,
    Address,
    BigLine,
    Box,
    Choice,
    Colour,
    Customer,
    Hidden,
    Home,
    Json,
    Level,
    Line,
    Money,
    Node,
    Odd,
    Options,
    Order,
    Packet,
    Person,
    Point,
    Unstable,
    patient,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


UNFIT: list[tuple[Any, Any, str]] = [
    (int, "1", "expected int, got str"),
    (int, True, "its subclass bool"),
    (int, Level.LOW, "its subclass Level"),
    (str, Colour.RED, "its subclass Colour"),
    (float, True, "expected float, got bool"),
    (float, 2**53 + 1, "no float holds exactly"),
    (float, 10**400, "no float holds exactly"),
    (date, NOON, "its subclass datetime"),
    (list[int], (1,), "expected list[int], got tuple"),
    (tuple[int, ...], [1], "got list"),
    (tuple[int, int], (1,), "a tuple of 1"),
    (set[int], frozenset({1}), "got frozenset"),
    (Sequence[str], "abc", "got str"),
    (dict[str, int], {1: 1}, "expected str, got int"),
    (dict[str, int], defaultdict(int), "its subclass defaultdict"),
    (list[Line], [Line("a"), BigLine("b")], "at [1]: expected Line, got its subclass BigLine"),
    (list[Line | Money], [BigLine("b")], "got BigLine"),
    (Order, Order(ONE, [Line("a", "2")]), "at .lines[0].quantity: expected int, got str"),  # type: ignore[arg-type]
    (Money, Money(Decimal("NaN")), "at .amount"),
    (Decimal, Decimal("Infinity"), "refused"),
    (Options, {"name": "a", "dept": 1}, "Options has no dept"),
    (Options, {"depth": 1}, "lacks name"),
    (Literal["a"], "b", "expected Literal['a']"),
    (Literal[1], True, "another bool"),
    (complex, 1j, "no type that perdure can store"),
    (Address, Home(street="a"), "its subclass Home"),
    (list[Address], [Home(street="a")], "its subclass Home"),
    (Person, Person.model_construct(address=Home(street="a")), "at .address"),
    (Address, Address.model_construct(street=4), "pydantic"),
    (Unstable, Unstable(2), "comes back as another value"),
    (time, time(1, tzinfo=ZoneInfo("Europe/Paris")), "without a fixed offset"),
    (datetime, NOON.astimezone(timezone(timedelta(seconds=7))), "offset from UTC with seconds"),
    (Annotated[int, msgspec.Meta(gt=3)], 2, "would not come back"),
    (list[Annotated[str, msgspec.Meta(min_length=3)]], ["a"], "would not come back"),
]


@pytest.mark.parametrize(("annotation", "value", "words"), UNFIT, ids=str)
def test_what_does_not_fit_is_refused_when_written(annotation: Any, value: Any, words: str) -> None:
    """A value that is not of its annotation raises at the call, and the message says where and why."""
    with pytest.raises(SerializationError) as caught:
        Payload.of(annotation).encode(value)
    assert words in str(caught.value)
    with pytest.raises(SerializationError):
        Payload.of(annotation).record(value)


@pytest.mark.parametrize(
    "value",
    [(1,), {1}, NOON, Decimal(1), b"a", Line("a"), {1: 2}, [1, {"a": (1,)}], Colour.RED, 1j, object(), ONE],
    ids=lambda value: type(value).__name__,
)
def test_untyped_values_are_only_those_of_json(value: Any) -> None:
    """Without an annotation, what JSON does not tell apart raises and asks for one."""
    for annotation in (Any, object, list[Any]):
        with pytest.raises(SerializationError, match="annotat"):
            Payload.of(annotation).encode([value] if annotation == list[Any] else value)


NOT_FINITE = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("number", NOT_FINITE)
def test_not_a_number_raises_wherever_it_hides(number: float) -> None:
    """NaN and infinities raise at any depth, under any annotation."""

    class Holder(BaseModel):
        number: float

    cases: list[tuple[Any, Any]] = [
        (float, number),
        (Any, {"a": [number]}),
        (Point, Point(1, number)),
        (Box[float], Box(number)),
        (Box, Box(number)),
        (dict[float, int], {number: 1}),
        (int | float, number),
        (list[Line | Box[float]], [Box(number)]),
        (Holder, Holder(number=number)),
    ]
    for annotation, value in cases:
        with pytest.raises(SerializationError):
            Payload.of(annotation).encode(value)


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [(str, "\ud800", ""), (Any, {"a": ["b\udfff"]}, "at ['a'][0]"), (Line, Line("\ud800"), "at .sku")],
)
def test_lone_surrogates_raise(annotation: Any, value: Any, place: str) -> None:
    """Text that UTF-8 cannot carry raises, and the message says where it is."""
    with pytest.raises(SerializationError, match="lone surrogate") as caught:
        Payload.of(annotation).encode(value)
    assert place in str(caught.value)


def test_a_value_that_contains_itself_raises() -> None:
    """A cycle ends in a message, not in a crash."""
    cycle: list[Any] = []
    cycle.append(cycle)
    node = Node(1)
    node.children.append(node)
    for annotation, value in ((Any, cycle), (Node, node)):
        with pytest.raises(SerializationError, match="contains itself"):
            Payload.of(annotation).encode(value)


def test_a_number_too_long_for_text_raises() -> None:
    """An int of more digits than Python writes is refused as any other value."""
    with pytest.raises(SerializationError):
        Payload.of(int).encode(10**5000)


@pytest.mark.parametrize("annotation", [Line, Hidden, Point, Choice, Packet, Options, Address, Customer])
def test_a_missing_required_field_raises(annotation: Any) -> None:
    """A row that lacks what has no default cannot be read, and says so."""
    with pytest.raises(SerializationError, match="cannot read"):
        Payload.of(annotation).decode(b"{}")


@pytest.mark.parametrize(
    "stored", [b"", b"nonsense", b"\xff", b'"\\ud800"', b"[" * 100_000, b"NaN", b"1 2", b'{"sku":1}', b"null"]
)
def test_damaged_rows_raise_one_error(stored: bytes) -> None:
    """Whatever stands in the row, reading it raises SerializationError or nothing."""
    for annotation in (Line, Choice, Address, list[Line | Money], Odd):
        with pytest.raises(SerializationError):
            Payload.of(annotation).decode(stored)


def test_pydantic_secrets_are_refused() -> None:
    """A secret that would be stored as stars raises instead."""

    class Login(BaseModel):
        password: SecretStr

    with pytest.raises(SerializationError, match=r"\.password"):
        Payload.of(Login).encode(Login(password=SecretStr("x")))


def test_pydantic_validators_run_on_reading() -> None:
    """A row that the model refuses raises, with pydantic's own words."""

    class Even(BaseModel):
        model_config = ConfigDict(frozen=True)
        number: int

        @field_validator("number")
        @classmethod
        def check(cls, number: int) -> int:
            if number % 2:
                raise ValueError("odd indeed")
            return number

    with pytest.raises(SerializationError, match="odd indeed"):
        Payload.of(Even).decode(b'{"number":1}')


def test_attrs_validators_run_on_reading() -> None:
    """A row that the class refuses raises."""
    with pytest.raises(SerializationError):
        Payload.of(Customer).decode(b'{"name":"a","_score":-1}')


def test_an_unresolvable_annotation_fails_only_with_a_value() -> None:
    """A class with one bad annotation can be declared; writing it says what to import."""

    @dataclass
    class Broken:
        fine: int
        bad: Missing | None = None  # type: ignore[name-defined]  # noqa: F821

    payload = Payload.of(Broken)
    with pytest.raises(SerializationError, match=r"'Missing \| None' cannot be resolved"):
        payload.encode(Broken(1))


def test_the_limit_is_in_bytes() -> None:
    """A payload of the limit passes, one byte more raises."""
    assert check_size(b"123", 3) == b"123"
    with pytest.raises(PayloadTooLarge, match="the result has 4 bytes, the limit is 3"):
        check_size(b"1234", 3, "the result")


@patient
@given(st.binary() | plain.map(lambda value: json.dumps(value).encode()))
def test_reading_anything_never_breaks(stored: bytes) -> None:
    """Any bytes are read, or raise SerializationError and nothing else."""
    for annotation in (
        Any,
        Choice,
        Person,
        Options,
        Line | Money | list[int],
        dict[tuple[int, int], Odd],
        Json,
    ):
        try:
            Payload.of(annotation).decode(stored)
        except SerializationError:
            continue
