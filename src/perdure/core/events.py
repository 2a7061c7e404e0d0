"""Events: what a run makes known, under a name; readable for ever, and waitable.

A value rides on the step that sets it, in the same commit, so readers see only what stands. Answers to updates are
events too, under names that users cannot give.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from perdure.core.branch import Branch
from perdure.core.effects import Use
from perdure.core.gate import Call, Told
from perdure.core.messages import no_such_run
from perdure.core.recorded import recorded
from perdure.core.run import Run, Waiting
from perdure.core.steps import failure
from perdure.core.waits import deadline, either, waited
from perdure.errors import RunEnded, SerializationError, WaitTimeout
from perdure.models import Kind
from perdure.serial import Payload, decode_failure
from perdure.store.records import EventRecord


def set_event(branch: Branch, key: str, value: bytes, *, failed: bool = False) -> Generator[Any, Any, None]:
    """Make a value known."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        told = Told(False, b"null", None)
        told.with_records = [EventRecord(run.key, call.position, key, value, failed=failed)]
        return told
        yield  # a generator, as every operation is

    return recorded(branch, Kind.SET_EVENT, key, produce, _nothing)


def get_event(
    branch: Branch,
    id: str,
    key: str,
    payload: Payload,
    timeout: float | None = None,
    known: int | None = None,
) -> Generator[Any, Any, Any]:
    """Wait until a run has set an event, and return its last value; `known` is the key of the run, if the code knows it."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        yield from run.barrier()
        target = known
        if target is None:
            found = yield Use(run.runtime.find, (id,))
            if found is None:
                return failure(run, no_such_run(id))
            target = found[0]
        news = signal = run.runtime.event_of(target, key)
        seconds = timeout
        try:
            if timeout is not None:
                seconds, timer = yield from deadline(run, call, timeout, target=target, topic=key)
                signal = either(news, timer)
            yield from waited(run, call, Waiting(signal, target, key), seconds)
        finally:
            run.runtime.unwatch_event(target, key, news)
        value = news.value
        if not news.done:  # the time is over: what was set meanwhile is still seen, and timeout=0 only looks
            value = yield Use(run.runtime.last_event, (target, key))
        told = _told(run, value, id, key, payload)
        told.with_records = run.answered(call.position)
        return told

    return recorded(branch, Kind.EVENT, key, produce, payload.decode)


def _told(run: Run, value: Any, id: str, key: str, payload: Payload) -> Told:
    if value is None:
        return failure(run, WaitTimeout(f"run {id} did not set {key!r} in time"))
    if isinstance(value, str):
        return failure(run, never_set(id, key, value))
    failed, stored = value
    if failed:
        return Told(True, stored, decode_failure(stored, exceptions=run.runtime.exceptions))
    try:
        return Told(False, stored, payload.decode(stored))
    except SerializationError as error:
        return failure(run, error)


def never_set(id: str, key: str, status: str) -> RunEnded:
    """The error for an event that will never come."""
    what = "answering" if key.startswith("!") else f"setting {key!r}"
    return RunEnded(f"run {id} ended as {status} without {what}")


def _nothing(_value: bytes) -> None:
    return None
