"""The journal's single-row statements, prepared and packed by hand.

One run at a time, a commit costs little more than the way there: psycopg's layers over libpq (a cursor, the
query's parameters found and adapted anew each time) took 40 of the 66 microseconds that such a statement costs
the client (measured). Its own generators and its wait, with the bound on every answer, are used as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from struct import Struct
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from perdure.store.connection import Connection

_PARAMETER: Final = re.compile(r"%\((\w+)\)s|%%")


def _boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


# By the oid of the type that Postgres finds for a parameter: int8, int4, int2, float4, bool, text, bytea.
_PACK: Final[Mapping[int, Callable[[Any], bytes]]] = {
    20: Struct(">q").pack,
    23: Struct(">i").pack,
    21: Struct(">h").pack,
    700: Struct(">f").pack,
    16: _boolean,
    25: str.encode,
    17: bytes,
}


class Plan(NamedTuple):
    """A prepared statement of one connection."""

    key: bytes
    names: tuple[str, ...]
    packers: tuple[Callable[[Any], bytes], ...]
    formats: tuple[int, ...]


def execute_prepared(connection: Connection, name: str, statement: str, parameters: Mapping[str, Any]) -> int:
    """Execute a statement in autocommit, prepared at its first use; return the number of rows it changed.

    Args:
        connection: in autocommit, not behind a transaction pooler.
        name: of the statement.
        statement: its text, with psycopg's named parameters, each of a type in `_PACK`.
        parameters: their values; more than it has are ignored.

    Raises:
        psycopg.Error: as `Connection.execute` would.
    """
    try:
        return _execute(connection, name, statement, parameters)
    except psycopg.errors.InvalidSqlStatementName:
        # psycopg deallocates everything that is prepared when a transaction was rolled back. What was prepared here since is
        # there all the same, so only this one is forgotten.
        connection.plans.pop(name, None)
        return _execute(connection, name, statement, parameters)


def _execute(connection: Connection, name: str, statement: str, parameters: Mapping[str, Any]) -> int:
    plan = connection.plans.get(name)
    if plan is None:
        plan = connection.plans[name] = _prepare(connection, name, statement)
    return answered(connection, send_prepared(connection, plan, parameters))


def send_prepared(connection: Connection, plan: Plan, parameters: Mapping[str, Any]) -> PQGen[list[PGresult]]:
    """Send a statement that is prepared; return what `answered` waits for the answer with, in whatever thread.

    Raises:
        psycopg.Error: whether it was sent is not known.
    """
    values = [
        None if (value := parameters[field]) is None else pack(value)
        for field, pack in zip(plan.names, plan.packers, strict=True)
    ]
    connection.pgconn.send_query_prepared(plan.key, values, plan.formats, 1)
    connection.pgconn.flush()
    answer: PQGen[list[PGresult]] = generators.execute(connection.pgconn)
    return answer


def answered(connection: Connection, answer: PQGen[list[PGresult]]) -> int:
    """Wait for the answer to what was sent; return the number of rows it changed.

    Raises:
        psycopg.Error: as `Connection.execute` would.
    """
    return _result(connection, answer, ExecStatus.COMMAND_OK).command_tuples or 0


def _prepare(connection: Connection, name: str, statement: str) -> Plan:
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        field = match[1]
        if field is None:
            return "%"
        if field not in names:
            names.append(field)
        return f"${names.index(field) + 1}"

    text = _PARAMETER.sub(number, statement)
    key = f"perdure_{name}".encode()
    connection.pgconn.send_prepare(key, text.encode())
    # It may be there, if an earlier try was cut off behind this: the text is the same.
    with suppress(psycopg.errors.DuplicatePreparedStatement):
        _answer(connection, ExecStatus.COMMAND_OK)
    connection.pgconn.send_describe_prepared(key)
    described = _answer(connection, ExecStatus.COMMAND_OK)
    packers = tuple(_PACK[described.param_type(place)] for place in range(len(names)))
    return Plan(key, tuple(names), packers, (1,) * len(names))


def _answer(connection: Connection, expected: ExecStatus) -> PGresult:
    return _result(connection, generators.execute(connection.pgconn), expected)


def _result(connection: Connection, answer: PQGen[list[PGresult]], expected: ExecStatus) -> PGresult:
    try:
        results = connection.wait(answer)
    except psycopg.OperationalError:
        if not connection.closed:
            connection.close()  # what it was doing is unknown
        raise
    result: PGresult = results[-1]
    if result.status != expected:
        raise psycopg.errors.error_from_result(result)
    return result
