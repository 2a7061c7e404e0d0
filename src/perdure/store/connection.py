"""Connections of the engine: plain psycopg, with a bound on every wait for an answer.

A lost packet or a stopped proxy can leave a socket silent for ever, and no setting of the server ends a
wait that the server does not know of; so the bound is kept here, in the client (law 11). A connection
that ran into it is closed: what it was doing is unknown, and unknown outcomes are resolved by repeating.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.abc import RV, PQGen
from psycopg.rows import TupleRow

from perdure.store.arrays import register_arrays

ANSWER_WITHIN: Final = 30.0
"""Seconds within which a statement must answer, unless its owner asks for another bound."""

LONGEST_STEP: Final = 3600.0
"""The same for a statement of the user's."""

_LOST_STATES: Final = frozenset({"57P01", "57P02", "57P03", "25006"})
_RETRY_STATES: Final = frozenset({"40001", "40P01"})


class _KnowsPlans(psycopg.BaseConnection[TupleRow]):
    """A connection, of either colour, that knows what of ours is prepared on it."""

    @cached_property
    def plans(self) -> dict[str, bytes]:
        """What is prepared by hand (`store.prepared`): the server's name for a statement of ours."""
        return {}

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        # psycopg does so when anything was rolled back, dropped or altered, and has no hook for it.
        if name is None:
            self.plans.clear()
        return super()._deallocate(name)


class Connection(_KnowsPlans, psycopg.Connection[TupleRow]):
    """A connection that gives up waiting for an answer, and notices a doubtful COMMIT."""

    answer_within: float = ANSWER_WITHIN
    doubtful: bool = False

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer, at most `answer_within` seconds, unless the caller has a timeout of its own."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_within)
        except errors._WaitTimeout as error:  # noqa: SLF001  (psycopg documents it for `wait`, and exports no other)
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_within:g} s") from error

    def note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Notice a warning at COMMIT."""
        self.doubtful = self.doubtful or is_doubtful(diagnostic)


class StepConnection(Connection):
    """A connection on which the user's own statements run, which may take their time, but not end our transaction."""

    answer_within = LONGEST_STEP
    in_step: bool = False
    """A transaction of perdure's is open."""

    def commit(self) -> None:
        """Commit, if there is no transaction of perdure's."""
        _refuse_in_step(self.in_step, "commit")
        super().commit()

    def rollback(self) -> None:
        """Roll back, if there is no transaction of perdure's."""
        _refuse_in_step(self.in_step, "rollback")
        super().rollback()


class AsyncStepConnection(_KnowsPlans, psycopg.AsyncConnection[TupleRow]):
    """The same in the other colour."""

    answer_within: float = LONGEST_STEP
    in_step: bool = False

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109  (psycopg's)
    ) -> RV:
        """Wait for an answer, as long as the other colour does."""
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.answer_within)
        except errors._WaitTimeout as error:  # noqa: SLF001
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_within:g} s") from error

    async def commit(self) -> None:
        """Commit, if there is no transaction of perdure's."""
        _refuse_in_step(self.in_step, "commit")
        await super().commit()

    async def rollback(self) -> None:
        """Roll back, if there is no transaction of perdure's."""
        _refuse_in_step(self.in_step, "rollback")
        await super().rollback()


def _refuse_in_step(in_step: bool, what: str) -> None:
    if in_step:
        raise psycopg.ProgrammingError(
            f"{what}() is perdure's in a transaction step: return to commit, raise to roll back. "
            "`conn.transaction()` is a savepoint"
        )


def is_doubtful(diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Whether a notice says that a COMMIT is in doubt.

    "canceling wait for synchronous replication": committed here, perhaps nowhere else.
    """
    return diagnostic.severity_nonlocalized == "WARNING" and diagnostic.sqlstate == "01000"


def confirm(connection: Connection) -> None:
    """Refuse a COMMIT of which the server warned that it may not be replicated."""
    if connection.doubtful:
        connection.doubtful = False
        raise psycopg.OperationalError("the server warned at COMMIT: it may not be replicated")


ALWAYS: Final[Mapping[str, Any]] = {
    "client_encoding": "utf8",  # what is packed by hand is
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's parameters of every connection; the others notice one that leads nowhere, also while nobody waits for it."""


def connect(
    url: str, *, name: str, answer_within: float = ANSWER_WITHIN, prepare: bool = True, **settings: Any
) -> Connection:
    """Open an autocommit connection.

    Args:
        url: where the database is.
        name: shown as `application_name`.
        answer_within: seconds to wait for any answer.
        prepare: whether statements are prepared at their first use; not behind a transaction pooler.
        settings: further parameters of libpq.

    Raises:
        psycopg.OperationalError: it cannot be reached.
    """
    connection = Connection.connect(
        url,
        autocommit=True,
        prepare_threshold=0 if prepare else None,
        connect_timeout=max(2, min(10, int(answer_within))),
        application_name=f"perdure {name}"[:63],
        **{**ALWAYS, **settings},
    )
    connection.answer_within = answer_within
    connection.add_notice_handler(connection.note)
    register_arrays(connection)
    return connection


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the connection, not the statement, failed: the outcome is unknown."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    ended = error.diag.severity_nonlocalized in (
        "FATAL",
        "PANIC",
    )  # whatever for: a server's limit on idle sessions, say
    return ended or error.sqlstate in _LOST_STATES or error.sqlstate.startswith("08")


def is_retryable(error: BaseException) -> bool:
    """Whether an error says that the same transaction may succeed if repeated."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _RETRY_STATES


def abort(connection: Connection) -> None:
    """Wake a thread that waits for an answer, from another thread, by shutting its socket."""
    try:
        with socket.socket(fileno=connection.fileno()) as handle:
            try:
                handle.shutdown(socket.SHUT_RDWR)
            finally:
                handle.detach()
    except (OSError, psycopg.Error):
        return
