"""Loading what was exported: every run gets a new key here, and whatever names a key names the new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg.errors import ProgramLimitExceeded
from psycopg.types.json import Jsonb

from perdure.models import CancelReason, Status
from perdure.store.archive import LOADED, Document, Export, RunDocument, Step, kind_of, stored
from perdure.store.damage import check
from perdure.store.database import Database
from perdure.store.operations import Note, Operation

_DAMAGE: Final = (KeyError, TypeError, ValueError, RecursionError, msgspec.MsgspecError)


class Taken(Exception):
    """An id of the export belongs to a run here."""


def load(
    database: Database, export: Export, new_key: Callable[[], int], prefix: str, note: Note
) -> tuple[str, ...]:
    """Load runs in one transaction; return their ids. What had not ended is parked."""
    try:
        check(export, prefix)
    except ValueError as error:
        raise _damaged(error) from None
    loading = _Loading(export, {run.key: new_key() for run in export.runs}, prefix)

    def work(operation: Operation) -> list[int]:
        if operation.tries > 1 and operation.do("keys_of_runs"):
            return operation.keys
        ids = sorted({prefix + run.id for run in export.runs if not run.superseded})
        if taken := operation.do("taken_ids", ids=ids):
            raise Taken(taken[0][0])
        count = sum(len(run.messages) for run in export.runs)
        loading.numbers = [number for (number,) in operation.do("next_numbers", count=count)]
        for run in export.runs:
            loading.one(operation, run)
        return operation.noted([(key,) for key in operation.keys], realm=export.realm)

    keys = sorted(loading.keys.values())
    try:
        Operation(database, note, "load", keys).run(work)
    except (*_DAMAGE, psycopg.DataError, psycopg.IntegrityError, ProgramLimitExceeded) as error:
        raise _damaged(error) from error
    return tuple(prefix + run.id for run in export.runs if not run.superseded)


def _damaged(error: Exception) -> ValueError:
    told = " ".join(str(error).split())
    return ValueError(f"the export is damaged, and nothing of it is loaded: {told}")


class _Loading:
    """One load: the new keys by the old ones, and new numbers for messages, in the old order."""

    def __init__(self, export: Export, keys: dict[str, int], prefix: str) -> None:
        self.keys, self._prefix = keys, prefix
        self._ids = {run.key: prefix + run.id for run in export.runs}
        self.numbers: list[int] = []

    def one(self, operation: Operation, run: RunDocument) -> None:
        """Load one run with all its rows."""
        key = self.keys[run.key]
        self._row(operation, run, key)
        numbers = {message.number: self.numbers.pop(0) for message in run.messages}
        for step in run.steps:
            consumed = None if step.message is None else numbers.get(step.message)
            changed = {"kind": kind_of(step), "value": self._value(step), "message": consumed}
            operation.do("load_step", run=key, **_columns(step) | changed)
        for message in run.messages:
            operation.do("load_message", run=key, **_columns(message) | {"number": numbers[message.number]})
        for wait in run.waits:
            target = None if wait.target is None else self.keys.get(wait.target)
            if wait.target is None or target is not None:  # a run that was not exported is asked for again
                operation.do("load_wait", run=key, **_columns(wait) | {"target": target})
        others: tuple[tuple[str, Sequence[Document]], ...] = (
            ("load_event", run.events),
            ("load_item", run.streams),
            ("load_intent", run.intents),
        )
        for name, rows in others:
            for row in rows:
                operation.do(name, run=key, **_columns(row))

    def _row(self, operation: Operation, run: RunDocument, key: int) -> None:
        parent = None if run.parent is None else self.keys.get(run.parent)
        state, end = run.state, run.end
        operation.do(
            "load_run",
            key=key,
            id=self._ids[run.key],
            workflow=run.workflow,
            input=stored(run.input),
            parent=parent,
            position=run.position if parent is not None else None,
            queue=run.queue,
            queue_key=run.queue_key,
            version=run.version if state is None else state.version or run.version,
            tags=None if run.tags is None else Jsonb(run.tags),
            context=None if run.context is None else Jsonb(run.context),
            created=run.created,
            superseded=run.superseded,
            seed=run.seed,
            schedule=run.schedule,
            scheduled_at=run.scheduled_at,
            end_status=None if end is None else Status(end.status).code,
            end_value=None if end is None else self._end(end.status, stored(end.value)),
            finished=None if end is None else end.finished,
            priority=0 if state is None else state.priority,
            deadline=None if state is None else state.deadline,
            cancel=int(CancelReason.NONE) if state is None else state.cancel,
            begun=state is not None and state.begun,
            reason=LOADED if state is None or state.reason is None else f"{LOADED} (before: {state.reason})",
            close=parent if state is not None and state.ends_with_parent else None,
        )

    def _end(self, status: str, value: bytes) -> bytes:
        """What a run went on as has another key here."""
        if Status(status) is not Status.CONTINUED:
            return value
        return str(self.keys.get(value.decode(), 0)).encode()

    def _value(self, step: Step) -> bytes:
        """What a start recorded are the key and the id of a child."""
        value = stored(step.value)
        if step.kind != "start" or step.failed:
            return value
        told: Any = msgspec.json.decode(value)
        if not (isinstance(told, list) and told and str(told[0]) in self.keys):
            return value
        return msgspec.json.encode([self.keys[str(told[0])], self._ids[str(told[0])]])


def _columns(row: Document) -> dict[str, Any]:
    """The fields of a document, by their names, with payloads as they are stored."""
    fields = msgspec.structs.asdict(row)
    return {
        name: stored(value) if isinstance(value, msgspec.Raw) else value for name, value in fields.items()
    }
