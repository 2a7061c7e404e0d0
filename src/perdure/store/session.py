"""The database's half of a transaction step, written once for both colours of connection.

Its methods are generators that yield `Use`: call this function of psycopg's, and await it if the connection
is an asynchronous one. What can go wrong is translated into the few outcomes that the step's logic knows.

The connection forbids the user `commit()` and `rollback()`; a COMMIT sent as text is caught by the
connection's status, or by comparing the transaction's start.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.errors import InvalidSqlStatementName
from psycopg.pq import PipelineStatus, TransactionStatus

from perdure.errors import DatabaseUnavailable
from perdure.sql import Statements
from perdure.store.connection import abort, is_doubtful, is_lost, is_retryable
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, execute_async
from perdure.store.records import Fenced, StepRecord
from perdure.store.signal import Signal

_ENDED_INSIDE_STATE: Final = "PD002"
_ISOLATION: Final[Mapping[str, psycopg.IsolationLevel]] = {
    "read uncommitted": psycopg.IsolationLevel.READ_UNCOMMITTED,
    "read committed": psycopg.IsolationLevel.READ_COMMITTED,
    "repeatable read": psycopg.IsolationLevel.REPEATABLE_READ,
    "serializable": psycopg.IsolationLevel.SERIALIZABLE,
}


LOCK_MODES: Final[tuple[LiteralString, ...]] = (
    "access share",
    "row share",
    "row exclusive",
    "share update exclusive",
    "share",
    "share row exclusive",
    "exclusive",
    "access exclusive",
)


@dataclass(slots=True, eq=False)
class Use:
    """Call a function that may wait, in the colour that it has."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_async: bool = False
    value: Any = None
    """What it returned, also if whoever asked for it was cancelled meanwhile."""


class Conflict(Exception):
    """Rolled back by the database, or of unknown outcome: the same transaction may be tried again.

    Attributes:
        unknown: the connection was lost; if that was at COMMIT, it may have taken effect.
    """

    def __init__(self, message: str = "", *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class Recorded(Conflict):
    """The step's record is there: an earlier attempt, whose answer was lost, did commit."""

    def __init__(self) -> None:
        super().__init__(unknown=True)


class EndedInside(Exception):
    """The user's function ended the transaction itself."""


class Found(NamedTuple):
    """The record that an earlier attempt left."""

    failed: bool
    value: bytes
    group: int | None
    kind: int
    name: str


Steps = Generator[Use, Any, Any]


class Session:
    """One attempt of a transaction step on one connection."""

    def __init__(
        self, pool: Any, statements: Statements, slots: list[int], *, worker: int, is_async: bool
    ) -> None:
        self._pool, self._sql, self._is_async = pool, statements, is_async
        self._worker, self._slots = worker, slots
        self._slot: int | None = None
        self._orderly = self._doubtful = False
        self._factories: tuple[Any, Any] = (None, None)
        self._began: bytes | None = None
        """When the transaction began, as Postgres wrote it."""
        self.connection: Any = None

    def open(self) -> Steps:
        """Take a connection from the pool, and a fence slot: there are as many as the pools have connections."""
        take = self._use(self._pool.getconn)
        with _translated():
            try:
                self.connection = yield take
            finally:
                self.connection = take.value
        self._slot = self._slots.pop()
        self.connection.add_notice_handler(self._note)
        self._factories = (self.connection.row_factory, self.connection.cursor_factory)

    def close(self) -> Steps:
        """Give the connection back, as it was; one whose transaction did not end in order is not used again."""
        if self.connection is None:
            return
        try:
            if not self._orderly or self._status != TransactionStatus.IDLE:
                yield self._use(self.connection.close)
                return
            self.connection.remove_notice_handler(self._note)
            self.connection.row_factory, self.connection.cursor_factory = self._factories
        finally:
            if self._slot is not None:
                self._slots.append(self._slot)
            yield self._use(self._pool.putconn, self.connection)

    def abandon(self, body: Signal) -> None:
        """The user's function still runs in its thread, though nobody waits for it: cut its connection.

        The server rolls back, whatever the function still sends fails, and the connection goes back to the pool, which
        replaces it, when the function has ended.
        """
        connection, slot = self.connection, self._slot
        self.connection = None
        abort(connection)

        def bury() -> None:
            connection.close()
            if slot is not None:
                self._slots.append(slot)
            self._pool.putconn(connection)

        body.call(bury)

    def begin(
        self, isolation: str | None, locks: Mapping[str, str], record: tuple[int, str] | None = None
    ) -> Generator[Use, Any, Found | None]:
        """BEGIN, lock tables, take the fence: one packet.

        The locks come first: the snapshot of a repeatable read is then not older than they are. With the fence held
        from here on, whoever declares this worker dead finds this transaction in the way and ends it, locks and all.

        Args:
            isolation: of this transaction; the connection's by default.
            locks: modes of locks by table.
            record: a run and a position, for which an earlier attempt may have left a record, to look for.

        Raises:
            Fenced: the worker was declared dead.
            Conflict: rolled back.
        """
        statements = [self._statement("begin_step", {"worker": self._worker, "slot": self._slot})]
        if record is not None:
            run, position = record
            statements.append(self._statement("find_record", {"run": run, "position": position}))
        held, *found = yield from self._begun(isolation, locks, *statements)
        if not held.ntuples:
            raise Fenced
        self._began = held.get_value(0, 0)
        if not found or not found[0].ntuples:
            return None
        # As Postgres sends it: what the user has registered to read values is for his own.
        failed, value, group, kind, name = (found[0].get_value(0, column) for column in range(5))
        number = None if group is None else int.from_bytes(group, "big")
        return Found(
            failed == b"\1", value or b"", number, int.from_bytes(kind or b"", "big"), (name or b"").decode()
        )

    def begin_plain(self, isolation: str | None, locks: Mapping[str, str]) -> Steps:
        """BEGIN and lock tables: a transaction outside of any run."""
        (begun,) = yield from self._begun(isolation, locks, self._statement("begin_plain", {}))
        self._began = begun.get_value(0, 0)

    def _begun(
        self, isolation: str | None, locks: Mapping[str, str], *first: Statement
    ) -> Generator[Use, Any, list[Any]]:
        with _translated():
            begin = _begin(self.connection, isolation)
            tables = [
                Statement(_lock_table(table, mode).as_string(self.connection))
                for table, mode in locks.items()
            ]
            results: list[Any] = yield self._execute(begin, *tables, *first)
        self.connection.in_step = True
        return results[-len(first) :]

    def commit_plain(self) -> Steps:
        """COMMIT; an unknown outcome is the caller's error, since nothing recognises it.

        Raises:
            EndedInside: the transaction is not the one that was begun.
            Conflict: COMMIT was refused; the same transaction may be tried again.
            DatabaseUnavailable: the COMMIT had no answer.
        """
        same = self._statement("same_transaction", {"began": self._began})
        with _translated():
            (answer,) = yield self._execute(same)
            if answer.get_value(0, 0) != b"\1":
                raise EndedInside
        try:
            yield from self._committed()
        except InvalidSqlStatementName as error:
            raise Conflict(str(error)) from error  # the body has deallocated COMMIT, so it was refused
        except psycopg.Error as error:
            if is_lost(error):
                raise DatabaseUnavailable(
                    "the COMMIT had no answer: whether it took effect is not known"
                ) from error
            raise

    def commit(self, record: StepRecord) -> Steps:
        """The record, by the very transaction that took the fence, and COMMIT, in one packet.

        Raises:
            Recorded: an earlier attempt has committed; this one has not.
            EndedInside: the transaction is not the one that was begun.
            Conflict: rolled back, or nobody knows.
        """
        row = {
            "run": record.run,
            "position": record.position,
            "grp": record.group,
            "ord": record.order,
            "kind": int(record.kind),
            "name": record.name,
            "failed": record.failed,
            "value": record.value,
            "attempts": record.attempts,
            "seconds": record.seconds,
            "worker": self._worker,
            "began": self._began,
        }
        yield from self._certainly_committed(self._statement("record_transaction", row))

    def move(self, place: tuple[int, str], group: int) -> Steps:
        """Give the record that was found at a place another in the order, and COMMIT.

        Raises:
            Conflict: rolled back, or nobody knows.
        """
        run, position = place
        moved = {"run": run, "position": position, "grp": group}
        yield from self._certainly_committed(self._statement("move_record", moved))

    def _certainly_committed(self, last: Statement) -> Steps:
        with _translated(self._sql.schema):
            yield from self._committed(last)
            if self._doubtful:
                raise Conflict("the server warned at COMMIT: it may not be replicated", unknown=True)

    def roll_back(self) -> Steps:
        """Leave the transaction without committing; a broken connection has done so itself."""
        connection: Any = self.connection
        if connection is None or self._status == TransactionStatus.IDLE:
            return
        connection.in_step = False
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            # What the user's function has sent in a pipeline, it alone could answer for.
            yield self._use(connection.close)
            return
        try:
            yield self._use(connection.rollback)
            self._orderly = True
        except (psycopg.Error, OSError):
            yield self._use(connection.close)

    def state(self) -> str:
        """How the user's function left the transaction: `open`, `broken`, `ended`, or `piped`, in a pipeline of its own."""
        if self.connection.pgconn.pipeline_status != PipelineStatus.OFF:
            return "piped"
        if self._status == TransactionStatus.INERROR:
            return "broken"
        return "open" if self._status == TransactionStatus.INTRANS else "ended"

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._doubtful = self._doubtful or is_doubtful(diagnostic)

    @property
    def _status(self) -> int:
        return self.connection.pgconn.transaction_status  # type: ignore[no-any-return]

    def _committed(self, *last: Statement) -> Steps:
        *_, commit = yield self._execute(*last, COMMIT)
        self.connection.in_step = False
        if commit.command_status != b"COMMIT":
            raise Conflict("the COMMIT rolled back")
        self._orderly = True

    def _statement(self, name: str, parameters: Mapping[str, Any]) -> Statement:
        return Statement(self._sql[name], parameters, name)

    def _execute(self, *statements: Statement) -> Use:
        return self._use(execute_async if self._is_async else execute, self.connection, statements)

    def _use(self, function: Callable[..., Any], *args: Any) -> Use:
        return Use(function, args, is_async=self._is_async)


def is_conflict(error: BaseException) -> bool:
    """Whether an error of the user's own statements says that the whole transaction may be tried again."""
    return is_retryable(error) or is_lost(error)


@contextmanager
def _translated(schema: str | None = None) -> Any:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == _ENDED_INSIDE_STATE:
            raise EndedInside from error
        ours = (error.diag.schema_name, error.diag.table_name) == (schema, "steps")
        if isinstance(error, psycopg.errors.UniqueViolation) and ours:
            raise Recorded from error
        if is_conflict(error) or isinstance(error, psycopg.OperationalError | InvalidSqlStatementName):
            raise Conflict(str(error), unknown=is_lost(error)) from error
        raise


def _begin(connection: Any, isolation: str | None) -> Statement:
    """BEGIN as psycopg would say it, whose settings of a connection a user may have made in `configure`."""
    level = _ISOLATION[isolation] if isolation is not None else connection.isolation_level
    words = ["begin"]
    if level is not None:
        words.append(f"isolation level {next(name for name, known in _ISOLATION.items() if known is level)}")
    if connection.read_only is not None:
        words.append("read only" if connection.read_only else "read write")
    if connection.deferrable is not None:
        words.append("deferrable" if connection.deferrable else "not deferrable")
    return BEGIN if len(words) == 1 else Statement(" ".join(words))


def _lock_table(table: str, mode: str) -> sql.Composed:
    name = sql.SQL(".").join(sql.Identifier(part) for part in table.split("."))
    return sql.SQL("lock table {} in {} mode").format(name, sql.SQL(mode_of(mode)))


def mode_of(mode: str) -> LiteralString:
    """One of the eight lock modes, which the decorator checked."""
    return next(known for known in LOCK_MODES if known == mode.lower())
