"""What goes between runs and everybody else: messages, events, updates; each operation once, for both colours.

Inside a workflow each is a durable call. Outside, a message goes through the journal too, where many that are sent at
the same time share a commit; its key, made before the first try, is what a lost answer is recognised by.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from perdure.client.current import App
from perdure.client.operations import Operation, found, read
from perdure.client.topics import Named, written
from perdure.core import events, messages, streams
from perdure.core.body import running
from perdure.core.branch import Branch, current
from perdure.core.effects import Await, Use
from perdure.core.messages import Message, has_ended, no_such_run
from perdure.errors import DatabaseUnavailable, NotInWorkflow, RunEnded, SerializationError, WaitTimeout
from perdure.models import Discarded, Duration, EventInfo, Item, seconds_of
from perdure.serial import Payload, check_text, decode_failure, encode_failure
from perdure.store import messages as stored
from perdure.store.records import MessageRecord, Outcome, StreamKind, Ticket

T = TypeVar("T")
R = TypeVar("R", bound="Request[Any]")


class Missing:
    """The type of `MISSING`, which stands for a default that was not given."""


MISSING: Final = Missing()
UPDATE: Final = "!update/"
"""Topics of updates: users' topics cannot begin so."""
ANSWER: Final = "!answer/"
"""Events that answer updates, by the update's id."""


class Letter(msgspec.Struct):
    """An update as it is stored: its id, which the answer carries, and what is asked."""

    id: str
    payload: msgspec.Raw


def sending(app: App, outgoing: Sequence[Message]) -> Operation:
    """Send messages: all or none, in one commit."""
    branch = current.get()
    if branch is not None:
        return messages.send(branch, outgoing)
    return _send_outside(app, outgoing)


def _send_outside(app: App, outgoing: Sequence[Message]) -> Operation:
    if not outgoing:
        return
    run = app.runtime.new_key()
    records = [MessageRecord(run, m.id, m.topic, m.value, m.key or str(uuid.uuid4())) for m in outgoing]
    ticket = Ticket(*records)
    app.runtime.submit(ticket, contested=True)
    yield ticket
    if ticket.error is not None:
        reason = str(ticket.error) or "this worker was declared dead"
        raise DatabaseUnavailable(
            f"whether the message to {outgoing[0].id} was sent is not known ({reason}); with key=... it can be sent "
            "again without harm"
        ) from ticket.error
    for record in records:
        if record.outcome is Outcome.LOST:
            raise has_ended(record.id) if record.ended else no_such_run(record.id)


def getting(
    app: App, id: str, event: Named, timeout: Duration | None, default: Any, known: int | None = None
) -> Operation:
    """Wait for an event and return its last value.

    `known` is the key of the run, if the caller knows it: then its next lives are followed from there on, and an event
    that it set before it went on as new is found. An id alone means the life of today.
    """
    check_text(id, "id of a run")
    seconds = None if timeout is None else seconds_of(timeout, "timeout=")
    branch = current.get()
    if branch is not None:
        return or_default(events.get_event(branch, id, event.name, event.payload, seconds, known), default)
    return or_default(_get_outside(app, id, event, seconds, known), default)


def _get_outside(app: App, id: str, event: Named, timeout: float | None, known: int | None) -> Operation:
    key = known
    if key is None:
        key, _ = yield Use(lambda: found(app, id))
    signal = app.runtime.event_of(key, event.name)
    try:
        yield Await(signal, timeout)
    finally:
        app.runtime.unwatch_event(key, event.name, signal)
    if signal.error is not None:
        raise signal.error
    value = signal.value
    if not signal.done:
        value = (yield Use(lambda: stored.find_events(app.database, [(key, event.name)]))).get(
            (key, event.name)
        )
    if value is None:
        raise WaitTimeout(f"run {id} did not set {event.name!r} within {timeout:g} s")
    if isinstance(value, str):
        raise events.never_set(id, event.name, value)
    failed, payload = value
    if failed:
        raise decode_failure(payload, exceptions=app.runtime.exceptions)
    return event.payload.decode(payload)


def or_default(operation: Operation, default: Any) -> Operation:
    """What a wait brings, or, where its time is over, the default, if one was given."""
    try:
        return (yield from operation)
    except WaitTimeout:
        if default is MISSING:
            raise
        return default


def listing(app: App, id: str) -> Operation:
    """Every value of every event of a run, oldest first."""

    def look() -> tuple[EventInfo, ...]:
        key, _ = found(app, id)
        return tuple(EventInfo(name, value, at) for name, value, at in stored.list_events(app.database, key))

    return read("events", look)


def update_message(id: str, name: str, value: bytes, update: str) -> Message:
    """An update on its way: a message, whose id the answer will carry."""
    return Message(id, *update_letter(name, value, update), key=update)


def update_letter(name: str, value: bytes, update: str) -> tuple[str, bytes]:
    """Topic and text of the message that is an update."""
    return UPDATE + name, msgspec.json.encode(Letter(update, msgspec.Raw(value)))


def new_update() -> str:
    """An id for an update that was given none; inside a workflow a replay gives the same."""
    branch = current.get()
    return str(branch.uuid4() if branch is not None else uuid.uuid4())


def updating(
    app: App,
    id: str,
    request: tuple[str, bytes],
    update: str | None,
    answer: Payload,
    timeout: Duration | None,
) -> Operation:
    """Ask a run for something and wait for its answer; once for each update id."""
    name, value = request
    update = update or new_update()
    try:
        yield from sending(app, [update_message(id, name, value, update)])
    except RunEnded:
        pass  # perhaps it answered this very update before; else the wait says how it ended
    return (yield from answering(app, id, update, answer, timeout))


def answering(
    app: App, id: str, update: str, answer: Payload, timeout: Duration | None, known: int | None = None
) -> Operation:
    """Wait for the answer to an update."""
    return getting(app, id, Named(ANSWER + update, answer), timeout, MISSING, known)


def receiving(caller: Branch, topic: Named, seconds: float | None, default: Any) -> Operation:
    """Receive the next message of a topic, in the branch whose task drives this."""
    branch = current.get() or caller
    return or_default(messages.receive(branch, topic.name, topic.payload.decode, seconds), default)


class Request(Generic[T]):
    """An update that wants an answer.

    Attributes:
        id: of the update; asked again with the same id, it gets the same answer.
        payload: what is asked.
    """

    def __init__(self, branch: Branch, id: str, payload: T) -> None:
        self._branch, self.id, self.payload = branch, id, payload

    def _reply(self, value: Any) -> Operation:
        stored = written("answer", value)[1]
        return events.set_event(current.get() or self._branch, ANSWER + self.id, stored)

    def _reject(self, error: Exception) -> Operation:
        stored = encode_failure(error)
        return events.set_event(current.get() or self._branch, ANSWER + self.id, stored, failed=True)


def asked(caller: Branch, topic: Named, kind: type[R]) -> Operation:
    """The next update of this name; one that asks for what is no value of the type is rejected here."""
    branch = current.get() or caller
    while True:
        try:
            letter: Letter = yield from messages.receive(branch, UPDATE + topic.name, _letter)
        except SerializationError:
            continue  # no update at all: somebody wrote to the topic by hand
        try:
            return kind(branch, letter.id, topic.payload.decode(letter.payload))
        except SerializationError as error:
            yield from kind(branch, letter.id, None)._reject(error)  # noqa: SLF001  (its own module)


def _letter(stored: bytes) -> Letter:
    try:
        return msgspec.json.decode(stored, type=Letter)
    except msgspec.MsgspecError as error:
        raise SerializationError(f"no update: {error}") from error


def reading(app: App, id: str, stream: Named, offset: int, whose: list[int]) -> Operation:
    """The next rows of a stream from an offset on, as users see them; whether it has ended, and where to go on.

    `whose` is empty at first, and then holds the key of the run: an offset in the stream of one life of a run is none in
    that of the next.
    """
    branch = current.get()
    if branch is not None:
        row = yield from streams.read_row(branch, id, stream.name, offset, whose)
        return _items([] if row is None else [row], stream)
    if not whose:
        key, _ = yield Use(lambda: found(app, id))
        whose.append(key)
    key = whose[0]
    signal = app.runtime.rows_of(key, stream.name, offset)
    try:
        yield signal
    finally:
        app.runtime.unwatch_rows(key, stream.name, offset, signal)
    if signal.error is not None:
        raise signal.error
    return _items(signal.value, stream)


def _items(rows: Sequence[tuple[Any, ...]], stream: Named) -> tuple[list[Item[Any] | Discarded], int | None]:
    items: list[Item[Any] | Discarded] = []
    for place, kind, value, *_ in rows:
        if kind == StreamKind.END:
            return items, None
        if kind == StreamKind.DISCARDED:
            items.append(Discarded(int(value)))
        else:
            items.append(Item(place, stream.payload.decode(value)))
    return items, rows[-1][0] + 1 if rows else None


def writing(key: str, stored: bytes, kind: StreamKind = StreamKind.ITEM) -> Operation:
    """Write on a stream: as a step of workflow code, or from the body of one."""
    branch, body = current.get(), running.get()
    if branch is not None:
        yield from streams.write(branch, key, stored, kind)
    elif body is not None:
        ticket = body.write(key, stored, kind)
        if ticket is not None:
            yield ticket
    else:
        raise NotInWorkflow("a stream is written by a workflow or by a step that it called")


def beating(details: Any) -> None:
    """Note the progress of the body that is running."""
    body = running.get()
    if body is None:
        raise NotInWorkflow("heartbeat(...) is said by the body of a step that a workflow called")
    body.heartbeat(written("heartbeat", details)[1])
