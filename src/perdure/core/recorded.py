"""The one operation under all others: a call that is answered from the record, or produces an answer.

A sequential workflow takes the short path: one task, one call, nothing to order. Everything else goes
through the gate. Either way the code sees what a replay will see, and the record is on its way before
the code goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from perdure.core.branch import Branch
from perdure.core.effects import AtGate, StopHere, TakeGate
from perdure.core.gate import Call, Recorded, Told
from perdure.core.run import Run
from perdure.errors import PerdureError, SerializationError
from perdure.models import Kind
from perdure.serial import decode_failure

Produce = Callable[[Call], Generator[Any, Any, Told]]
Decode = Callable[[bytes], Any]


class CannotReplay(PerdureError):
    """A recorded value cannot be read back: the run is parked with this as the reason."""


def recorded(
    branch: Branch, kind: Kind, name: str, produce: Produce, decode: Decode
) -> Generator[Any, Any, Any]:
    """Answer one durable call: from the record, or by `produce`, whose answer is then recorded.

    Args:
        branch: the branch that calls.
        kind: what the call is.
        name: of what is called; a replay must find the same.
        produce: finds the answer, if none is recorded; may yield effects.
        decode: reads a recorded value that did not fail.
    """
    run = branch.run
    run.check_running()
    position = branch.next_position()
    if run.unreached:
        run.unreached.discard(position)
    produce = run.frontier or produce
    call = Call(position, kind, name, produce)
    if not run.alone:
        answer = yield AtGate(call)
        return opened(run, call, answer, decode)
    if run.gate.cancels_next:
        run.gate.take_cancel()
        run.cancel_told = True
        yield StopHere()
    if run.cancel_due:
        run.tell_cancel()
        yield StopHere()
    record = run.gate.next_alone(position, kind, name)
    if record is not None:
        return opened(run, None, record, decode)
    if not run.gate.used_up:
        answer = yield AtGate(call)
        return opened(run, call, answer, decode)
    run.calling, told_before = True, run.cancel_told
    try:
        call.told = yield from produce(call)
    finally:
        run.calling = False
    run.check_open()
    if run.cancel_told and not told_before:
        call.told.drop()
        yield StopHere()  # the body was told to stop and went on all the same: on replay it has no result
    if run.alone:
        run.tell((call,))
        return opened(run, call, None, decode)
    # A branch was created while the body ran (by a callback): from here on the gate has the order.
    answer = yield AtGate(call)
    return opened(run, call, answer, decode)


def opened(run: Run, call: Call | None, record: Recorded | None, decode: Decode) -> Any:
    """Return what the code sees, or raise it."""
    if record is None:
        assert call is not None
        told = call.told
        assert told is not None
        if told.failed:
            raise told.seen
        return told.seen
    if record.failed:
        raise decode_failure(record.value, exceptions=run.runtime.exceptions)
    try:
        return decode(record.value)
    except SerializationError as error:
        reason = f"the recorded result of {record.name!r} at {record.position} cannot be read: {error}"
        raise run.give_up(CannotReplay(reason)) from error


def group_for(call: Call, run: Run) -> Generator[Any, Any, int]:
    """The number of the group in which a call records itself before it is handed out."""
    if call.began:
        number = yield TakeGate(call)
        return int(number)
    return run.gate.next_group()
