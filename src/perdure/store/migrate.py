"""Migrations: numbered, forward only, one at a time whatever number of processes starts.

The first starter takes an advisory lock for the length of a transaction and applies what is missing, all
in that transaction; the others wait for it and find nothing to do. A schema that is newer than the code
is refused: its rows may mean what this code does not know.
"""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg

from perdure import sql
from perdure.errors import SchemaMismatch
from perdure.store.connection import Connection
from perdure.store.database import Database


def migrate(database: Database, *, apply: bool = True) -> list[str]:
    """Bring the schema up to this code, or only check that it is.

    Args:
        database: the open database.
        apply: False changes nothing, and refuses a schema that lacks a migration.

    Returns:
        The names of the migrations applied.

    Raises:
        SchemaMismatch: the schema is newer than this code, or older and `apply` is False.
    """
    if _applied(database) == {migration.number for migration in sql.migrations(database.schema)}:
        return []  # the common case takes no lock

    def work(connection: Connection) -> list[str]:
        with connection.transaction():
            connection.execute(database.statements["lock_migrations"], {"key": _lock_key(database.schema)})
            return _apply(connection, database, apply)

    return database.repeat(work)


def _apply(connection: Connection, database: Database, apply: bool) -> list[str]:
    known = sql.migrations(database.schema)
    _create_ledger(connection, database, apply)
    rows = connection.execute(database.statements["applied_migrations"], ()).fetchall()
    done = {number for (number,) in rows}
    if newer := sorted(done - {migration.number for migration in known}):
        raise SchemaMismatch(
            f"schema {database.schema!r} has migration {newer[-1]}, this version of perdure knows only up to "
            f"{known[-1].number}: upgrade perdure here (schemas are never taken back)"
        )
    missing = [migration for migration in known if migration.number not in done]
    if missing and not apply:
        raise SchemaMismatch(
            f"schema {database.schema!r} lacks migration {missing[0].number} ({missing[0].name}): "
            "run `perdure migrate`, or open the app with migrate=True"
        )
    for migration in missing:
        connection.execute(migration.sql, prepare=False)
        parameters: dict[str, Any] = {"number": migration.number, "name": migration.name}
        connection.execute(database.statements["note_migration"], parameters)
    return [f"{migration.number:04} {migration.name}" for migration in missing]


def _create_ledger(connection: Connection, database: Database, apply: bool) -> None:
    exists = connection.execute(database.statements["ledger_exists"], ()).fetchone()
    if exists and exists[0]:
        return
    if not apply:
        raise SchemaMismatch(
            f"there is no perdure schema {database.schema!r} in this database: run `perdure migrate`, "
            "or open the app with migrate=True"
        )
    connection.execute(database.statements.plain("create_ledger"), prepare=False)


def _applied(database: Database) -> set[int]:
    try:
        (exists,) = database.run("ledger_exists")[0]
        return {number for (number,) in database.run("applied_migrations")} if exists else set()
    except psycopg.errors.InsufficientPrivilege:
        return set()


def _lock_key(schema: str) -> int:
    digest = hashlib.blake2b(f"perdure migrate {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
