"""Transaction steps: the user's writes and the step's record commit together, or neither does.

    BEGIN, table locks, fence             held until the transaction's end: while it lasts nobody is declared dead
    the user's function
    the gate                              the record carries its place in the order
    record, COMMIT                        in one flush; raises if it is another transaction, or the record is there

The record is a plain INSERT: where an earlier attempt's backend is still committing, it waits for that one
and then fails, and the next attempt, which looks for it at its beginning, reads what it left. The gate, once
taken, is kept until the outcome is known, so that nothing is handed out in between.

An earlier attempt may have been another life's: a worker that lives hands a run over, or parks it, while a COMMIT
without an answer is under way. So a failure is settled in every later life before it counts. A record is looked for
only where there is reason to: the look reads where others insert, which serializable transactions do not forgive.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final

from perdure.core.branch import Branch, Unwind
from perdure.core.effects import Invoke, Pause
from perdure.core.gate import Call, Recorded, Told, diverged
from perdure.core.middleware import around_step
from perdure.core.recorded import group_for, recorded
from perdure.core.registry import TransactionDefinition
from perdure.core.run import Run
from perdure.core.runtime import Runtime
from perdure.core.steps import failure, info_of, success, tell_of_failure
from perdure.errors import TransactionBroken
from perdure.models import Kind
from perdure.policy import backoff, next_attempt
from perdure.serial import decode_failure
from perdure.store.records import Fenced
from perdure.store.session import Conflict, EndedInside, Found, Session, is_conflict

MAX_CONFLICTS: Final = 20
"""Serialization failures, deadlocks and lost connections in a row before the step fails with the last."""


def transaction(
    branch: Branch, definition: TransactionDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[Any, Any, Any]:
    """Call a transaction step from a workflow."""
    result = definition.signature.result

    def produce(call: Call) -> Generator[Any, Any, Told]:
        return _Attempts(branch.run, call, definition, args, kwargs).run_all()

    return recorded(branch, Kind.TRANSACTION, definition.name, produce, result.decode)


def plain_transaction(
    runtime: Runtime, definition: TransactionDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[Any, Any, Any]:
    """Call a transaction outside of any run: one transaction, no record, tried again after conflicts."""
    conflicts = 0
    while True:
        session = runtime.session(is_async=definition.colour)
        try:
            yield from session.open()
            yield from session.begin_plain(definition.isolation, definition.lock)
            value = yield Invoke(
                definition.function,
                with_connection(definition, session.connection, args),
                kwargs,
                is_async=definition.colour,
            )
            check_state(session, definition)
            try:
                yield from session.commit_plain()
            except EndedInside:
                raise TransactionBroken(ended_inside(definition)) from None
            return value
        except Exception as error:
            conflicts += 1
            if not (isinstance(error, Conflict) or is_conflict(error)) or conflicts > MAX_CONFLICTS:
                raise
        finally:
            yield from _given_back(session)
        yield Pause(backoff(conflicts) / 4)


def _given_back(session: Session) -> Generator[Any, Any, None]:
    try:
        yield from session.roll_back()
    finally:
        yield from session.close()


def with_connection(
    definition: TransactionDefinition, connection: Any, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The arguments as the function takes them: the connection first, or after what it is a method of."""
    return (args[0], connection, *args[1:]) if definition.method else (connection, *args)


def check_state(session: Session, definition: TransactionDefinition) -> None:
    """Refuse a transaction that the function has broken or ended."""
    state = session.state()
    if state == "broken":
        raise TransactionBroken(
            f"{definition.name} went on after an SQL error: its transaction can only be rolled back. "
            "Let the error out, or wrap what may fail in `conn.transaction()`, which is a savepoint"
        )
    if state == "piped":
        raise TransactionBroken(
            f"{definition.name} left a pipeline open, in which some of its statements may have failed. Use "
            "`with conn.pipeline():`"
        )
    if state == "ended":
        raise TransactionBroken(ended_inside(definition))


def ended_inside(definition: TransactionDefinition) -> str:
    """The text for a function that ended perdure's transaction."""
    return (
        f"{definition.name} ended its transaction itself: what it wrote before is committed, without the "
        "step's record. Leave COMMIT and ROLLBACK to perdure; `conn.transaction()` is a savepoint"
    )


class _Attempts:
    """All attempts of one call."""

    def __init__(
        self,
        run: Run,
        call: Call,
        definition: TransactionDefinition,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.run, self.call, self.definition = run, call, definition
        self.args, self.kwargs = args, kwargs
        self.place = run.key, call.position
        self.group: int | None = None
        self.conflicts = 0
        self.doubtful = run.begun_before
        """A COMMIT had no answer, or may have had none: an earlier attempt may yet turn out to have succeeded."""
        self.look = False
        """A COMMIT of this life had no answer, or met a record: the next attempt looks for one."""

    def run_all(self) -> Generator[Any, Any, Told]:
        """Try until it commits, or its failure is final."""
        yield from self.run.barrier()
        began, attempt = self.run.runtime.monotonic(), 1
        while True:
            self.run.check_owner()
            tried = attempt
            try:
                return (yield from self.one(attempt, began))
            except Fenced:
                self.run.runtime.fenced()
                self.run.closed = True
                raise Unwind from None
            except Exception as error:
                self.run.check_open()
                if isinstance(error, Conflict) or is_conflict(error):
                    self.conflicts += 1
                    pause = backoff(self.conflicts) / 4 if self.conflicts <= MAX_CONFLICTS else None
                elif isinstance(error, TransactionBroken):
                    pause = None
                else:
                    pause = next_attempt(self.definition.retry, attempt, error)
                    attempt, self.conflicts = attempt + 1, 0
                cause = error.__cause__ if isinstance(error, Conflict) and error.__cause__ else error
                if pause is None or not self.conflicts:  # conflicts are no failures until there are too many
                    most = 1 if self.definition.retry is None else self.definition.retry.max_attempts
                    tell_of_failure(self.run, self.call, tried, most, pause, cause)
                if pause is None:
                    told = failure(self.run, cause, attempt, self.run.runtime.monotonic() - began)
                    return (yield from self.settled(told)) if self.doubtful else told
                yield Pause(pause)

    def settled(self, told: Told) -> Generator[Any, Any, Told]:
        """Record a failure over a COMMIT without an answer: by a transaction that waits for that backend.

        Either the failure's record goes in, then the attempt has not committed and never will; or it meets the
        record of the attempt, which then is the answer.
        """
        if self.group is None:
            self.group = yield from group_for(self.call, self.run)
        told.group = self.group
        while True:
            self.run.check_owner()
            session = self.run.runtime.session(is_async=self.definition.colour)
            try:
                yield from session.open()
                found = yield from session.begin("read committed", {}, self.place)
                if found is not None:
                    return (yield from self.found(session, found))
                yield from self.committed(session.commit(self.run.record_of(self.call, told, told.group, 0)))
                return told
            except Fenced:
                self.run.runtime.fenced()
                self.run.closed = True
                raise Unwind from None
            except Conflict:
                self.conflicts += 1
            finally:
                yield from _given_back(session)
            yield Pause(backoff(min(self.conflicts, 5)))

    def one(self, attempt: int, began: float) -> Generator[Any, Any, Told]:
        """One attempt, on a connection and a fence slot of its own."""
        runtime, definition = self.run.runtime, self.definition
        session = runtime.session(is_async=definition.colour)
        try:
            yield from session.open()
            found = yield from session.begin(
                definition.isolation, definition.lock, self.place if self.look else None
            )
            if found is not None:
                return (yield from self.found(session, found))
            info = info_of(self.run, self.call, attempt)
            body = Invoke(
                around_step(self.run, definition.function, info, is_async=definition.colour),
                with_connection(definition, session.connection, self.args),
                self.kwargs,
                is_async=definition.colour,
                info=info,
            )
            try:
                value = yield body
            finally:
                if body.late is not None:
                    session.abandon(body.late)
            check_state(session, definition)
            told = success(self.run, definition.signature.result, value, attempt, runtime.monotonic() - began)
            if told.failed:
                raise told.seen
            if self.group is None:
                self.group = yield from group_for(self.call, self.run)
            told.group = self.group
            yield from self.committed(session.commit(self.run.record_of(self.call, told, told.group, 0)))
            return told
        finally:
            yield from _given_back(session)

    def committed(self, commit: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
        """Commit, once what other branches have recorded meanwhile is; it comes before."""
        yield from self.run.barrier()
        calling, self.run.calling = self.run.calling, False  # a cancel now comes with the next call
        try:
            yield from commit
        except EndedInside:
            raise TransactionBroken(ended_inside(self.definition)) from None
        except Conflict as conflict:
            self.look = self.look or conflict.unknown
            self.doubtful = self.doubtful or self.look
            raise
        finally:
            self.run.calling = calling

    def found(self, session: Session, record: Found) -> Generator[Any, Any, Told]:
        """The answer that an earlier attempt recorded: it did commit.

        It is handed out now. If the attempt was another life's, its place in the order was that life's, and others have
        been handed out since, so the record moves to where a replay is to hand it out.
        """
        call = self.call
        if (record.kind, record.name) != (call.kind, call.name):
            recorded = Recorded(
                call.position, record.group, 0, record.kind, record.name, record.failed, record.value, 1
            )
            raise self.run.give_up(diverged(call.position, call.kind, call.name, [recorded]))
        if self.group is None:
            self.group = yield from group_for(call, self.run)
        group = self.group
        if record.group != group:
            yield from self.committed(session.move(self.place, group))
        if record.failed:
            seen: Any = decode_failure(record.value, exceptions=self.run.runtime.exceptions)
        else:
            seen = self.definition.signature.result.decode(record.value)
        return Told(record.failed, record.value, seen, group=group)
