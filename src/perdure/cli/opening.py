"""Opening what a command works with: an app that runs nothing, or, to migrate, the bare database.

Apps wait half a minute for a database that is away, which is right for a service and wrong for somebody at a
prompt, so a command first knocks once. And a command that looks must not make an embedded server where there
was none: in the wrong folder it would find an empty database, and leave one behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from perdure import sync
from perdure.cli.exits import Exit, Failure
from perdure.errors import DatabaseUnavailable
from perdure.store.connection import connect

EMBEDDED_FOLDER: Final = ".perdure"
EMBEDDED_DATA: Final = Path(EMBEDDED_FOLDER, "postgres", "data", "PG_VERSION")
"""What there is if an embedded server was made here: the folder alone is no database."""


@contextmanager
def client(database: str | None, schema: str | None, **settings: Any) -> Iterator[sync.Perdure]:
    """An open app that runs nothing and changes no schema; `settings` are further arguments for it.

    Raises:
        Failure: a setting has a value that it cannot have.
        DatabaseUnavailable: the database cannot be reached, or there is none.
        SchemaMismatch: the schema is missing, older or newer.
    """
    url = url_of(database)
    if url is not None:
        knock(url)
    elif not EMBEDDED_DATA.is_file():
        raise DatabaseUnavailable(
            f"there is no database in {EMBEDDED_FOLDER}/ of this folder: go to the one where it is, or name a database "
            "with --database or PERDURE_DATABASE_URL"
        )
    with settings_refused():
        app = sync.Perdure(database, schema=schema, worker=False, migrate=False, **settings)
    with app:
        yield app


@contextmanager
def settings_refused() -> Iterator[None]:
    """Within the block settings are read, from options and from the environment.

    Raises:
        Failure: one has a value that it cannot have.
    """
    try:
        yield
    except ValueError as error:
        raise Failure(Exit.USAGE, str(error)) from None


def url_of(database: str | None) -> str | None:
    """The URL given, else PERDURE_DATABASE_URL, else None: the embedded server."""
    return database or os.environ.get("PERDURE_DATABASE_URL") or None


def knock(url: str) -> None:
    """Connect once.

    Raises:
        DatabaseUnavailable: it does not answer, or lets nobody in under this name.
        psycopg.ProgrammingError: the URL cannot be read.
        Failure: its port is none.
    """
    for port in filter(None, str(conninfo_to_dict(url).get("port", "")).split(",")):
        if not (port.isdecimal() and 0 < int(port) < 65536):
            raise Failure(Exit.USAGE, f"the database URL has the port {port!r}; ports are from 1 to 65535")
    try:
        connect(url, name="command").close()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database does not answer: {error}") from error
