"""How the code of a run ended, and what is recorded of that."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any, Final

from perdure.core.branch import GoOnAsNew, Unwind
from perdure.core.marks import marks
from perdure.core.run import Run, StoppedAtOnce
from perdure.errors import (
    PerdureError,
    SerializationError,
    WorkflowCancelled,
    WorkflowTimeout,
)
from perdure.models import CancelReason, Status
from perdure.serial import check_size, encode_failure, storable_text
from perdure.store.records import ContinueRecord, EndRecord, Fenced, HandOver, Outcome, Park, Record, Ticket

logger = logging.getLogger("perdure.run")
_SUCCEEDED: Final = Status.SUCCEEDED.code


class Interrupted(BaseException):
    """The code was stopped by something outside of perdure, such as the end of the event loop."""


def conclude(run: Run, value: Any, error: BaseException | None) -> Generator[Ticket, None, None]:
    """Record how the code of a run ended: with a value, an error, or an interruption.

    Where a cancel came before the end of code that has something to undo, nothing ends yet (`run.over` is false then):
    what it did is to be undone first, and this to be called again.
    """
    if run.pending is not None and run.pending.done and run.pending.error is not None:
        if isinstance(run.pending.error, Fenced):
            run.closed = True
        else:
            run.fatal = run.fatal or PerdureError(str(run.pending.error))
        run.pending = None  # it has been seen: the park is to follow it all the same
    if run.closed or (run.fatal is None and isinstance(error, Unwind)):
        run.runtime.let_go(run)
        return
    if isinstance(run.fatal, StoppedAtOnce):
        record: Record = _stopped(run)
    else:
        record = _parked(run, str(run.fatal)) if run.fatal is not None else _record(run, value, error)
    run.fatal = None
    while True:
        ticket = run.submit(record)
        yield ticket
        if not _stands(run, record, ticket):
            return
        if record.outcome is not Outcome.CANCELLED:
            break
        assert isinstance(record, EndRecord)
        run.cancel_reason = CancelReason(record.cancel)
        if run.undo and run.cancel_reason is not CancelReason.AT_ONCE:
            run.over = False
            run.tell_cancel()
            return
        record = _stopped(run)
    run.closed = True
    if isinstance(record, EndRecord):
        run.runtime.ended(run, Status.of(record.status), record.value)
    run.runtime.let_go(run)


def _stands(run: Run, record: Record, ticket: Ticket) -> bool:
    """Whether to go on: nothing is left to do for a run that is no longer ours."""
    if ticket.error is None and record.outcome is not Outcome.LOST:
        return True
    if ticket.error is not None and not isinstance(ticket.error, Fenced):
        if not isinstance(record, Park):
            park(run, str(ticket.error))
        else:
            logger.error(
                "run %s (%s) cannot be parked: %s",
                run.id,
                run.definition.name,
                ticket.error,
                extra=marks(run.id, run.definition.name),
            )
    run.closed = True
    run.runtime.let_go(run)
    return False


def park(run: Run, reason: str) -> None:
    """Give a run up until somebody resumes it; its record stays as it is."""
    run.runtime.submit(Ticket(_parked(run, reason)))


def end_unrun(run: Run) -> None:
    """End a run that is to stop at once without running its code; its owner waits for nothing."""
    run.waited = True  # there may be rows of what it waited for
    run.runtime.submit(Ticket(_stopped(run)))


def _record(run: Run, value: Any, error: BaseException | None) -> Record:
    if not run.cancel_told and (left := run.gate.left_over()) is not None and _by_itself(error):
        did = "returned" if error is None else f"ended with {error!r}"
        if isinstance(error, GoOnAsNew):
            did = "went on as new"
        return _parked(
            run,
            f"the workflow {did}, but the record goes on with {left.name!r} at position {left.position}: its code has "
            "changed since. Run the code that began this run, then resume it",
        )
    if isinstance(error, Interrupted):
        return HandOver(run.key, run.claim)  # also where it was told to stop: it has not done so yet
    if run.cancel_told and run.cancel_reason is not CancelReason.NONE:
        return _stopped(run)
    if error is None:
        try:
            stored, _ = run.definition.signature.result.record(value)
            check_size(stored, what="the result")
        except SerializationError as unfit:
            return _failed(run, unfit)
        return EndRecord(run.key, _SUCCEEDED, stored, waited=run.waited, parent=run.has_children)
    if isinstance(error, Interrupted | KeyboardInterrupt | GeneratorExit):
        return HandOver(run.key, run.claim)
    if isinstance(error, GoOnAsNew):
        return ContinueRecord(run.key, run.runtime.new_key(), error.input, waited=run.waited)
    return _failed(run, error)


def _by_itself(error: BaseException | None) -> bool:
    """Whether the code came to this end, and was not taken to it from outside."""
    return error is None or isinstance(error, GoOnAsNew | Exception)


def _failed(run: Run, error: BaseException) -> EndRecord:
    if run.frontier is None:  # a replay that only looks ends nothing
        logger.warning(
            "run %s (%s) failed: %s: %s",
            run.id,
            run.definition.name,
            type(error).__name__,
            error,
            extra=marks(run.id, run.definition.name),
        )
    return _end(run, Status.FAILED, error, regardless=run.undoing)


def _end(run: Run, status: Status, error: BaseException, *, regardless: bool) -> EndRecord:
    """An end otherwise than well; its error says what could not be undone."""
    for note in run.not_undone:
        error.add_note(note)
    return EndRecord(
        run.key,
        status.code,
        encode_failure(error),
        regardless=regardless,
        waited=run.waited,
        parent=run.has_children,
    )


def _parked(run: Run, reason: str) -> Park:
    if run.frontier is None:  # a replay that only looks parks nothing
        logger.error(
            "run %s (%s) is parked: %s",
            run.id,
            run.definition.name,
            reason,
            extra=marks(run.id, run.definition.name),
        )
    run.parked_reason = reason
    return Park(run.key, storable_text(reason)[:10_000], run.claim)


def _stopped(run: Run) -> EndRecord:
    status = run.end_status()
    if status is Status.FAILED:
        error: Exception = WorkflowTimeout(f"run {run.id} did not finish within its timeout")
    else:
        error = WorkflowCancelled(f"run {run.id} was cancelled")
    return _end(run, status, error, regardless=True)
