"""Durable waits: for a time, for the end of another run. While all of a run waits it needs no memory."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from perdure.core.branch import Branch, Unwind
from perdure.core.effects import DurableWait, StopHere, Use
from perdure.core.gate import Call, Told
from perdure.core.recorded import recorded
from perdure.core.run import Run, Waiting
from perdure.core.steps import failure
from perdure.errors import Cancelled, SerializationError, WaitTimeout, WorkflowFailed, WorkflowParked
from perdure.models import Kind, Status
from perdure.serial import Payload, decode_failure
from perdure.store.records import WaitRecord
from perdure.store.signal import Signal

_ANYTHING: Final = Payload.of(Any)
WOKEN = object()
"""Value of a waiting signal that was settled only to wake its waiter."""


def sleep(
    branch: Branch, *, seconds: float | None = None, until: datetime | None = None
) -> Generator[Any, Any, None]:
    """Sleep for some seconds, or until a time, fixed by the database's clock when the call is first made."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        remaining = run.waits.get(call.position)
        if remaining is None:
            ticket = run.submit(WaitRecord(run.key, call.position, seconds=seconds, at=until))
            run.waited = True
            run.waits[call.position] = 0.0
            yield ticket
            run.confirm(ticket)
            remaining = seconds if seconds is not None else _until(run, until)
        run.check_owner()
        timer = run.runtime.timer(run, call.position, remaining)
        yield from waited(run, call, Waiting(timer), remaining)
        return Told(False, b"null", None, with_records=run.answered(call.position))

    return recorded(branch, Kind.SLEEP, "sleep", produce, _nothing)


def end_of_run(
    branch: Branch, key: int, id: str, result: Payload, timeout: float | None = None
) -> Generator[Any, Any, Any]:
    """Wait for the end of another run and return its result, or raise how else it ended."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        yield from run.barrier()
        end = signal = run.runtime.end_of(key)
        try:
            if timeout is not None:
                _, timer = yield from deadline(run, call, timeout, target=key)
                signal = either(end, timer)
            yield from waited(run, call, Waiting(signal, key))
        finally:
            run.runtime.unwatch(key, end)
        value = end.value
        if (
            not end.done
        ):  # the time is over: an end that has come meanwhile is still seen, and timeout=0 only looks
            value = yield Use(run.runtime.how_ended, (key,))
        told = _told(run, value, id, result)
        told.with_records = run.answered(call.position)
        return told

    return recorded(branch, Kind.RESULT, id, produce, result.decode)


def deadline(
    run: Run, call: Call, timeout: float, *, target: int | None = None, topic: str | None = None
) -> Generator[Any, Any, tuple[float, Signal]]:
    """The end of a wait that gives up, fixed when the wait is first made: seconds left, and its timer."""
    remaining = run.waits.get(call.position)
    if remaining is None:
        ticket = run.submit(WaitRecord(run.key, call.position, seconds=timeout, target=target, topic=topic))
        run.waited = True
        run.waits[call.position] = remaining = timeout
        yield ticket
        run.confirm(ticket)
    return remaining, run.runtime.timer(run, call.position, remaining)


def either(first: Signal, second: Signal) -> Signal:
    """A signal that is settled with whichever comes first."""
    either = Signal()
    first.call(lambda: either.settle(first.value))
    second.call(lambda: either.settle(second.value))
    return either


def _told(run: Run, value: Any, id: str, result: Payload) -> Told:
    if value is None:
        return failure(run, WaitTimeout(f"run {id} did not end in time"))
    if isinstance(value, str):
        return failure(run, WorkflowParked(f"run {id} is parked: {value}"))
    status, stored = value
    if status is not Status.SUCCEEDED:
        return Told(
            True, stored, decode_failure(stored, exceptions=run.runtime.exceptions, fallback=WorkflowFailed)
        )
    try:
        return Told(False, stored, result.decode(stored))
    except SerializationError as error:
        return failure(run, error)


def waited(run: Run, call: Call, wait: Waiting, seconds: float | None = None) -> Generator[Any, Any, None]:
    """Wait for a signal, in memory or put away; whoever is put away unwinds here."""
    signal = wait.signal
    run.waiting[call.position] = wait
    run.runtime.begun_waiting(run, seconds)
    try:
        while True:
            # Who tells the code to stop first says so, then looks for waits; here it is the other way round.
            if run.gate.is_withdrawn(call) or (run.cancel_due and not call.began):
                signal.settle(WOKEN)
            yield DurableWait(signal)
            leaving = run.leaving
            if leaving is not None and not leaving.done:
                yield leaving
            run.check_open()  # which knows of a put-away as soon as it is committed
            if signal.value is not WOKEN:
                return
            # Woken to be told to stop; a new signal for the rest of the wait is the caller's next replay.
            # One among others is told by its host: the word may be for its branch alone, a cancel is for all.
            if run.calling and run.cancel_due:
                run.tell_cancel()
            yield StopHere()
            raise Unwind
    finally:
        run.waiting.pop(call.position, None)


def _until(run: Run, moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (moment - run.runtime.now()).total_seconds())


def _nothing(_value: bytes) -> None:
    return None


def wait_for_children(run: Run) -> Generator[Any, Any, None]:
    """Before the end of a run, wait for the children that it is not to leave behind (`parent_close="wait"`)."""
    told_to_stop: BaseException | None = None
    for key, id in run.waits_for:
        if run.cancel_told:
            run.runtime.request_cancel(key)
        try:
            yield from _end_of_child(run, key, id)
        except (asyncio.CancelledError, Cancelled) as error:
            told_to_stop = error
            run.runtime.request_cancel(key)
            yield from _end_of_child(run, key, id)
    if told_to_stop is not None:
        raise told_to_stop


def _end_of_child(run: Run, key: int, id: str) -> Generator[Any, Any, None]:
    with suppress(Exception):  # how it ended is its own affair
        yield from end_of_run(run.root, key, id, _ANYTHING)
