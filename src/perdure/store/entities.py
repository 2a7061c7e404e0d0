"""Commands on durable objects: many in one transaction, each under the lock of its object's row.

Like the journal's batches, but in two round trips: the first locks the rows and reads them, then the commands are run
here, one after the other, then the second writes what became of all. Commands on one object that are given at the same
time share its lock and its commit. A command that raises leaves its object as it was.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from perdure.sql import Statements
from perdure.store.arrays import Bigints, Blobs, Booleans, Integers, Smallints, Texts
from perdure.store.batch import Batch
from perdure.store.columns import places
from perdure.store.connection import Connection, confirm
from perdure.store.database import Database
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, roll_back, rows
from perdure.store.records import Outcome, Record, StepRecord, Ticket

Place = tuple[str, str]
"""Type and key of an object."""
LOCK_TIMEOUT: Final = 0.25
"""Seconds to wait for objects that another process works on."""
TRY_BLOCKED_AFTER: Final = 0.25
"""Seconds for which an object that somebody holds is let be."""


class Applied(NamedTuple):
    """What became of a command.

    Attributes:
        state: the object's new state, or None if it is as it was.
        failed: whether it raised.
        value: its result or its error.
        told: what it has told other objects to do: place, command, arguments, and what carries it out.
    """

    state: bytes | None
    failed: bool
    value: bytes
    told: Sequence[tuple[Place, str, bytes, Callable[[bytes | None], Applied]]] = ()


class CommandRecord(Record):
    """One command.

    Attributes:
        place: type and key of the object.
        id: names it, so that it is done once.
        apply: runs it on a stored state, None for an object that is new.
        step: the step that gives it, if a workflow does.
        is_told: whether another object's command gives it, so that it has a row in `told`.
        tells: what it tells others, once it is carried out.
        failed: whether it raised; known once the ticket is settled.
        value: its result or its error.
    """

    __slots__ = ("apply", "args", "command", "failed", "id", "is_told", "place", "step", "tells", "value")

    @property
    def outside(self) -> bool:
        """Whether no workflow gives it."""
        return self.step is None

    def __init__(
        self,
        run: int,
        place: Place,
        id: str,
        command: str,
        args: bytes,
        apply: Callable[[bytes | None], Applied],
        step: StepRecord | None = None,
        *,
        is_told: bool = False,
    ) -> None:
        super().__init__(run)
        self.is_told, self.tells = is_told, list[CommandRecord]()
        self.place, self.id, self.command, self.args = place, id, command, args
        self.apply, self.step = apply, step
        self.failed, self.value = False, b"null"


class CommandWriter:
    """Writes batches of commands over one connection, as one worker's slot, or as a client."""

    def __init__(self, statements: Statements, worker: int | None, slot: int) -> None:
        self._sql, self._worker, self._slot = statements, worker, slot
        self._blocked: dict[Place, float] = {}
        """Objects that somebody holds for long, and when to try them again: alone, so that they hold up nobody."""

    def begin(self, connection: Connection, batch: Batch) -> None:
        """Commands are never sent before their objects are locked."""

    def write(self, connection: Connection, batch: Batch, lock_timeout: float) -> Sequence[Ticket]:
        """Run and write the commands; return those left out, because somebody holds their objects.

        Raises:
            psycopg.Error: nothing is done, or (a lost connection) nobody knows.
        """
        alone = len(batch.tickets) == 1
        left = [ticket for ticket in batch.tickets if self._is_held(ticket, alone=alone)]
        if left:
            batch = Batch(ticket for ticket in batch.tickets if ticket not in left)
        commands = batch.of(CommandRecord)
        if not commands:
            return left
        places = {command.place for command in commands}
        try:
            states, done = self._lock(
                connection,
                commands,
                lock_timeout if alone and places & self._blocked.keys() else LOCK_TIMEOUT,
            )
            self._save(connection, _run_all(commands, states, done))
        except BaseException as error:
            if not connection.closed:
                roll_back(connection)
            if alone and isinstance(error, psycopg.errors.LockNotAvailable):
                self._blocked |= dict.fromkeys(places, time.monotonic() + TRY_BLOCKED_AFTER)
            raise
        confirm(connection)
        for command in commands:
            command.outcome = Outcome.WON
            self._blocked.pop(command.place, None)
        return left

    def _is_held(self, ticket: Ticket, *, alone: bool) -> bool:
        until = max(
            (self._blocked.get(r.place, 0.0) for r in ticket.records if isinstance(r, CommandRecord)),
            default=0.0,
        )
        return until > 0 and (not alone or until > time.monotonic())

    def _lock(
        self, connection: Connection, commands: Sequence[CommandRecord], lock_timeout: float
    ) -> tuple[dict[Place, _State], _Done]:
        objects = sorted({command.place for command in commands})
        which = _columns(objects)
        steps = [command.step for command in commands if command.step is not None]
        begin = "begin_batch" if self._worker is not None else "begin_client_batch"
        settings = {"lock_timeout": f"{max(1, int(lock_timeout * 1000))}ms", "plans": "auto"}
        ids = _columns([command.place for command in commands]) | {"id": Texts([c.id for c in commands])}
        packet = [
            self._statement(begin, settings | {"worker": self._worker, "slot": self._slot}),
            self._statement("make_entities", which),
            self._statement("lock_entities", which),
            # After the lock, so that whatever an earlier try has done is seen.
            self._statement("find_commands", ids),
        ]
        if steps:
            packet.append(self._statement("find_sends", places(steps)))
        _, _, _, locked, found, *recorded = execute(connection, [BEGIN, *packet])
        states = {
            (type, key): _State(version, state) for type, key, version, state in rows(connection, locked)
        }
        by_id = {(type, key, id): bytes(value) for type, key, id, value in rows(connection, found)}
        by_step = {
            (run, position): (failed, bytes(value))
            for result in recorded
            for run, position, failed, value, _ in rows(connection, result)
        }
        return states, (by_id, by_step)

    def _save(self, connection: Connection, work: _Work) -> None:
        packet: list[Statement] = []
        if work.changed:
            states = [work.states[place] for place in work.changed]
            packet.append(
                self._statement(
                    "save_entities",
                    _columns(work.changed)
                    | {
                        "state": Blobs([state.value for state in states]),
                        "version": Bigints([state.version for state in states]),
                    },
                )
            )
            packet.append(self._statement("add_commands", _command_columns(work.applied)))
            if tells := [told for command, _ in work.applied for told in command.tells]:
                packet.append(self._statement("add_told", _told_columns(tells)))
        if done := [told.id for told in work.told if not told.failed]:
            packet.append(self._statement("end_told", {"ids": Texts(done)}))
        if failed := [told for told in work.told if told.failed]:
            errors = Blobs([told.value for told in failed])
            packet.append(
                self._statement("fail_told", {"ids": Texts([told.id for told in failed]), "errors": errors})
            )
        if work.steps:
            steps = _step_columns(work.steps) | {"worker": self._worker}
            packet.append(self._statement("record_command_steps", steps))
        commit = execute(connection, [*packet, COMMIT])[-1]
        if commit.command_status != b"COMMIT":
            raise psycopg.OperationalError(f"the batch ended with {commit.command_status!r}")

    def _statement(self, name: str, parameters: Mapping[str, Any]) -> Statement:
        return Statement(self._sql[name], parameters, name)


_Done = tuple[dict[tuple[str, str, str], bytes], dict[tuple[int, str], tuple[bool, bytes]]]


class _State:
    __slots__ = ("value", "version")

    def __init__(self, version: int, value: bytes | None) -> None:
        self.version, self.value = version, value


class _Work(NamedTuple):
    states: dict[Place, _State]
    changed: list[Place]
    applied: list[tuple[CommandRecord, int]]
    steps: list[CommandRecord]
    told: list[CommandRecord]


def _run_all(commands: Sequence[CommandRecord], states: dict[Place, _State], done: _Done) -> _Work:
    by_id, by_step = done
    changed: dict[Place, None] = {}
    applied: list[tuple[CommandRecord, int]] = []
    steps: list[CommandRecord] = []
    for command in commands:
        step = command.step
        if step is not None and (step.run, step.position) in by_step:
            command.failed, command.value = by_step[step.run, step.position]
            continue
        if (known := by_id.get((*command.place, command.id))) is not None:
            command.failed, command.value = False, known
        else:
            state = states[command.place]
            new, command.failed, command.value, tells = command.apply(state.value)
            if not command.failed:
                state.version += 1
                state.value = new
                changed[command.place] = None
                command.tells = _tells(command, state.version, tells)
                applied.append((command, state.version))
                by_id[*command.place, command.id] = command.value
        if step is not None:
            step.failed, step.value = command.failed, command.value
            steps.append(command)
    return _Work(states, list(changed), applied, steps, [command for command in commands if command.is_told])


def _tells(command: CommandRecord, version: int, told: Sequence[Any]) -> list[CommandRecord]:
    """What a command has told others, each under an id that its next try gives it too."""
    teller = hashlib.blake2b("\0".join(command.place).encode(), digest_size=16).hexdigest()
    return [
        CommandRecord(
            command.run, place, f"!told/{teller}/{version}/{number}", name, args, apply, is_told=True
        )
        for number, (place, name, args, apply) in enumerate(told)
    ]


def find(
    database: Database, wanted: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, str, int], tuple[int, bytes | None]]:
    """Objects that have changed since the versions given: version and state, by type, key and that version."""
    parameters = _columns([(type, key) for type, key, _ in wanted])
    rows = database.run("find_entities", parameters | {"version": Bigints([seen for _, _, seen in wanted])})
    return {
        (type, key, seen): (version, None if state is None else bytes(state))
        for type, key, seen, version, state in rows
    }


def history(
    database: Database, place: Place, limit: int
) -> list[tuple[int, str, str, bytes, bytes, datetime]]:
    """What was done to an object, newest first: version, id, command, arguments, result and when."""
    rows = database.run("list_commands", {"type": place[0], "key": place[1], "limit": limit})
    return [(v, id, command, bytes(args), bytes(value), done) for v, id, command, args, value, done in rows]


def _columns(objects: Sequence[Place]) -> dict[str, Any]:
    return {"type": Texts([type for type, _ in objects]), "key": Texts([key for _, key in objects])}


def _command_columns(applied: Sequence[tuple[CommandRecord, int]]) -> dict[str, Any]:
    commands = [command for command, _ in applied]
    return _columns([command.place for command in commands]) | {
        "version": Bigints([version for _, version in applied]),
        "id": Texts([command.id for command in commands]),
        "command": Texts([command.command for command in commands]),
        "args": Blobs([command.args for command in commands]),
        "value": Blobs([command.value for command in commands]),
        "run": Bigints([None if command.step is None else command.step.run for command in commands]),
    }


def _told_columns(tells: Sequence[CommandRecord]) -> dict[str, Any]:
    return _columns([told.place for told in tells]) | {
        "id": Texts([told.id for told in tells]),
        "command": Texts([told.command for told in tells]),
        "args": Blobs([told.args for told in tells]),
    }


def find_told(
    database: Database, types: Sequence[str], seconds: float, limit: int
) -> list[tuple[str, str, str, str, bytes]]:
    """Told commands on objects of these types that nobody has carried out for so long: id, type, key, command, arguments."""
    rows = database.run("find_told", {"types": list(types), "seconds": seconds, "limit": limit})
    return [(id, type, key, command, bytes(args)) for id, type, key, command, args in rows]


def _step_columns(commands: Sequence[CommandRecord]) -> dict[str, Any]:
    steps = [command.step for command in commands if command.step is not None]
    return places(steps) | {
        "grp": Integers([step.group for step in steps]),
        "ord": Integers([step.order for step in steps]),
        "kind": Smallints([step.kind for step in steps]),
        "name": Texts([step.name for step in steps]),
        "failed": Booleans([step.failed for step in steps]),
        "value": Blobs([step.value for step in steps]),
    }
