"""Arguments travel by their own annotations; a wrong call fails in the caller, in Python's words."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest

from perdure.errors import SerializationError
from perdure.serial import Signature

if TYPE_CHECKING:
    from somewhere import Connection  # type: ignore[import-not-found]

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@dataclass
class Order:
    id: str
    quantity: int = 1


class Options(TypedDict, total=False):
    when: datetime
    loud: bool


async def checkout(order: Order, times: int = 2, *notes: str, loud: bool = False, **rest: Order) -> Order:
    return order


def strict(one: int, /, two: int, *, three: datetime) -> None: ...


def bare(one, two=2): ...  # type: ignore[no-untyped-def]


def late(order: Later) -> list[Later]:
    return [order]


def transaction(conn: Connection, sku: str) -> Connection:
    return conn


def unpacked(**options: Unpack[Options]) -> None: ...


class Shop:
    def sell(self, order: Order) -> None: ...


@dataclass
class Later:
    name: str


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], bytes]] = [
    (checkout, (Order("a"),), {}, b'{"args":[{"id":"a","quantity":1}]}'),
    (
        checkout,
        (Order("a"), 1, "b", "c"),
        {"loud": True, "other": Order("d")},
        b'{"args":[{"id":"a","quantity":1},1,"b","c"],"kwargs":{"loud":true,"other":{"id":"d","quantity":1}}}',
    ),
    (checkout, (), {"order": Order("a")}, b'{"kwargs":{"order":{"id":"a","quantity":1}}}'),
    (strict, (1, 2), {"three": NOON}, b'{"args":[1,2],"kwargs":{"three":"2026-03-01T12:30:00Z"}}'),
    (bare, ([1], {"a": None}), {}, b'{"args":[[1],{"a":null}]}'),
    (late, (Later("x"),), {}, b'{"args":[{"name":"x"}]}'),
    (unpacked, (), {"when": NOON}, b'{"kwargs":{"when":"2026-03-01T12:30:00Z"}}'),
    (lambda: None, (), {}, b"{}"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "stored"), CALLS)
def test_calls_come_back_as_they_were(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], stored: bytes
) -> None:
    """The arguments have the expected form, and are read as they were given."""
    signature = Signature(function)
    signature.bind(args, kwargs)
    assert signature.encode_call(args, kwargs) == stored
    assert signature.decode_call(stored) == (args, kwargs)
    assert signature.record_call(args, kwargs) == (stored, args, kwargs)


@pytest.mark.parametrize(
    "stored",
    [
        b'{"args":[{"id":"x"}]}',
        b'{"kwargs":{"order":{"id":"x"}}}',
        b' [ {"id": "x", "colour": "red"} ] ',
        b'{"args":[],"kwargs":{"order":{"id":"x"}},"note":"unknown"}',
    ],
)
def test_calls_written_by_hand_are_read(stored: bytes) -> None:
    """JSON from SQL or another language is a call, as long as it fits."""
    args, kwargs = Signature(checkout).decode_call(stored)
    assert [*args, *kwargs.values()] == [Order("x")]


@pytest.mark.parametrize("stored", [b"{}", b"[]", b"null"])
def test_no_arguments_may_be_written_in_three_ways(stored: bytes) -> None:
    """An empty object, an empty array and null all mean a call without arguments."""
    assert Signature(lambda: None).decode_call(stored) == ((), {})


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (b'{"args":[{"id":1}]}', "argument 'order' of checkout()"),
        (b'{"args":[{"id":"a"},1,2]}', "argument '*notes' of checkout()"),
        (b'{"args":[{"id":"a"}],"kwargs":{"rest":1}}', "argument 'rest' of checkout()"),
        (b'{"order":{"id":"a"}}', "missing 1 required positional argument: 'order'"),
        (b'{"args":{"order":1}}', "cannot read the arguments"),
        (b"7", "cannot read the arguments"),
        (b"", "cannot read the arguments"),
    ],
)
def test_stored_calls_that_do_not_fit_raise(stored: bytes, words: str) -> None:
    """A row that is no call of this function raises, and says what is wrong."""
    with pytest.raises(SerializationError) as caught:
        Signature(checkout).decode_call(stored)
    assert words in str(caught.value)


WRONG: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (bare, (), {}),
    (bare, (1, 2, 3), {}),
    (bare, (1,), {"one": 2}),
    (bare, (1,), {"three": 3}),
    (strict, (), {"three": NOON}),
    (strict, (1, 2), {}),
    (strict, (1, 2), {"three": NOON, "four": 4}),
    (checkout, (), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), WRONG)
def test_wrong_calls_fail_as_python_says(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """The text is the one that the call itself would give."""
    with pytest.raises(TypeError) as expected:
        function(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        Signature(function).bind(args, kwargs)
    assert str(caught.value) == str(expected.value)


def test_a_positional_only_argument_is_not_given_by_name() -> None:
    """What Python refuses is refused."""
    with pytest.raises(TypeError, match="strict"):
        Signature(strict).bind((), {"one": 1, "two": 2, "three": NOON})


def test_a_wrong_argument_names_itself() -> None:
    """A value that does not fit its annotation raises with the argument's name."""
    with pytest.raises(
        SerializationError, match=r"argument 'order' of checkout\(\): cannot write Order at \.id"
    ):
        Signature(checkout).encode_call((Order(1),), {})  # type: ignore[arg-type]


def test_the_connection_of_a_transaction_is_skipped() -> None:
    """A leading argument that no caller gives is no argument, and its annotation may be unknown."""
    signature = Signature(transaction, skip=1)
    signature.bind(("a",), {})
    assert signature.decode_call(signature.encode_call(("a",), {})) == (("a",), {})
    with pytest.raises(TypeError, match="unexpected keyword argument 'conn'"):
        signature.bind(("a",), {"conn": 1})
    with pytest.raises(SerializationError, match="'Connection' cannot be resolved"):
        signature.result.encode(1)


def test_self_is_skipped() -> None:
    """A method's own instance is no argument."""
    signature = Signature(Shop.sell, skip=1)
    assert signature.encode_call((Order("a"),), {}) == b'{"args":[{"id":"a","quantity":1}]}'


def test_the_result_is_of_the_declared_class() -> None:
    """The declared result is what is stored, also of `async def`; none declared means untyped."""
    assert Signature(checkout).result.record(Order("a"))[1] == Order("a")
    assert Signature(late).result.record([Later("a")])[1] == [Later("a")]
    assert Signature(bare).result.annotation is Any
    with pytest.raises(SerializationError):
        Signature(checkout).result.encode(None)


def test_a_wrapped_function_keeps_its_annotations() -> None:
    """A decorator by `functools.wraps` in another module changes nothing."""

    @functools.wraps(checkout)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return checkout(*args, **kwargs)

    assert Signature(wrapper).encode_call((Order("a"),), {}) == b'{"args":[{"id":"a","quantity":1}]}'


def test_names_of_the_enclosing_function_are_found() -> None:
    """An annotation may name a local class that the body uses."""

    @dataclass
    class Local:
        name: str

    def work(it: Local) -> Local:
        return Local(it.name)

    assert Signature(work).record_call((Local("a"),), {})[1] == (Local("a"),)


def test_arguments_are_copies() -> None:
    """What the code gets shares nothing with what the caller holds."""
    order = Order("a")
    assert Signature(checkout).record_call((order,), {})[1][0] is not order
