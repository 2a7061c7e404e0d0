"""The database of one app: where it is, the statements for its schema, connections for every purpose.

Reads and small commands go through a pool and are repeated when the connection was lost; what must not be
repeated blindly does not go through here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from perdure import sql
from perdure.errors import DatabaseUnavailable
from perdure.policy import backoff
from perdure.store.connection import ANSWER_WITHIN, Connection, connect, is_lost
from perdure.store.embedded import EmbeddedPostgres
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, fetch, rows

logger = logging.getLogger("perdure.database")
T = TypeVar("T")

MAX_CONNECTIONS: Final = 8
MAX_CHANNEL_BYTES: Final = 64
TRY_FOR: Final = 30.0
"""Seconds for which a command is repeated while the database is away, before its caller is told."""
SETTINGS: Final = " -c idle_in_transaction_session_timeout=60s -c jit=off -c enable_seqscan=off"
"""For every connection of ours. A plan that was made while a table was empty is kept until the table is analyzed, and is to
be right for a million rows, so it may only follow indexes: else a send reads all messages, the end of a run all dead ones."""
PLAN_ONCE: Final = " -c plan_cache_mode=force_generic_plan -c enable_bitmapscan=off"
"""For statements with arrays, which Postgres would plan anew each time: a claim takes 0.5 ms, and 1.2 to plan."""


# libpq gives no SQLSTATE with a refused connection: these are its words for what no waiting mends.
_FINAL: Final = re.compile(
    r"(database|role) \".*\" does not exist|password authentication failed|no password supplied|pg_hba\.conf|"
    r"could not translate host name|invalid (port|URI)|is not permitted to log in"
)


def check_url(url: str | None) -> None:
    """Refuse what is no conninfo.

    Raises:
        ValueError: libpq cannot read it.
    """
    try:
        conninfo_to_dict(url or "")
    except psycopg.ProgrammingError:
        raise ValueError(
            "database= must be a URL such as postgresql://user@host/name, or a conninfo string; this one cannot be read"
        ) from None


class Database:
    """One Postgres database and schema.

    Args:
        url: conninfo or URL; None takes `PERDURE_DATABASE_URL`, and without it the embedded server.
        schema: name of perdure's schema, any text that Postgres takes as an identifier.
        pooler: connections go through a transaction pooler: no session state, no prepared statements.
        configure: called with every new connection of the engine.
    """

    def __init__(
        self,
        url: str | None = None,
        schema: str = "perdure",
        *,
        pooler: bool = False,
        configure: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> None:
        self.statements = sql.load(schema)
        self.schema: Final = schema
        self.pooler: Final = pooler
        self._configure = configure
        given = url or os.environ.get("PERDURE_DATABASE_URL")
        self.embedded: Final = None if given else EmbeddedPostgres()
        self.url: str = given or ""
        self._idle: list[Connection] = []
        self._closed = False
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(MAX_CONNECTIONS)

    @property
    def channel(self) -> str:
        """The channel on which hints are sent: one for each schema."""
        name = f"perdure {self.schema}"
        if len(name.encode()) < MAX_CHANNEL_BYTES:
            return name
        # As the function `channel` of the schema has it, which speaks for callers from SQL.
        return "perdure " + hashlib.sha256(self.schema.encode()).hexdigest()[:32]

    def open(self) -> None:
        """Start the embedded server, if it is the one."""
        self._closed = False
        if self.embedded is not None:
            self.url = self.embedded.start()
        self._reach()

    def _reach(self) -> None:
        """Wait for the first connection; an answer that will not change is final at once."""
        failures, until = 0, time.monotonic() + TRY_FOR
        while True:
            try:
                with self.borrow():
                    return
            except psycopg.OperationalError as error:
                text = " ".join(str(error).split())
                if "unsupported startup parameter" in text:
                    raise DatabaseUnavailable(
                        f"a pooler does not let us in: {text}. Where it is in transaction mode, say transaction_pooler=True"
                    ) from error
                if _FINAL.search(text):
                    raise DatabaseUnavailable(f"the database does not let us in: {text}") from error
                if time.monotonic() > until:
                    raise DatabaseUnavailable(f"the database cannot be reached: {text}") from error
                if not failures:
                    logger.warning("the database cannot be reached yet (%s); trying for %g s", text, TRY_FOR)
                failures += 1
                time.sleep(backoff(failures))

    def close(self) -> None:
        """Close idle connections, and lent ones as they come back; leave the embedded server."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closed = True
        for connection in idle:
            connection.close()
        if self.embedded is not None:
            self.embedded.stop()

    def connect(
        self,
        name: str,
        answer_within: float = 30.0,
        *,
        lock_timeout: float | None = None,
        plan_once: bool = False,
        **settings: Any,
    ) -> Connection:
        """Open a connection of its own for one of the engine's threads.

        Args:
            name: what it is for.
            answer_within: seconds in which everything must be answered.
            lock_timeout: seconds to wait for a lock, where a statement does not say so itself.
            plan_once: plan each statement once, for any values and however large the tables become.
            settings: further parameters of libpq.

        Raises:
            psycopg.OperationalError: the database is away.
        """
        if not self.pooler:
            given = conninfo_to_dict(self.url).get("options") or ""
            settings["options"] = f"{given}{SETTINGS}"
            if plan_once:
                settings["options"] += PLAN_ONCE
            if lock_timeout is not None:
                settings["options"] += f" -c lock_timeout={int(lock_timeout * 1000)}ms"
        try:
            connection = connect(
                self.url, name=name, answer_within=answer_within, prepare=not self.pooler, **settings
            )
        except psycopg.OperationalError:
            if self.embedded is not None:
                self.embedded.ensure()
            raise
        if self._configure is not None:
            self._configure(connection)
        return connection

    @contextmanager
    def borrow(self, answer_within: float = ANSWER_WITHIN) -> Iterator[Connection]:
        """Lend a pooled connection; it is dropped if the block fails on it."""
        with self._slots:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self.connect("query", answer_within)
            connection.answer_within = answer_within
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            with self._lock:
                kept = not self._closed
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.close()

    def run(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        answer_within: float = ANSWER_WITHIN,
        *,
        prepare: bool | None = None,
    ) -> list[tuple[Any, ...]]:
        """Execute one named statement that may safely be repeated, and return its rows.

        Args:
            name: of the statement.
            parameters: its values.
            answer_within: seconds to wait for the answer.
            prepare: False has it planned for these very values; by default it is prepared where that can be.
        """
        given = parameters or {}
        if prepare is False:
            return self.repeat(lambda connection: self._planned_anew(connection, name, given), answer_within)
        return self.repeat(lambda connection: self.fetch(connection, name, given), answer_within)

    def fetch(
        self, connection: Connection, name: str, parameters: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        """Execute one named statement on this connection, and return its rows.

        Raises:
            psycopg.Error: as psycopg's own `execute`.
        """
        return fetch(connection, Statement(self.statements[name], parameters, name))

    def _planned_anew(
        self, connection: Connection, name: str, parameters: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        return connection.execute(self.statements[name], parameters, binary=True, prepare=False).fetchall()

    def transaction(self, *steps: tuple[str, Mapping[str, Any]]) -> list[list[tuple[Any, ...]]]:
        """Execute named statements as one transaction that may safely be repeated; return the rows of each.

        They travel in one packet, so their parameters have to be such as `store.prepared` packs.
        """
        packet = [Statement(self.statements[name], parameters, name) for name, parameters in steps]

        def all_of(connection: Connection) -> list[list[tuple[Any, ...]]]:
            _, *results, _ = execute(connection, [BEGIN, *packet, COMMIT])
            return [rows(connection, result) for result in results]

        return self.repeat(all_of)

    def repeat(self, work: Callable[[Connection], T], answer_within: float = ANSWER_WITHIN) -> T:
        """Do `work` with a connection, again if the connection was lost, for some time.

        Raises:
            DatabaseUnavailable: the database stayed away.
        """
        failures, until = 0, time.monotonic() + TRY_FOR
        while True:
            try:
                with self.borrow(answer_within) as connection:
                    return work(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
                transient = isinstance(
                    error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected
                )
                if not (transient or is_lost(error)):
                    raise
                failures += 1
                if time.monotonic() > until:
                    raise DatabaseUnavailable(f"the database does not answer: {error}") from error
                time.sleep(backoff(failures))
