"""The database's half of a transaction step, written once for both colours of connection.

Its methods are generators that yield `Use`: call this function of psycopg's, and await it if the connection
is an asynchronous one. What can go wrong is translated into the few outcomes that the step's logic knows.

What psycopg calls a transaction forbids the user `commit()` and `rollback()`; a COMMIT sent as text is
caught by the connection's status, or by comparing the transaction's start.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from perdure.errors import DatabaseUnavailable
from perdure.sql import Statements
from perdure.store.batch import FENCED_STATE
from perdure.store.connection import abort, is_doubtful, is_lost, is_retryable
from perdure.store.records import Fenced, StepRecord
from perdure.store.signal import Signal

_ENDED_INSIDE_STATE: Final = "PD002"
_ISOLATION: Final = {
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


class EndedInside(Exception):
    """The user's function ended the transaction itself."""


class Begun(NamedTuple):
    """What a transaction step finds when it begins."""

    began: Any
    failed: bool | None
    value: bytes | None
    worker: int | None


Steps = Generator[Use, Any, Any]


class Session:
    """One attempt of a transaction step on one connection."""

    def __init__(
        self, pool: Any, statements: Statements, slots: list[int], *, worker: int, is_async: bool
    ) -> None:
        self._pool, self._sql, self._is_async = pool, statements, is_async
        self._worker, self._slots = worker, slots
        self._slot: int | None = None
        self._isolated = self._orderly = self._doubtful = False
        self._factories: tuple[Any, Any] = (None, None)
        self._began: Any = None
        self._block: Any = None
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
            if not self._orderly or self._status is not TransactionStatus.IDLE:
                yield self._use(self.connection.close)
                return
            self.connection.remove_notice_handler(self._note)
            self.connection.row_factory, self.connection.cursor_factory = self._factories
            if self._isolated:
                yield self._use(self.connection.set_isolation_level, None)
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
        self, isolation: str | None, locks: Mapping[str, str], run: int | None, position: str
    ) -> Generator[Use, Any, Begun]:
        """BEGIN, lock tables, take the fence, read the record: one round trip. Without a run there are no last two.

        The locks come first: the snapshot of a repeatable read is then not older than they are. With the fence held
        from here on, whoever declares this worker dead finds this transaction in the way and ends it, locks and all.
        """
        with _translated():
            if isolation is not None:
                self._isolated = True
                yield self._use(self.connection.set_isolation_level, _ISOLATION[isolation])
            self._block = self._transaction()
            start, flush = self._doors(self.connection.pipeline())
            yield self._use(start)
            try:
                yield self._use(self._doors(self._block)[0])
                for table, mode in locks.items():
                    yield self._use(self.connection.execute, _lock_table(table, mode))
                name = "begin_step" if run is not None else "begin_plain"
                place = {"worker": self._worker, "slot": self._slot, "run": run, "position": position}
                cursor = yield self._use(self.connection.execute, self._sql[name], place)
            except BaseException as error:
                yield self._use(
                    flush, type(error), error, None
                )  # keeps this error, not those that follow from it
                raise
            yield self._use(flush, None, None, None)
            _, self._began, failed, value, worker = yield self._use(cursor.fetchone)
        return Begun(self._began, failed, value, worker)

    def begin_plain(self, isolation: str | None, locks: Mapping[str, str]) -> Steps:
        """BEGIN and lock tables: a transaction outside of any run."""
        yield from self.begin(isolation, locks, None, "")

    def commit_plain(self) -> Steps:
        """COMMIT; an unknown outcome is the caller's error, since nothing recognises it.

        Raises:
            EndedInside: the transaction is not the one that was begun.
            DatabaseUnavailable: the COMMIT had no answer.
        """
        with _translated():
            cursor = yield self._use(
                self.connection.execute, self._sql["same_transaction"], {"began": self._began}
            )
            (same,) = yield self._use(cursor.fetchone)
            if not same:
                raise EndedInside
        try:
            yield self._use(self._doors(self._block)[1], None, None, None)
            self._orderly = True
        except psycopg.Error as error:
            if is_lost(error):
                raise DatabaseUnavailable(
                    "the COMMIT had no answer: whether it took effect is not known"
                ) from error
            raise

    def commit(self, record: StepRecord) -> Steps:
        """Fence, record and COMMIT in one flush.

        Raises:
            Fenced: the worker was declared dead; nothing is committed.
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
            "slot": self._slot,
            "began": self._began,
        }
        with _translated(self._sql.schema):
            start, flush = self._doors(self.connection.pipeline())
            yield self._use(start)
            try:
                yield self._use(self.connection.execute, self._sql["record_transaction"], row)
                yield self._use(self._doors(self._block)[1], None, None, None)
            except BaseException as error:
                yield self._use(flush, type(error), error, None)
                raise
            yield self._use(flush, None, None, None)
            if self._status is not TransactionStatus.IDLE:
                raise Conflict("the COMMIT has no answer", unknown=True)
            if self._doubtful:
                raise Conflict("the server warned at COMMIT: it may not be replicated", unknown=True)
        self._orderly = True

    def roll_back(self) -> Steps:
        """Leave the transaction without committing; a broken connection has done so itself."""
        connection: Any = self.connection
        if connection is None or self._block is None:
            return
        try:
            if self._status is TransactionStatus.IDLE:
                return
            reason = psycopg.Rollback(self._block)
            yield self._use(self._doors(self._block)[1], type(reason), reason, None)
            self._orderly = True
        except (psycopg.Error, OSError):
            yield self._use(connection.close)

    def state(self) -> str:
        """How the user's function left the transaction: `open`, `broken` or `ended`."""
        if self._status is TransactionStatus.INERROR:
            return "broken"
        return "open" if self._status is TransactionStatus.INTRANS else "ended"

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._doubtful = self._doubtful or is_doubtful(diagnostic)

    @property
    def _status(self) -> TransactionStatus:
        return TransactionStatus(self.connection.info.transaction_status)

    def _transaction(self) -> Any:
        # Not `connection.transaction()`: entered inside a pipeline, that opens one of its own, which stays on until
        # the end, and the user's statements would answer late.
        return (psycopg.AsyncTransaction if self._is_async else psycopg.Transaction)(self.connection)

    def _use(self, function: Callable[..., Any], *args: Any) -> Use:
        return Use(function, args, is_async=self._is_async)

    def _doors(self, context: Any) -> tuple[Any, Any]:
        if self._is_async:
            return context.__aenter__, context.__aexit__
        return context.__enter__, context.__exit__


def is_conflict(error: BaseException) -> bool:
    """Whether an error of the user's own statements says that the whole transaction may be tried again."""
    return is_retryable(error) or is_lost(error)


@contextmanager
def _translated(schema: str | None = None) -> Any:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == FENCED_STATE:
            raise Fenced from error
        if error.sqlstate == _ENDED_INSIDE_STATE:
            raise EndedInside from error
        ours = (error.diag.schema_name, error.diag.table_name) == (schema, "steps")
        if isinstance(error, psycopg.errors.UniqueViolation) and ours:
            raise Recorded from error
        if is_conflict(error) or isinstance(error, psycopg.OperationalError):
            raise Conflict(str(error), unknown=is_lost(error)) from error
        raise


def _lock_table(table: str, mode: str) -> sql.Composed:
    name = sql.SQL(".").join(sql.Identifier(part) for part in table.split("."))
    return sql.SQL("lock table {} in {} mode").format(name, sql.SQL(mode_of(mode)))


def mode_of(mode: str) -> LiteralString:
    """One of the eight lock modes, which the decorator checked."""
    return next(known for known in LOCK_MODES if known == mode.lower())
