"""Runs as JSON documents: exported with all that is recorded of them, and loaded elsewhere.

The format is versioned and kept readable: names instead of numbers, payloads as the JSON that they are. Keys are text,
since many readers of JSON lose bits of large numbers. docs/reference/export-format.md says what each field is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg.rows import dict_row

from perdure.models import Kind, Status
from perdure.store.arrays import Bigints
from perdure.store.connection import Connection
from perdure.store.database import Database

FORMAT: Final = 1
LOADED: Final = "loaded from an export; resume it to have it go on here"
_ESCAPE: Final = "$base64"
Json = msgspec.Raw


class Document(msgspec.Struct, omit_defaults=True):
    """Part of an export."""


class Step(Document, kw_only=True):
    """Something that the code was told."""

    position: str
    group: int | None = None
    order: int | None = None
    kind: str
    name: str
    failed: bool = False
    value: Json
    attempts: int = 1
    seconds: float = 0.0
    recorded: datetime
    message: int | None = None


class Message(Document, kw_only=True):
    """A message that the run was sent; `number` is what steps name it by."""

    topic: str
    number: int
    key: str
    value: Json
    sent: datetime


class Event(Document, kw_only=True):
    """A value that it made known."""

    key: str
    number: int
    failed: bool = False
    value: Json
    recorded: datetime


class StreamRow(Document, kw_only=True):
    """A row of a stream: an item, what discards items, or the end."""

    key: str
    place: int
    kind: int = 0
    value: Json
    position: str | None = None


class Wait(Document, kw_only=True):
    """Something that it waits for."""

    position: str
    due: datetime | None = None
    target: str | None = None
    topic: str | None = None


class Intent(Document, kw_only=True):
    """A body that had begun."""

    position: str
    name: str
    detail: Json | None = None
    begun: datetime


class State(Document, kw_only=True):
    """How an unfinished run stands."""

    status: str
    priority: int = 0
    deadline: datetime | None = None
    cancel: int = 0
    begun: bool = True
    reason: str | None = None
    version: str | None = None
    ends_with_parent: bool = False


class End(Document, kw_only=True):
    """How a run ended."""

    status: str
    value: Json
    finished: datetime


class RunDocument(Document, kw_only=True):
    """One life of a run."""

    key: str
    id: str
    workflow: str
    input: Json
    parent: str | None = None
    position: str | None = None
    queue: str | None = None
    queue_key: str | None = None
    version: str | None = None
    tags: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    created: datetime
    superseded: bool = False
    seed: str
    schedule: str | None = None
    scheduled_at: datetime | None = None
    state: State | None = None
    end: End | None = None
    steps: list[Step] = msgspec.field(default_factory=list)
    messages: list[Message] = msgspec.field(default_factory=list)
    events: list[Event] = msgspec.field(default_factory=list)
    streams: list[StreamRow] = msgspec.field(default_factory=list)
    waits: list[Wait] = msgspec.field(default_factory=list)
    intents: list[Intent] = msgspec.field(default_factory=list)


class Export(msgspec.Struct, kw_only=True):
    """An export: the number of its format, the database that it is from, and runs in the order of their birth."""

    perdure: int = FORMAT
    realm: str
    exported: datetime
    runs: list[RunDocument]


def decode(text: bytes | str) -> Export:
    """Read an export.

    Raises:
        ValueError: it is none, or of a newer format.
    """
    try:
        number = msgspec.json.decode(text, type=_Head).perdure
        if number > FORMAT:
            raise ValueError(
                f"the export has format {number}, this version of perdure reads {FORMAT}: upgrade it here"
            )
        if number < 1:
            raise ValueError(f"this is no export of perdure: there is no format {number}")
        return msgspec.json.decode(text, type=Export)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"this is no export of perdure: {error}") from None


class _Head(msgspec.Struct):
    perdure: int


def kind_of(step: Step) -> int:
    """The number of a step's kind.

    Raises:
        ValueError: there is no such kind.
    """
    try:
        return int(Kind[step.kind.upper()])
    except KeyError:
        raise ValueError(f"this is no export of perdure: {step.kind!r} is no kind of a step") from None


def shown(stored: bytes) -> Json:
    """A payload as JSON: as it is, or escaped, where it is none."""
    try:
        value = msgspec.json.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = {_ESCAPE: None}
    if isinstance(value, dict) and _ESCAPE in value:
        return Json(msgspec.json.encode({_ESCAPE: base64.b64encode(stored).decode()}))
    return Json(stored)


def stored(value: Json) -> bytes:
    """The payload that `shown` has shown."""
    text = bytes(value)
    if _ESCAPE.encode() in text:
        decoded = msgspec.json.decode(text)
        if isinstance(decoded, dict) and set(decoded) == {_ESCAPE}:
            return base64.b64decode(decoded[_ESCAPE])
    return text


# -- out -------------------------------------------------------------------------------------------


def export(database: Database, ids: Sequence[str], *, children: bool) -> Export:
    """Runs by id with their earlier lives and, if wanted, all that they started, as of one moment."""

    def look(connection: Connection) -> Export:
        def rows(name: str, **parameters: Any) -> list[tuple[Any, ...]]:
            return connection.execute(database.statements[name], parameters).fetchall()

        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            keys = [key for (key,) in rows("find_tree", ids=list(ids), children=children)]
            ((realm, now),) = rows("export_head")
            found = rows("export_runs", keys=Bigints(keys))
            runs = {row[0]: _run(row) for row in found}
            for name, (field, kind) in _LISTS.items():
                cursor = connection.cursor(row_factory=dict_row)
                for row in cursor.execute(database.statements[name], {"keys": Bigints(keys)}):
                    getattr(runs[row.pop("run")], field).append(_document(kind, row))
        return Export(realm=realm, exported=now, runs=list(runs.values()))

    return database.repeat(look)


def _document(kind: type[Document], row: dict[str, Any]) -> Document:
    """A row whose columns have the names of the document's fields."""
    for payload in ("value", "detail"):
        if row.get(payload) is not None:
            row[payload] = shown(bytes(row[payload]))
    return kind(**row)


def _run(row: tuple[Any, ...]) -> RunDocument:
    key, id, workflow, input, parent, position, queue, queue_key, version, tags, context, created, *more = row
    superseded, seed, schedule, scheduled_at, *more = more
    status, priority, deadline, cancel, begun, reason, present, bound, end_status, value, finished = more
    state = end = None
    if status is not None:
        state = State(
            status=str(Status.of(status)),
            priority=priority,
            deadline=deadline,
            cancel=cancel,
            begun=begun,
            reason=reason,
            version=present,
            ends_with_parent=bound,
        )
    if end_status is not None:
        end = End(status=str(Status.of(end_status)), value=shown(bytes(value)), finished=finished)
    return RunDocument(
        key=str(key),
        id=id,
        workflow=workflow,
        input=shown(bytes(input)),
        parent=None if parent is None else str(parent),
        position=position,
        queue=queue,
        queue_key=queue_key,
        version=version,
        tags=tags,
        context=context,
        created=created,
        superseded=superseded,
        seed=seed,
        schedule=schedule,
        scheduled_at=scheduled_at,
        state=state,
        end=end,
    )


_LISTS: Final[Mapping[str, tuple[str, type[Document]]]] = {
    "export_steps": ("steps", Step),
    "export_messages": ("messages", Message),
    "export_events": ("events", Event),
    "export_streams": ("streams", StreamRow),
    "export_waits": ("waits", Wait),
    "export_intents": ("intents", Intent),
}
"""Statements, and where what they find belongs."""
