"""Messages and events in a batch, and as their readers look for them.

A message's fate is the database's to decide, since only the lock on the target's row tells whether it lives: the
rows that a statement returns are read here. A target that moved on while its lock was awaited (`continue_as_new`) is
neither there nor gone; the ticket is then tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from perdure.sql import Statements
from perdure.store.arrays import Bigints, Blobs, Booleans, Integers, Smallints, Texts
from perdure.store.columns import places
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.records import EventRecord, MessageRecord, Outcome, SendRecord

PAGE_MESSAGES: Final = 500
"""Messages of one topic in one answer."""

Named = tuple[str, dict[str, Any]]


class Vanished(Exception):
    """What a record was about was gone, or moved, when it was looked for again: try once more."""


def send_statements(
    messages: Sequence[MessageRecord], sends: Sequence[SendRecord], worker: int | None
) -> Iterable[Named]:
    """The statements that send, and then wake whoever waits for it."""
    if messages:
        yield (
            "send_messages",
            _targets(messages)
            | {
                "value": Blobs([message.value for message in messages]),
                "key": Texts([message.key for message in messages]),
                "born": Bigints([message.born for message in messages]),
                "workflow": Texts([message.workflow for message in messages]),
            },
        )
    if sends:
        yield "record_sends", _send_columns(sends) | {"worker": worker}
    if every := [*messages, *(message for send in sends for message in send.messages)]:
        yield "wake_receivers", _targets(every)


def event_columns(events: Sequence[EventRecord]) -> dict[str, Any]:
    """Many events."""
    return places(events) | {
        "key": Texts([event.key for event in events]),
        "failed": Booleans([event.failed for event in events]),
        "value": Blobs([event.value for event in events]),
    }


def settle_messages(messages: Sequence[MessageRecord], rows: Iterable[tuple[Any, ...]]) -> None:
    """Read what became of messages from outside.

    Raises:
        Vanished: a target has moved.
    """
    for number, run, lives, locked, sent in rows:
        message = messages[number - 1]
        if locked or sent:
            message.outcome = Outcome.WON
        elif lives:
            raise Vanished(message.id)
        else:
            message.outcome, message.ended = Outcome.LOST, run is not None


def settle_sends(
    connection: Connection,
    statements: Statements,
    sends: Sequence[SendRecord],
    rows: Iterable[tuple[Any, ...]],
    worker: int | None,
) -> None:
    """Read what became of sending steps; where one was recorded by an earlier try, look it up.

    Raises:
        Vanished: a target has moved.
    """
    made = {(run, position): (failed, bytes(value)) for run, position, failed, value in rows}
    missing = [send for send in sends if (send.run, send.position) not in made]
    strangers = set()
    if missing:
        for run, position, failed, value, owner in connection.execute(
            statements["find_sends"], places(missing)
        ):
            made[run, position] = failed, bytes(value)
            if owner != worker:
                strangers.add((run, position))
    for send in sends:
        place = (send.run, send.position)
        if place not in made:
            raise Vanished(send.messages[0].id)
        send.outcome = Outcome.LOST if place in strangers else Outcome.WON
        send.failed, send.value = made[place]


def find_messages(
    database: Database, lines: Sequence[tuple[int, str, int]]
) -> dict[tuple[int, str], list[tuple[int, bytes]]]:
    """The next messages of runs and topics after the last that was seen: number and payload, in order."""
    parameters = {
        "run": Bigints([run for run, _, _ in lines]),
        "topic": Texts([topic for _, topic, _ in lines]),
        "seen": Bigints([seen for _, _, seen in lines]),
        "limit": PAGE_MESSAGES,
    }
    found: dict[tuple[int, str], list[tuple[int, bytes]]] = {}
    for run, topic, number, value in database.run("find_messages", parameters):
        found.setdefault((run, topic), []).append((number, bytes(value)))
    return found


def find_events(
    database: Database, wanted: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], tuple[bool, bytes]]:
    """The last value of each event that was set, and whether it is an error."""
    parameters = {"run": Bigints([run for run, _ in wanted]), "key": Texts([key for _, key in wanted])}
    rows = database.run("find_events", parameters)
    return {(run, key): (failed, bytes(value)) for run, key, failed, value in rows}


def list_events(database: Database, run: int) -> list[tuple[str, bytes, datetime]]:
    """Every value of every event of a run, oldest first."""
    return [(key, bytes(value), at) for key, value, at in database.run("list_events", {"run": run})]


def _targets(messages: Sequence[MessageRecord]) -> dict[str, Any]:
    return {"id": Texts([m.id for m in messages]), "topic": Texts([m.topic for m in messages])}


def _send_columns(sends: Sequence[SendRecord]) -> dict[str, Any]:
    numbered = [
        (number, message, unknown, ended)
        for number, send in enumerate(sends, 1)
        for message, unknown, ended in zip(send.messages, send.unknown, send.ended, strict=True)
    ]
    return (
        places(sends)
        | _targets([message for _, message, _, _ in numbered])
        | {
            "grp": Integers([send.group for send in sends]),
            "ord": Integers([send.order for send in sends]),
            "kind": Smallints([send.kind for send in sends]),
            "name": Texts([send.name for send in sends]),
            "value": Blobs([send.value for send in sends]),
            "step": Integers([number for number, _, _, _ in numbered]),
            "message": Blobs([message.value for _, message, _, _ in numbered]),
            "key": Texts([message.key for _, message, _, _ in numbered]),
            "unknown": Blobs([unknown for _, _, unknown, _ in numbered]),
            "ended": Blobs([ended for _, _, _, ended in numbered]),
        }
    )
