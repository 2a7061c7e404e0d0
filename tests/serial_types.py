"""Classes of every kind that a payload can hold, for the tests of payloads."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import (
    Final,
    Generic,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import msgspec
from hypothesis import HealthCheck, settings
from pydantic import BaseModel, Field, PrivateAttr
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType

T = TypeVar("T")


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    HALF = 0.5
    PAIR = (1, 2)
    NOTHING = None


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Line:
    sku: str
    quantity: int = 1


@dataclass
class BigLine(Line):
    pallets: int = 0


@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Order:
    id: UUID
    lines: list[Line] = field(default_factory=list)
    total: Money | None = None
    tags: frozenset[str] = frozenset()
    placed: datetime | None = None
    version: Final[int] = 1


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


@dataclass
class Choice:
    either: Line | Money
    children: list[Choice] = field(default_factory=list)


@dataclass
class Computed:
    price: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = self.price * 2


@dataclass
class Unstable:
    price: int

    def __post_init__(self) -> None:
        self.price *= 2


@dataclass
class Hidden:
    _secret: int
    open: str = "yes"

    @cached_property
    def derived(self) -> object:
        return object()


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class IntBox(Box[int]):
    extra: str = ""


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict):
    name: str
    depth: NotRequired[int]


class Packet(msgspec.Struct, rename="camel"):
    order_id: int
    payload: bytes = b""


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: Line | Money


@attrs.frozen
class Customer:
    name: str
    _score: int = attrs.field(default=3, validator=attrs.validators.ge(0))
    born: date | None = None


class Address(BaseModel):
    street: str
    since: datetime | None = None


class Home(Address):
    floor: int = 0


class Person(BaseModel):
    address: Address
    name: str = Field("nobody", serialization_alias="NAME", validation_alias="Name")
    friends: list[Person] = []
    _cache: object = PrivateAttr(default=None)


@pydantic_dataclass
class Parcel:
    weight: float
    to: Address


@dataclass
class Delivery:
    parcel: Parcel
    people: dict[int, Person]


# The first text that hypothesis draws on a machine takes seconds, as it makes its table of characters.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

UserId = NewType("UserId", int)
Names = TypeAliasType("Names", "list[str]")
Many = TypeAliasType("Many", "list[T] | dict[str, T]", type_params=(T,))
Json = TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
ONE = UUID(int=1)


def person(street: str, *friends: Person) -> Person:
    """Make a Person; type checkers do not know its alias."""
    return Person.model_validate({"address": {"street": street}, "Name": street, "friends": list(friends)})
