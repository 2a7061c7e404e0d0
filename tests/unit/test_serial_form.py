"""The stored form, byte for byte: it is a format, and a change would break the runs that are stored.

A failure here means that rows written by the last release no longer read the same. Add a case for a new kind of
value; never change one.
"""

from __future__ import annotations

import sys
import types
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest

from perdure.serial import Payload, Signature, decode_failure, encode_failure
from tests.serial_types import (
    Address,
    Box,
    Choice,
    Colour,
    Computed,
    Customer,
    Level,
    Line,
    Money,
    Node,
    Odd,
    Order,
    Packet,
    Pair,
    Person,
    Point,
    Rights,
)

NOON = datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=UTC)

FORMS: list[tuple[Any, Any, bytes]] = [
    (None, None, b"null"),
    (bool, False, b"false"),
    (int, -(10**20), b"-100000000000000000000"),
    (float, 1e100, b"1e100"),
    (float, 0.1, b"0.1"),
    (str, 'a"\\\n\0é', b'"a\\"\\\\\\n\\u0000\xc3\xa9"'),
    (Any, {"b": [1, 2.0, None, True], "a": {}}, b'{"b":[1,2.0,null,true],"a":{}}'),
    (bytes, b"\x00\xff", b'"AP8="'),
    (datetime, NOON, b'"2026-03-01T12:30:00.000005Z"'),
    (datetime, NOON.replace(tzinfo=None), b'"2026-03-01T12:30:00.000005"'),
    (date, date(2026, 3, 1), b'"2026-03-01"'),
    (time, time(1, 2, 3), b'"01:02:03"'),
    (timedelta, timedelta(days=1, seconds=2, microseconds=3), b'"P1DT2.000003S"'),
    (timedelta, -timedelta(days=1), b'"-P1D"'),
    (Decimal, Decimal("1.50"), b'"1.50"'),
    (UUID, UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    (Colour, Colour.RED, b'"red"'),
    (Level, Level.HIGH, b"2"),
    (Odd, Odd.PAIR, b'"PAIR"'),
    (Rights, Rights.READ | Rights.WRITE, b"3"),
    (Literal[Colour.RED, 1], Colour.RED, b'"red"'),
    (set[int], {1}, b"[1]"),
    (tuple[int, str], (1, "a"), b'[1,"a"]'),
    (dict[int, str], {1: "a"}, b'{"1":"a"}'),
    (dict[tuple[int, int], str], {(1, 2): "a"}, b'[[[1,2],"a"]]'),
    (Line, Line("a"), b'{"sku":"a","quantity":1}'),
    (
        Order,
        Order(UUID(int=1), [Line("a")], Money(Decimal("1.5"))),
        (
            b'{"id":"00000000-0000-0000-0000-000000000001","lines":[{"sku":"a","quantity":1}],'
            b'"total":{"amount":"1.5","currency":"EUR"},"tags":[],"placed":null,"version":1}'
        ),
    ),
    (Node, Node(1, [Node(2)]), b'{"value":1,"children":[{"value":2,"children":[]}]}'),
    (Choice, Choice(Line("a")), b'{"either":{"$type":"Line","sku":"a","quantity":1},"children":[]}'),
    (Box[Line | Money], Box(Line("a")), b'{"content":{"$type":"Line","sku":"a","quantity":1},"more":[]}'),
    (Computed, Computed(2), b'{"price":2,"double":4}'),
    (Point, Point(1), b'{"x":1,"y":0.0}'),
    (Packet, Packet(1, b"a"), b'{"orderId":1,"payload":"YQ=="}'),
    (Pair, Pair(1, Line("a")), b'{"left":1,"right":{"$type":"Line","sku":"a","quantity":1}}'),
    (Customer, Customer("a"), b'{"name":"a","_score":3,"born":null}'),
    (Address, Address(street="a"), b'{"street":"a","since":null}'),
    (
        Person,
        Person.model_validate({"address": {"street": "a"}, "Name": "b"}),
        b'{"address":{"street":"a","since":null},"name":"b","friends":[]}',
    ),
    (str | datetime, NOON, b'{"$type":"datetime","$value":"2026-03-01T12:30:00.000005Z"}'),
    (Line | Money, Money(Decimal(1)), b'{"$type":"Money","amount":"1","currency":"EUR"}'),
]


@pytest.mark.parametrize(("annotation", "value", "stored"), FORMS, ids=str)
def test_values_have_the_stored_form(annotation: Any, value: Any, stored: bytes) -> None:
    """Each kind of value is written in these bytes, and these bytes are read as it."""
    assert Payload.of(annotation).encode(value) == stored
    assert Payload.of(annotation).decode(stored) == value


def test_calls_have_the_stored_form() -> None:
    """Arguments stand under `args` and `kwargs`, the empty ones left out."""

    def work(line: Line, *, when: date | None = None) -> None: ...

    signature = Signature(work)
    stored = b'{"args":[{"sku":"a","quantity":1}],"kwargs":{"when":"2026-03-01"}}'
    assert signature.encode_call((Line("a"),), {"when": date(2026, 3, 1)}) == stored
    assert signature.encode_call((Line("a"),), {}) == b'{"args":[{"sku":"a","quantity":1}]}'


def test_errors_have_the_stored_form() -> None:
    """An error is an object of its class, text, args, attributes, notes and cause."""
    error = OSError(2, "gone", "file")
    error.add_note("a remark")
    error.__cause__ = ValueError(Decimal("1.5"), (1,))
    stored = encode_failure(error)
    found = stored.partition(b',"traceback":')[0], stored.partition(b',"cause":')[2]
    assert found == (
        (
            b'{"module":"builtins","name":"FileNotFoundError","message":"[Errno 2] gone: \'file\'",'
            b'"args":[2,"gone"],"attributes":{"errno":2,"strerror":"gone","filename":"file"},"notes":["a remark"]'
        ),
        (
            b'{"module":"builtins","name":"ValueError","message":"(Decimal(\'1.5\'), (1,))",'
            b'"args":[{"$type":"Decimal","$value":"1.5"},{"$type":"tuple","$value":[1]}]}}'
        ),
    )
    assert repr(decode_failure(stored).__cause__) == repr(error.__cause__)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is new in Python 3.12")
def test_the_new_syntax_has_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """`type` aliases and generic classes in brackets are carried as the old spelling is."""
    source = """
from dataclasses import dataclass
type Names = list[str]
type Many[T] = T | list[T]
type Json = int | list[Json]
@dataclass
class Crate[T]:
    content: T
    label: Names
    either: Many[T]
def work[T](it: Crate[int], *names: Names) -> Json: ...
"""
    for future in ("", "from __future__ import annotations\n"):
        module = types.ModuleType("module_of_crates")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        names = vars(module)
        exec(compile(future + source, "crate", "exec", dont_inherit=True), names)
        crate = names["Crate"](1, ["a"], [2])
        stored = b'{"args":[{"content":1,"label":["a"],"either":[2]},["b"]]}'
        signature = Signature(names["work"])
        assert signature.encode_call((crate, ["b"]), {}) == stored
        assert signature.decode_call(stored) == ((crate, ["b"]), {})
        assert signature.result.record([1, [2]])[1] == [1, [2]]
