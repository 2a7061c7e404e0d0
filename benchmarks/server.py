"""The Postgres under the benchmark: a private one with durable settings, or one that is already there.

The private server is the embedded one that users get, with a server's memory: what is measured should be
bound by commits and code, not by checkpoints. fsync stays on.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from perdure.store.binaries import find_binaries
from perdure.store.embedded import EmbeddedPostgres

SETTINGS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "max_connections": "300",
}
EXTENSION: Final = "pg_stat_statements"
LIBRARIES: Final = ("lib", "lib/postgresql", "lib64/pgsql")


class Server:
    """A running server, in which measures create databases of their own.

    Args:
        url: of any database in it, as a role that may create others.
        pid: of its main process, if that runs here.
        counts_statements: whether `pg_stat_statements` is loaded.
    """

    def __init__(self, url: str, *, pid: int | None = None, counts_statements: bool = False) -> None:
        self.url, self.pid = url, pid
        self._counts_statements = counts_statements
        self._names = (f"perdure_bench_{os.getpid()}_{number}" for number in itertools.count(1))

    @contextmanager
    def database(self, *, count_statements: bool = False) -> Iterator[str]:
        """Lend the URL of a fresh database, dropped afterwards, whoever is connected."""
        name = next(self._names)
        quoted = sql.Identifier(name)
        with self.connect() as connection:
            connection.execute(sql.SQL("create database {}").format(quoted))
            if count_statements and self._counts_statements:
                # Off everywhere else: counting costs a little, and is wanted of one measure alone.
                connection.execute(
                    sql.SQL("alter database {} set pg_stat_statements.track = 'top'").format(quoted)
                )
        try:
            yield as_url(conninfo_to_dict(self.url, dbname=name))
        finally:
            with self.connect() as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(quoted))

    def connect(self) -> psycopg.Connection[Any]:
        """Connect beside the measured databases."""
        return psycopg.connect(self.url, autocommit=True)

    def statements(self, database: str) -> tuple[int, str]:
        """How many statements a database has had, and what exactly was counted."""
        if self._counts_statements:
            query = """select coalesce(sum(s.calls), 0) from pg_stat_statements s
                       join pg_database d on d.oid = s.dbid where d.datname = %s"""
            what = "statements"
        else:
            query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
            what = "transactions"
        with self.connect() as connection:
            row = connection.execute(query, (_name(database),)).fetchone()
        assert row is not None
        return int(row[0]), what

    def forget_statements(self, database: str) -> None:
        """Begin to count the statements of a database anew."""
        if self._counts_statements:
            query = """select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = %s"""
            with self.connect() as connection:
                connection.execute(query, (_name(database),))

    def slowest_statements(self, database: str, limit: int = 12) -> list[tuple[int, int, float, str]]:
        """Calls, rows, microseconds and text of the statements that took most; nothing where none are counted."""
        if not self._counts_statements:
            return []
        query = """select s.calls, s.rows, s.total_exec_time * 1000, s.query
                   from pg_stat_statements s join pg_database d on d.oid = s.dbid
                   where d.datname = %s order by s.total_exec_time desc limit %s"""
        with self.connect() as connection:
            rows: list[tuple[int, int, float, str]] = connection.execute(
                query, (_name(database), limit)
            ).fetchall()
        return rows

    def cpu_seconds(self) -> float | None:
        """CPU time of the server's processes so far, or None if they run elsewhere."""
        if self.pid is None:
            return None
        total = 0.0
        for process in psutil.Process(self.pid).children():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def describe(self) -> str:
        """One line: version and the settings that matter."""
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size")
        with self.connect() as connection:
            values = [
                connection.execute(sql.SQL("show {}").format(sql.Identifier(n))).fetchone() for n in names
            ]
        texts = [str(value[0]) for value in values if value]
        return f"PostgreSQL {texts[0]}, " + ", ".join(
            f"{name}={text}" for name, text in zip(names[1:], texts[1:], strict=True)
        )


def as_url(conninfo: Mapping[str, Any]) -> str:
    """The same as a URL, which other libraries read too."""
    rest = {key: str(value) for key, value in conninfo.items() if value is not None}
    user, name = (quote(rest.pop(key, ""), safe="") for key in ("user", "dbname"))
    password = quote(rest.pop("password", ""), safe="")
    return f"postgresql://{user}{':' + password if password else ''}@/{name}?{urlencode(rest)}"


@contextmanager
def running(url: str | None) -> Iterator[Server]:
    """Lend the server of this URL, or a private one that is removed afterwards."""
    if url is not None:
        with psycopg.connect(url) as connection:
            loaded = connection.execute("show shared_preload_libraries").fetchone()
        yield Server(url, counts_statements=bool(loaded and EXTENSION in loaded[0]))
        return
    folder = Path(tempfile.mkdtemp(prefix="perdure-bench-"))
    settings = dict(SETTINGS)
    libraries = find_binaries().parent
    if countable := any(list(libraries.glob(f"{place}/{EXTENSION}.so")) for place in LIBRARIES):
        settings |= {"shared_preload_libraries": EXTENSION, f"{EXTENSION}.track": "none"}
    postgres = EmbeddedPostgres(folder / "server", settings=settings)
    try:
        url = postgres.start()
        if countable:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("create extension if not exists pg_stat_statements")
        yield Server(url, pid=postgres.pid(), counts_statements=countable)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _name(database: str) -> str:
    return str(conninfo_to_dict(database)["dbname"])
