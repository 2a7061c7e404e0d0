"""Columns packed by hand are what Postgres reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from perdure.store.arrays import (
    Bigints,
    Blobs,
    Booleans,
    Column,
    Doubles,
    Integers,
    Reals,
    Smallints,
    Texts,
    register_arrays,
)

CASES: list[tuple[Callable[[Any], Column], str, list[Any]]] = [
    (Bigints, "bigint[]", [1, -(2**63), 2**63 - 1, None]),
    (Integers, "integer[]", [0, -(2**31), 2**31 - 1, None]),
    (Smallints, "smallint[]", [0, -(2**15), 2**15 - 1, None]),
    (Booleans, "boolean[]", [True, False]),
    (Reals, "real[]", [0.5, -2.0]),
    (Doubles, "double precision[]", [0.1, -1e300, None]),
    (Texts, "text[]", ["", 'qu"ote,{}', "ünïcode ☃", None]),
    (Blobs, "bytea[]", [b"", b"\0\xff", None]),
]


@pytest.mark.parametrize(("column", "kind", "values"), CASES, ids=[kind for _, kind, _ in CASES])
@pytest.mark.parametrize("length", ["none", "one", "all", "many"])
def test_a_column_arrives_as_it_was_sent(
    column: Callable[[Any], Column], kind: str, values: list[Any], length: str, database_url: str
) -> None:
    """Empty, single, with nulls, and long ones."""
    sent = {
        "none": [],
        "one": values[:1],
        "all": values,
        "many": random.Random(7).choices(values, k=3000),
    }[length]
    with psycopg.connect(database_url) as connection:
        register_arrays(connection)
        row = connection.execute(f"select %s::{kind}", (column(sent),)).fetchone()
    assert row == (sent,)
