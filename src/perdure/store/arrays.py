"""Array parameters packed by hand: a batch is a handful of columns, and packing them is its main cost.

psycopg's list dumper looks at every element; a column whose type is known packs several times faster
(a third of a batch's client time went there, measured on the prototype). The binary format of a
one-dimensional array is: dimensions, has-nulls, element oid, length, lower bound, then each element as a
length and its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import pack
from typing import Any, ClassVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Where Postgres counts from."""
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"


class Column:
    """One column of a batch, already in the wire's form."""

    __slots__ = ("data",)
    oid: ClassVar[int] = 0

    def __init__(self, element: int, count: int, nulls: bool, body: bytes) -> None:
        # An empty array has no dimensions.
        self.data = (
            pack(">iiiii", 1, nulls, element, count, 1) + body if count else pack(">iii", 0, 0, element)
        )


def _fixed(code: str, size: int, values: Sequence[Any]) -> bytes:
    if None in values:
        return b"".join(_NULL if value is None else pack(">i" + code, size, value) for value in values)
    flat: list[Any] = [size] * (2 * len(values))
    flat[1::2] = values
    return pack(">" + ("i" + code) * len(values), *flat)


class Bigints(Column):
    """A `bigint[]`."""

    __slots__ = ()
    oid = 1016

    def __init__(self, values: Sequence[int | None]) -> None:
        super().__init__(20, len(values), None in values, _fixed("q", 8, values))


class Integers(Column):
    """An `integer[]`."""

    __slots__ = ()
    oid = 1007

    def __init__(self, values: Sequence[int | None]) -> None:
        super().__init__(23, len(values), None in values, _fixed("i", 4, values))


class Smallints(Column):
    """A `smallint[]`."""

    __slots__ = ()
    oid = 1005

    def __init__(self, values: Sequence[int | None]) -> None:
        super().__init__(21, len(values), None in values, _fixed("h", 2, values))


class Booleans(Column):
    """A `boolean[]`."""

    __slots__ = ()
    oid = 1000

    def __init__(self, values: Sequence[bool]) -> None:
        super().__init__(16, len(values), False, _fixed("?", 1, values))


class Reals(Column):
    """A `real[]`."""

    __slots__ = ()
    oid = 1021

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__(700, len(values), False, _fixed("f", 4, values))


class Doubles(Column):
    """A `double precision[]`."""

    __slots__ = ()
    oid = 1022

    def __init__(self, values: Sequence[float | None]) -> None:
        super().__init__(701, len(values), None in values, _fixed("d", 8, values))


class Moments(Column):
    """A `timestamptz[]`, of datetimes with a zone."""

    __slots__ = ()
    oid = 1185

    def __init__(self, values: Sequence[datetime | None]) -> None:
        microseconds = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
        super().__init__(1184, len(values), None in values, _fixed("q", 8, microseconds))


class Texts(Column):
    """A `text[]`."""

    __slots__ = ()
    oid = 1009

    def __init__(self, values: Sequence[str | None]) -> None:
        encoded = [None if value is None else value.encode() for value in values]
        super().__init__(25, len(values), None in values, _varying(encoded))


class Blobs(Column):
    """A `bytea[]`."""

    __slots__ = ()
    oid = 1001

    def __init__(self, values: Sequence[bytes | None]) -> None:
        super().__init__(17, len(values), None in values, _varying(values))


def _varying(values: Sequence[bytes | None]) -> bytes:
    return b"".join([_NULL if value is None else pack(">i", len(value)) + value for value in values])


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> bytes:
        return obj.data


_DUMPERS = {
    kind: type(f"{kind.__name__}Dumper", (_ColumnDumper,), {"oid": kind.oid})
    for kind in (Bigints, Integers, Smallints, Booleans, Reals, Doubles, Moments, Texts, Blobs)
}


def register_arrays(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Teach a connection to send columns."""
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
