"""Steps: run at least once, remembered once; and plain readings of clock and chance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from perdure.core.body import Body, discard
from perdure.core.branch import Branch, Unwind
from perdure.core.effects import Invoke, Pause
from perdure.core.gate import Call, Told
from perdure.core.marks import marks
from perdure.core.middleware import around_step
from perdure.core.recorded import recorded
from perdure.core.registry import Compensation, Definition, StepDefinition
from perdure.core.run import Run
from perdure.errors import Cancelled, NonDeterminismError, OutcomeUnknown, SerializationError, StepTimeout
from perdure.models import Info, Kind
from perdure.policy import next_attempt
from perdure.serial import Payload, check_size, record_failure
from perdure.store.records import IntentRecord, StepRecord

logger = logging.getLogger("perdure.step")

_ANYTHING: Final = Payload.of(Any)
NOT_OF_THE_BODY: Final = (asyncio.CancelledError, Cancelled, Unwind, KeyboardInterrupt, GeneratorExit)
"""What comes through a body from outside. All else is the body's own failure, `SystemExit` too: handing the run on
would have it end one worker after the other."""


def step(
    branch: Branch, definition: StepDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[Any, Any, Any]:
    """Call a step from a workflow."""
    operation = plain_step(branch, definition, args, kwargs)
    return (
        operation if definition.compensate is None else undoable(branch, definition, args, kwargs, operation)
    )


def plain_step(
    branch: Branch, definition: StepDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[Any, Any, Any]:
    """Call a step that is not to be undone, whatever it says: what undoes another is one."""
    result = definition.signature.result

    def produce(call: Call) -> Generator[Any, Any, Told]:
        return run_body(branch.run, call, definition, args, kwargs)

    return recorded(branch, Kind.STEP, definition.name, produce, result.decode)


def undoable(
    branch: Branch,
    definition: StepDefinition,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    operation: Generator[Any, Any, Any],
) -> Generator[Any, Any, Any]:
    """A step that is to be undone if the run ends otherwise than well; also where nobody knows whether it is done."""
    run, undo = branch.run, definition.compensate
    assert undo is not None
    position = f"{branch.path}{branch.count + 1}"  # where the call is about to be
    try:
        result = yield from operation
    except (Exception, asyncio.CancelledError, Cancelled) as error:
        unknown = isinstance(error, StepTimeout | OutcomeUnknown)
        if unknown or (not isinstance(error, Exception) and position in run.intents):
            doubt = OutcomeUnknown(f"{definition.name} was interrupted; whether it took effect is not known")
            run.undo.append(undoing(definition, undo, doubt, args, kwargs))
        raise
    run.undo.append(undoing(definition, undo, result, args, kwargs))
    return result


def undoing(
    definition: Definition, undo: Definition, result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Compensation:
    """The call that undoes a call: with its result and its arguments; of methods, on the same instance."""
    given = args[1:] if definition.method else args
    receiver = args[:1] if undo.method and definition.method else ()
    return Compensation(undo, (*receiver, result, *given), kwargs)


def run_body(
    run: Run, call: Call, definition: StepDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Generator[Any, Any, Told]:
    """Run the body of a step until it succeeds or its failure is final."""
    yield from run.barrier()
    if definition.at_most_once or definition.compensate is not None:
        if definition.at_most_once and call.position in run.intents:
            error = OutcomeUnknown(
                f"{definition.name} had begun when its worker stopped; whether it took effect is not known, "
                "and it must not run twice"
            )
            return failure(run, error)
        ticket = run.submit(IntentRecord(run.key, call.position, definition.name))
        run.intents.add(call.position)
        yield ticket
        run.confirm(ticket)
        yield from run.barrier()  # other branches may have recorded more meanwhile
    if call.position in run.written:
        discard(run, call.position, run.written.pop(call.position))  # an attempt whose worker died
    monotonic = run.runtime.monotonic
    began, attempt = monotonic(), 1
    while True:
        info = info_of(run, call, attempt)
        attempted = Body(run, call.position, call.name)
        body = Invoke(
            around_step(run, definition.function, info, is_async=definition.colour),
            args,
            kwargs,
            definition.colour,
            info,
            attempted,
            definition.timeout,
        )
        try:
            value = yield body
        except BaseException as error:
            attempted.failed()
            if body.late is not None and definition.compensate is not None:
                run.late.append(body.late)
            if isinstance(error, NOT_OF_THE_BODY):
                raise
            run.check_open()
            pause = None if definition.at_most_once else next_attempt(definition.retry, attempt, error)
            most = 1 if definition.at_most_once or definition.retry is None else definition.retry.max_attempts
            tell_of_failure(run, call, attempt, most, pause, error)
            if pause is None:
                if definition.retry is not None:
                    error.add_note(f"attempt {attempt} of {definition.retry.max_attempts}")
                return failure(run, error, attempt, monotonic() - began)
        else:
            return success(run, definition.signature.result, value, attempt, monotonic() - began)
        yield Pause(pause)
        if body.late is not None:
            yield body.late  # a thread cannot be interrupted: not two at once
        run.check_owner()
        attempt += 1


def tell_of_failure(
    run: Run, call: Call, attempt: int, most: int, pause: float | None, error: BaseException
) -> None:
    """Log that an attempt has failed, out of how many, and after how many seconds comes the next, if one does."""
    logger.warning(
        "step %s at %s of run %s (%s) failed, attempt %d of %d, %s: %s: %s",
        call.name,
        call.position,
        run.id,
        run.definition.name,
        attempt,
        max(most, attempt),
        "for good" if pause is None else f"again in {pause:.3g} s",
        type(error).__name__,
        error,
        extra=marks(run.id, run.definition.name, call.name, attempt),
    )


def info_of(run: Run, call: Call, attempt: int) -> Callable[[], Info]:
    """What the body of a step can know of itself: few ask, so it is made for those."""
    return partial(_info, run, call, attempt, run.progress.get(call.position))


def _info(run: Run, call: Call, attempt: int, detail: bytes | None) -> Info:
    return Info(
        run_id=run.id,
        workflow=run.definition.name,
        step=call.name,
        attempt=attempt,
        idempotency_key=f"{run.runtime.realm}-{run.key:x}-{call.position}",
        worker=run.runtime.worker,
        heartbeat=None if detail is None else _ANYTHING.decode(detail),
        scheduled_at=run.scheduled_at,
    )


def success(run: Run, result: Any, value: Any, attempts: int = 1, seconds: float = 0.0) -> Told:
    """A result as it is recorded; one that cannot be encoded is the step's failure."""
    try:
        stored, seen = result.record(value)
        check_size(stored, what="the result")
    except SerializationError as error:
        return failure(run, error, attempts, seconds)
    return Told(False, stored, seen, attempts, seconds)


def failure(run: Run, error: BaseException, attempts: int = 1, seconds: float = 0.0) -> Told:
    """A failure as it is recorded."""
    stored, seen = record_failure(error, exceptions=run.runtime.exceptions)
    return Told(True, stored, seen, attempts, seconds)


def clock_reading(branch: Branch) -> datetime:
    """`now()`: read once, the same on every replay, never earlier than the last reading of the run."""
    run = branch.run
    run.check_running()
    position = branch.next_position()
    run.unreached.discard(position)
    try:
        record = run.gate.reading(position, Kind.CLOCK, "now")
    except NonDeterminismError as error:
        raise run.give_up(error) from None
    if record is not None:
        return run.not_before(datetime.fromisoformat(record.value.decode().strip('"')))
    reading = run.not_before(run.runtime.now().astimezone(UTC))
    value = f'"{reading.isoformat()}"'.encode()
    run.submit(StepRecord(run.key, position, None, None, Kind.CLOCK, "now", False, value))
    return reading
