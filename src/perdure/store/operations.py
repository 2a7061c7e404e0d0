"""What people do to runs, as transactions: each for some runs at a time, repeatable, and noted in `audit`.

A command whose answer was lost is sent again. What it made then is there already, and counts as its own: by keys that
were made before the first try (restarts, forks), or because what it wanted is the case.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg.types.json import Jsonb

from perdure.models import AuditInfo, CancelReason, Kind
from perdure.store.arrays import Bigints, Blobs, Doubles, Texts
from perdure.store.connection import Connection
from perdure.store.database import Database

CORRECTABLE: Final = frozenset(
    (Kind.STEP, Kind.TRANSACTION, Kind.RESULT, Kind.EVENT, Kind.MESSAGE, Kind.COMMAND)
)
"""What of a record is a value that somebody else gave, and can be corrected."""
ALL: Final = 2**31 - 1
"""A group after every other."""


@dataclass(frozen=True, slots=True)
class Note:
    """Who does something, and why: what `audit` is to say."""

    who: str
    reason: str | None = None


class Cut(NamedTuple):
    """Where a history is cut: the step that is to run again, its name, its group and its time."""

    position: str
    name: str
    group: int
    recorded: datetime | None


class Operation:
    """One transaction on some runs, tried again if its answer was lost."""

    def __init__(self, database: Database, note: Note | None, verb: str, keys: Sequence[int]) -> None:
        self._database, self._note, self._verb = database, note, verb
        self.keys, self.tries, self._command = list(keys), 0, uuid.uuid4()
        self._connection: Connection | None = None

    def run(self, work: Callable[[Operation], list[int]]) -> list[int]:
        """Do the work in a transaction; return the keys of the runs that it reached."""

        def once(connection: Connection) -> list[int]:
            self.tries += 1
            self._connection = connection
            with connection.transaction():
                return work(self)

        return self._database.repeat(once)

    def do(self, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a named statement on the runs."""
        assert self._connection is not None
        given = {"keys": Bigints(sorted(self.keys)), **parameters}
        cursor = self._connection.execute(self._database.statements[name], given)
        return cursor.fetchall() if cursor.description else []

    def noted(self, rows: Sequence[tuple[Any, ...]], **detail: Any) -> list[int]:
        """Note what was done to these runs, while they are there; return their keys."""
        keys = sorted({row[0] for row in rows})
        if self._note is not None and keys:
            told = {name: value for name, value in detail.items() if value is not None}
            self.do(
                "audit",
                keys=Bigints(keys),
                who=self._note.who,
                verb=self._verb,
                reason=self._note.reason,
                detail=Jsonb(told) if told else None,
                command=self._command,
            )
        return keys


def cancel(
    database: Database, keys: Sequence[int], reason: CancelReason, value: bytes, note: Note | None = None
) -> list[int]:
    """Cancel runs; return the keys of those that were not too late. `value` is the recorded error."""
    at_once = reason is CancelReason.AT_ONCE

    def work(operation: Operation) -> list[int]:
        operation.do("lock_runs_for_cancel")
        rows = operation.do("cancel_unbegun", value=value, at_once=at_once)
        if rows:
            operation.do("drop_waits_of_runs", keys=Bigints([key for (key,) in rows]))
        rows += operation.do("ask_cancel", cancel=int(reason))
        if operation.tries > 1:  # the first try may have ended them
            rows += operation.do("find_cancelled")
        return operation.noted(rows, compensate=False if at_once else None)

    return Operation(database, note, "cancel", keys).run(work)


def resume(database: Database, keys: Sequence[int], note: Note, version: str | None = None) -> list[int]:
    """Unpark parked runs and revive failed ones; return the keys of those."""

    def work(operation: Operation) -> list[int]:
        operation.do("lock_runs_for_cancel")
        operation.do("lock_ends")
        operation.do(
            "lock_runs_for_tags"
        )  # a start from SQL that takes the id of one has no right to lock ends
        operation.do("forget_last_events")
        operation.do("forget_last_intents")
        operation.do("forget_last_failure")
        rows = operation.do("unpark_runs") + operation.do("revive_failed")
        if operation.tries > 1:  # the first try may have done it
            rows += operation.do("find_queued")
        if version is not None and rows:
            operation.do("set_versions", keys=Bigints([key for (key,) in rows]), version=version)
        return operation.noted(rows, version=version)

    return Operation(database, note, "resume", keys).run(work)


def set_deadlines(database: Database, keys: Sequence[int], note: Note, seconds: float | None) -> list[int]:
    """Give unfinished runs another deadline, or none."""

    def work(operation: Operation) -> list[int]:
        operation.do("lock_runs_for_cancel")  # in the order of their keys, as everybody does
        return operation.noted(operation.do("set_deadlines", seconds=seconds), seconds=seconds)

    return Operation(database, note, "set_timeout", keys).run(work)


def set_tags(database: Database, keys: Sequence[int], note: Note, tags: Mapping[str, Any]) -> list[int]:
    """Merge tags into those of runs, also of ended ones; one that is None is taken away."""

    def work(operation: Operation) -> list[int]:
        operation.do("lock_runs_for_tags")
        given = {name: value for name, value in tags.items() if value is not None}
        gone = [name for name, value in tags.items() if value is None]
        return operation.noted(operation.do("set_tags", given=Jsonb(given), gone=gone), tags=dict(tags))

    return Operation(database, note, "set_tags", keys).run(work)


def restart(
    database: Database,
    news: Mapping[int, tuple[int, float | None]],
    note: Note,
    version: str | None = None,
) -> list[int]:
    """Begin runs anew under their ids: `news` has for each its new key, and the timeout of its workflow."""
    keys = sorted(news)
    lines = {"next": Bigints([news[key][0] for key in keys])}

    def work(operation: Operation) -> list[int]:
        operation.do("lock_runs_for_cancel")
        operation.do("lock_ends")
        timeouts = Doubles([news[key][1] for key in keys])
        rows = operation.do("restart_runs", timeout=timeouts, version=version, **lines)
        operation.do("move_waiters", **lines)
        operation.do("copy_messages", **lines)
        operation.do("drop_waits_of_archived")
        if operation.tries > 1:
            rows += operation.do("keys_of_runs", keys=lines["next"])
        return operation.noted(rows, version=version)

    return Operation(database, note, "restart", keys).run(work)


def find_cut(database: Database, key: int, step: str) -> Cut | None:
    """Where a step of a run, by position or by name, stands in its history."""
    rows = database.run("find_cut", {"key": key, "step": step})
    for position, name, group, recorded in rows:
        return Cut(position, name, ALL if group is None else group, recorded)
    return None


class Fork(NamedTuple):
    """A run that is to begin with part of another's history.

    Attributes:
        origin, key: of the other, and its own.
        id: its own.
        cut: the step that is run again, with all that came after; None keeps nothing.
        outputs: other results for steps that are kept, by position.
        input: other arguments, or None.
        timeout: seconds from start to finish.
    """

    origin: int
    key: int
    id: str
    cut: Cut | None
    outputs: Mapping[str, bytes]
    input: bytes | None
    timeout: float | None
    queue: str | None
    version: str | None


class Deleted(Exception):
    """The run has been deleted meanwhile."""


class Unkept(Exception):
    """Outputs are given for steps that the fork does not keep."""


def fork(database: Database, what: Fork, note: Note) -> bool:
    """Make a fork; False if its id is taken."""
    cut = what.cut or Cut("", "", 0, None)

    def work(operation: Operation) -> list[int]:
        if not operation.do("lock_origin", key=what.origin):
            raise Deleted(what.origin)
        fields = {"next": what.key, "key": what.origin}
        made = operation.do(
            "fork_run",
            **fields,
            id=what.id,
            input=what.input,
            timeout=what.timeout,
            queue=what.queue,
            version=what.version,
            kept=what.cut is not None,
        )
        if not made:
            return [what.key] if operation.do("keys_of_runs") else []
        if what.cut is not None:
            edited = {"edited": Texts(list(what.outputs)), "values": Blobs(list(what.outputs.values()))}
            place = {"grp": cut.group, "position": cut.position, "recorded": cut.recorded}
            kept = {row[0] for row in operation.do("fork_steps", **fields, **edited, **place)}
            if missing := sorted(set(what.outputs) - kept):
                raise Unkept(", ".join(missing))
            operation.do("fork_events", **fields, grp=cut.group)
            operation.do("fork_streams", **fields)
        operation.do("copy_messages", keys=Bigints([what.origin]), next=Bigints([what.key]))
        outputs = sorted(what.outputs) or None
        from_step = None if what.cut is None else cut.position
        return operation.noted([(what.key,)], of=what.origin, from_step=from_step, outputs=outputs)

    return bool(Operation(database, note, "fork", [what.key]).run(work))


def delete(database: Database, keys: Sequence[int], note: Note, *, children: bool) -> list[int]:
    """Delete runs that have ended, with their trees; return the keys of those that were asked for and are gone."""
    trees: dict[int, set[int]] = {}
    refused: set[int] = set()
    for root, key, lives, needed in database.run(
        "find_doomed", {"keys": Bigints(list(keys)), "children": children}
    ):
        trees.setdefault(root, set()).add(key)
        if lives or needed:
            refused.add(root)
    whole = {root: tree for root, tree in trees.items() if root not in refused}
    if not whole:
        return []

    def work(operation: Operation) -> list[int]:
        ended = {key for (key,) in operation.do("lock_ends")}  # somebody may have revived one meanwhile
        doomed = {root: tree for root, tree in whole.items() if tree <= ended}
        gone = operation.noted([(root,) for root in doomed])
        operation.do("delete_runs", keys=Bigints(sorted(set().union(*doomed.values()))))
        if operation.tries > 1:  # the first try may have done it
            there = {key for (key,) in operation.do("keys_of_runs")}
            gone += [root for root in whole if root not in there and root not in gone]
        return gone

    return Operation(database, note, "delete", sorted(set().union(*whole.values()))).run(work)


class Uncorrectable(Exception):
    """The record of a step cannot be corrected; the text says why."""


def set_output(database: Database, key: int, position: str, value: bytes, note: Note) -> None:
    """Correct what a step of a run was recorded with, while nobody runs it."""

    def work(operation: Operation) -> list[int]:
        if _settled(operation, key) == 3:
            raise Uncorrectable(
                "it is running: its code has seen the result; cancel it, or wait until it waits or has ended"
            )
        found = operation.do("find_step", key=key, position=position)
        if not found:
            raise Uncorrectable(f"nothing is recorded at {position}")
        kind, name, failed, old = found[0]
        if kind not in CORRECTABLE:
            raise Uncorrectable(
                f"{name} at {position} is a {Kind(kind).name.lower()}, whose record is perdure's own"
            )
        operation.do("set_output", key=key, position=position, value=value)
        was = bytes(old).decode("utf-8", "replace")
        return operation.noted([(key,)], position=position, name=name, failed=failed, was=was)

    Operation(database, note, "set_output", [key]).run(work)


def _settled(operation: Operation, key: int) -> int | None:
    """How an unfinished run stands, None of one that has ended; locked either way, so that nobody revives it meanwhile."""
    found = operation.do("lock_run", key=key)
    if not found and not operation.do("lock_ends"):
        found = operation.do("lock_run", key=key)  # it was revived between the two looks
    return found[0][0] if found else None


def list_audit(database: Database, id: str | None, limit: int) -> list[AuditInfo]:
    """What was done to runs, newest first."""
    return [AuditInfo(*row) for row in database.run("list_audit", {"id": id, "limit": limit})]
