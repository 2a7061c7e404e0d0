"""Exit codes, and which error ends with which: one line on stderr, never a traceback for what users can mend.

Scripts decide by the code alone, so each means one thing for every command and keeps its number.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import click
import psycopg

from perdure.errors import (
    DatabaseUnavailable,
    DefinitionError,
    PerdureError,
    RunEnded,
    ScheduleNotFound,
    SchemaMismatch,
    SerializationError,
    WorkflowConflict,
    WorkflowNotFound,
)

EXPLAINED: Final = (
    "Exit codes: 0 done; 1 failed otherwise; 2 wrong usage; 3 no such run or schedule; 4 the run is in the wrong state; "
    "5 the database is away; 6 the schema is missing, older or newer; 7 waited too long; 8 permission denied; "
    "9 a worker that is to be started again; 130 interrupted; 141 nobody reads on; 143 terminated."
)


class Exit(IntEnum):
    """What the code of the process says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    WRONG_STATE = 4
    AWAY = 5
    SCHEMA = 6
    TIMEOUT = 7
    DENIED = 8
    RECYCLED = 9
    INTERRUPTED = 130
    UNREAD = 141


class Failure(Exception):
    """Ends the command with one line on stderr.

    Args:
        code: the exit code.
        message: what is wrong and, if there is something, what to do; line breaks become spaces.
    """

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


@contextmanager
def refused_as_usage() -> Iterator[None]:
    """Within the block a value that perdure refuses is one that the caller of the command gave.

    Raises:
        UsageError: it was refused.
    """
    try:
        yield
    except (ValueError, TypeError, SerializationError) as error:
        raise click.UsageError(str(error)) from None


def failure_of(error: Exception) -> Failure | None:
    """How the command ends for an error, or None if the error is a bug."""
    match error:
        case DatabaseUnavailable():
            return Failure(Exit.AWAY, str(error))
        case SchemaMismatch():
            return Failure(Exit.SCHEMA, str(error))
        case WorkflowNotFound() | ScheduleNotFound():
            return Failure(Exit.NOT_FOUND, str(error))
        case WorkflowConflict() | RunEnded():
            return Failure(Exit.WRONG_STATE, str(error))
        case DefinitionError():
            return Failure(Exit.USAGE, str(error))
        case psycopg.Error():
            return _failure_of_database(error)
        case PerdureError():
            return Failure(Exit.FAILED, str(error))
        case _:
            return None


def failure_of_output(error: OSError) -> Failure | None:
    """How the command ends if its answer could not be written, or None if that is not what the error says.

    What is left of the answer is thrown away, else Python would try again at its end.
    """
    if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT):
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if error.errno == errno.EPIPE:  # as of any program in front of `head`
        return Failure(Exit.UNREAD, "")
    return Failure(Exit.FAILED, f"the answer cannot be written: {error.strerror}")


def _failure_of_database(error: psycopg.Error) -> Failure:
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return Failure(Exit.DENIED, f"the database refuses: {error}")
        case (
            psycopg.errors.UndefinedTable()
            | psycopg.errors.UndefinedColumn()
            | psycopg.errors.UndefinedFunction()
        ):
            return Failure(Exit.SCHEMA, f"the schema is not perdure's, or is damaged: {error}")
        case psycopg.ProgrammingError(sqlstate=None):
            # libpq quotes what it could not read, which may be a password with a special character.
            return Failure(
                Exit.USAGE,
                "the database URL cannot be read: write postgresql://user:password@host:5432/name (special characters in a "
                "password as %40 and the like), or host=... dbname=...",
            )
        case psycopg.OperationalError():
            return Failure(Exit.AWAY, f"the database does not answer: {error}")
        case _:
            return Failure(Exit.FAILED, f"the database refuses: {error}")
