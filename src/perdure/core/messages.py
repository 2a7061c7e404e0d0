"""Messages between runs: received in order, each once; sent once, with the step that sends them.

The step row is all there is of consuming: it names the message, so that a message is consumed if and only if the code
was told of it. Sending is decided by the database (a target may be unknown, or have ended), so the code goes on
after the commit.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from perdure.core.branch import Branch
from perdure.core.effects import Await
from perdure.core.gate import Call, Told
from perdure.core.mailbox import Letter
from perdure.core.recorded import Decode, group_for, recorded
from perdure.core.run import Run, Waiting
from perdure.core.steps import failure
from perdure.core.waits import deadline, either, waited
from perdure.errors import RunEnded, SerializationError, WaitTimeout, WorkflowNotFound
from perdure.models import Kind
from perdure.serial import check_text, decode_failure, record_failure
from perdure.store.records import MessageRecord, SendRecord

LOOK_SECONDS: Final = 30.0
"""Bound of a look into the database that has to be made before a wait gives up."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent: to the run with this id, on this topic, as it is stored; `key` names it, if the user does."""

    id: str
    topic: str
    value: bytes
    key: str | None = None

    def __post_init__(self) -> None:
        check_text(self.id, "id of a run")  # here: refused by the database, it would have the sender parked
        if self.key is not None:
            check_text(self.key, "key of a message")


def receive(
    branch: Branch, topic: str, decode: Decode, timeout: float | None = None
) -> Generator[Any, Any, Any]:
    """Receive the next message of a topic, in the order in which they were sent."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        run.check_owner()
        want = run.mailbox.want(topic)
        try:
            if not want.done:
                yield from _wait(run, call, want, timeout)
        except BaseException:
            if (letter := run.mailbox.leave(want)) is not None:
                run.mailbox.give_back(topic, letter)
            raise
        letter = run.mailbox.leave(want)
        if letter is None:
            told = failure(run, WaitTimeout(f"no message came on {topic!r} within {timeout:g} s"))
        else:
            told = _told(run, topic, letter, decode)
        told.with_records = run.answered(call.position)
        return told

    return recorded(branch, Kind.MESSAGE, topic, produce, decode)


def _wait(run: Run, call: Call, want: Any, timeout: float | None) -> Generator[Any, Any, None]:
    """Wait for a message, at most so long; what is there when the time is over is still taken."""
    topic, signal, seconds = want.topic, want, timeout
    if timeout:
        seconds, timer = yield from deadline(run, call, timeout, topic=topic)
        signal = either(want, timer)
    if seconds is None or seconds > 0:
        run.runtime.expect_mail(run.mailbox, topic)
        yield from waited(run, call, Waiting(signal, topic=topic), seconds)
    if not want.done:
        run.mailbox.only_look(want)
        run.runtime.expect_mail(run.mailbox, topic)
        yield Await(want, LOOK_SECONDS)


def _told(run: Run, topic: str, letter: Letter, decode: Decode) -> Told:
    try:
        told = Told(False, letter.value, decode(letter.value))
    except SerializationError as error:  # consumed all the same: it would stand in the way for ever
        told = failure(run, SerializationError(f"a message on {topic!r} is not what was expected: {error}"))
    told.message = letter.number
    told.dropped = lambda: run.mailbox.give_back(topic, letter)
    return told


def send(branch: Branch, messages: Sequence[Message]) -> Generator[Any, Any, None]:
    """Send messages: all of them or, where a target is unknown or has ended, none."""
    run = branch.run
    name = messages[0].topic if len(messages) == 1 else f"{len(messages)} messages"

    def produce(call: Call) -> Generator[Any, Any, Told]:
        # The step has its place in the order before it is written: a cancel in between would be recorded behind it,
        # while the code is told of it here. It arrives at the next call.
        run.shields += 1
        try:
            return (yield from _sent(run, call, messages))
        finally:
            run.shields -= 1

    return recorded(branch, Kind.SEND, name, produce, _nothing)


def _sent(run: Run, call: Call, messages: Sequence[Message]) -> Generator[Any, Any, Told]:
    exceptions = run.runtime.exceptions
    told = Told(False, b"null", None, group=(yield from group_for(call, run)))
    yield from run.barrier()
    record = SendRecord(
        run.key, call.position, told.group, 0, Kind.SEND, call.name, failed=False, value=b"null"
    )
    record.messages = [
        MessageRecord(run.key, m.id, m.topic, m.value, m.key or f"{run.key:x}/{call.position}/{number}")
        for number, m in enumerate(messages)
    ]
    record.unknown = [record_failure(no_such_run(m.id), exceptions=exceptions)[0] for m in messages]
    record.ended = [record_failure(has_ended(m.id), exceptions=exceptions)[0] for m in messages]
    ticket = run.submit(record, contested=True)
    yield ticket
    run.confirm(ticket)
    if record.failed:
        told.failed, told.value = True, record.value
        told.seen = decode_failure(record.value, exceptions=exceptions)
    return told


def no_such_run(id: str) -> WorkflowNotFound:
    """The error for a target that nobody knows."""
    return WorkflowNotFound(f"no run has the id {id!r}")


def has_ended(id: str) -> RunEnded:
    """The error for a target that can hear nothing any more."""
    return RunEnded(f"run {id} has ended: nothing can be sent to it")


def _nothing(_value: bytes) -> None:
    return None
