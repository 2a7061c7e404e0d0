"""Connections that are the user's: a run is started in his own open transaction, and committed or rolled back with it.

What is executed here goes through a cursor of its own, since the connection may make rows and cursors as its owner
likes; and nothing here commits, rolls back, or changes the connection.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from perdure.errors import Deduplicated, PerdureError, QueueFull
from perdure.sql import Statements
from perdure.store.database import Database
from perdure.store.session import Use

ENDED_STATE: Final = "PD004"
DUPLICATE_STATE: Final = "PD007"
FULL_STATE: Final = "PD008"


class TargetEnded(Exception):
    """The message that goes with a start found a run that has ended."""


class Found(NamedTuple):
    """The run that has the id after a start, and whether that start made it."""

    key: int
    id: str
    workflow: str
    created: bool


def check_connection(connection: object) -> None:
    """Refuse what is no connection of psycopg.

    Raises:
        TypeError: it is something else, such as a session of an ORM.
    """
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        raise TypeError(
            f"connection= takes an open psycopg.Connection or psycopg.AsyncConnection, not {type(connection).__name__}: "
            "with another driver or an ORM, execute `select perdure.start(...)` in its transaction"
        )


def is_async(connection: object) -> bool:
    """Whether it is one for async code."""
    return isinstance(connection, psycopg.AsyncConnection)


def is_open(connection: Any) -> bool:
    """Whether a transaction is open on it, which also one is that has failed."""
    idle = (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
    return not connection.closed and connection.info.transaction_status not in idle


def start(
    connection: Any, statements: Statements, parameters: Mapping[str, Any]
) -> Generator[Use, Any, Found | None]:
    """Start a run on the user's connection; None if that leads to another database than the app's.

    Raises:
        PerdureError: there is no schema of perdure's, or an older one.
        TargetEnded: the message that goes with it found a run that has ended.
        Deduplicated: an unfinished run of the queue has its `dedup`.
        QueueFull: the queue has no room.
    """
    waits = is_async(connection)
    made: type[Any] = psycopg.AsyncCursor if waits else psycopg.Cursor
    cursor = made(connection, row_factory=tuple_row)
    try:
        yield Use(cursor.execute, (statements["start_on_connection"], parameters), is_async=waits)
        row = yield Use(cursor.fetchone, is_async=waits)
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
        raise PerdureError(
            f"where connection= leads to, there is no schema {statements.schema!r} of this version of perdure"
        ) from error
    except psycopg.Error as error:
        if error.sqlstate == ENDED_STATE:
            raise TargetEnded from error
        if error.sqlstate == DUPLICATE_STATE:
            raise Deduplicated(error.diag.message_primary) from error
        if error.sqlstate == FULL_STATE:
            raise QueueFull(error.diag.message_primary) from error
        raise
    finally:
        yield Use(cursor.close, is_async=waits)
    return None if row[0] is None else Found(*row)


def exists(database: Database, key: int) -> bool:
    """Whether a run has been committed."""
    return bool(database.run("run_exists", {"key": key}))
