"""One batch of the journal: many records as one transaction in one round trip.

Two forms, no more (measured: docs/explanation/storage.md). The general one is a packet of statements: fence, then one
multi-row statement for each kind of record, then COMMIT; an error anywhere stops everything behind it. A
batch of a single step, start, end, or last step with its end is one statement with the fence inside.

Row counts tell whether every record stands. Only where one is missing a later statement looks why: after
a lost answer the writer finds its own rows and takes them for its own; it never reads first and guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.pq.abc import PGresult

from perdure.sql import Statements
from perdure.store.arrays import Bigints, Blobs, Texts
from perdure.store.columns import (
    dedup_columns,
    end_columns,
    lives,
    places,
    progress_columns,
    step_columns,
    stream_columns,
    wait_columns,
    waiting_columns,
)
from perdure.store.connection import Connection, confirm
from perdure.store.messages import (
    Vanished,
    event_columns,
    send_statements,
    settle_messages,
    settle_sends,
)
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, roll_back, rows
from perdure.store.records import (
    PENDING,
    AnsweredWait,
    ContinueRecord,
    EndRecord,
    EventRecord,
    HandOver,
    IntentRecord,
    MessageRecord,
    Outcome,
    Park,
    ProgressRecord,
    PutAway,
    Record,
    SendRecord,
    StartRecord,
    StepRecord,
    StreamRecord,
    TagsRecord,
    Ticket,
    Undoing,
    WaitRecord,
)
from perdure.store.single import SingleWriter

FENCED_STATE: Final = "PD001"
SMALL: Final = 20
"""Records up to which a plan for any number of rows is as good as one for this number."""
_PLANNED_ONCE: Final = frozenset({StartRecord, MessageRecord, SendRecord})
"""What takes longer to plan than to do."""
R = TypeVar("R", bound=Record)


class Batch:
    """Tickets that are written together."""

    __slots__ = ("_rows", "answer", "size", "tickets", "woken")

    def __init__(self, tickets: Iterable[Ticket]) -> None:
        self.tickets = list(tickets)
        self.answer: Any = None
        """What waits for the answer, where it was sent already."""
        self.woken = 0
        """Runs that were put away until a message came, and now wait for a worker; of a try whose answer was lost they are
        not counted, and found by a poll."""
        self._rows: dict[type[Record], list[Any]] = {}
        for ticket in self.tickets:
            for record in ticket.records:
                self._rows.setdefault(type(record), []).append(record)
        self.size = sum(map(len, self._rows.values()))

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind."""
        return self._rows.get(kind, [])

    def has_but(self, kinds: frozenset[type[Record]]) -> bool:
        """Whether it has records of other kinds."""
        return not self._rows.keys() <= kinds

    @property
    def planned_once(self) -> bool:
        """Whether its statements are planned once for any number of rows."""
        return self.size < SMALL and not _PLANNED_ONCE.isdisjoint(self._rows)

    def only(self) -> tuple[type[Record], ...]:
        """The kinds of records in it, if there is one record of each; else nothing."""
        return tuple(self._rows) if self.size == len(self._rows) else ()


class BatchWriter:
    """Writes batches over one connection, as one worker's slot, or as a client (no fence)."""

    def __init__(
        self, statements: Statements, worker: int | None, slot: int, *, single_form: bool = True
    ) -> None:
        self._sql = statements
        self._worker, self._slot = worker, slot
        self._identity = {"worker": worker, "slot": slot}
        self._single = SingleWriter(statements, self._identity) if single_form else None

    def begin(self, connection: Connection, batch: Batch) -> None:
        """Send the batch, if it is one statement that is prepared, without waiting; `write` takes the answer then.

        Raises:
            psycopg.Error: whether it was sent is not known.
        """
        if self._single is not None:
            self._single.begin(connection, batch)

    def write(self, connection: Connection, batch: Batch, lock_timeout: float) -> None:
        """Write the batch and set the outcome of every record.

        Raises:
            psycopg.Error: nothing is written, or (a lost connection) nobody knows.
            Vanished: a start has to be tried again.
        """
        if self._single is None or not self._single.write(connection, batch):
            self._write_pipeline(connection, batch, lock_timeout)

    # -- the pipeline ----------------------------------------------------------------------------

    def _write_pipeline(self, connection: Connection, batch: Batch, lock_timeout: float) -> None:
        statements = list(self._statements(batch))
        begin = "begin_batch" if self._worker is not None else "begin_client_batch"
        # Postgres plans the statements that send or start anew for each size of array, which costs more than they do.
        settings = {
            "lock_timeout": f"{max(1, int(lock_timeout * 1000))}ms",
            "plans": "force_generic_plan" if batch.planned_once else "auto",
        }
        named = [(begin, settings | self._identity), *statements]
        packet = [Statement(self._sql[name], parameters, name) for name, parameters in named]
        try:
            _, _, *results, commit = execute(connection, [BEGIN, *packet, COMMIT])
        except psycopg.Error:
            if not connection.closed:
                roll_back(connection)
            raise
        if commit.command_status != b"COMMIT":
            raise psycopg.OperationalError(f"the batch ended with {commit.command_status!r}")
        confirm(connection)
        answers = {name: result for (name, _), result in zip(statements, results, strict=True)}
        self._settle(connection, batch, answers)

    def _statements(self, batch: Batch) -> Iterable[tuple[str, dict[str, Any]]]:
        """The statements of the batch, in the order in which locks are taken."""
        kinds = (EndRecord, ContinueRecord, PutAway, Park, HandOver, Undoing)
        changed: list[Record] = [record for kind in kinds for record in batch.of(kind)]
        if changed:
            yield "lock_runs", {"keys": Bigints(sorted({record.run for record in changed}))}
        yield from self._insertions(batch)
        if changed:
            yield from self._changes(batch)

    def _insertions(self, batch: Batch) -> Iterable[tuple[str, dict[str, Any]]]:
        """What is recorded; steps first, since the others ride on them."""
        if steps := batch.of(StepRecord):
            yield "record_steps", step_columns(steps) | self._identity
        yield from self._start_statements(batch.of(StartRecord))
        yield from send_statements(batch.of(MessageRecord), batch.of(SendRecord), self._worker)
        if events := batch.of(EventRecord):
            yield "add_events", event_columns(events) | self._identity
        if tags := batch.of(TagsRecord):
            yield "merge_tags", places(tags) | {"tags": Texts([t.tags for t in tags])} | self._identity
        if items := batch.of(StreamRecord):
            yield "add_stream_items", stream_columns(items) | self._identity
        if waits := batch.of(WaitRecord):
            yield "add_waits", wait_columns(waits)
        if answered := batch.of(AnsweredWait):
            yield "drop_waits", places(answered)
        if intents := batch.of(IntentRecord):
            names = {"name": Texts([intent.name for intent in intents])}
            yield "add_intents", places(intents) | names | self._identity
        # Of each body the last word only: a row is changed once in a statement.
        if progress := list({(p.run, p.position): p for p in batch.of(ProgressRecord)}.values()):
            yield "note_progress", progress_columns(progress) | self._identity

    def _changes(self, batch: Batch) -> Iterable[tuple[str, dict[str, Any]]]:
        """What becomes of runs, whose rows are locked by now."""
        whose = {"worker": self._worker}
        if ends := batch.of(EndRecord):
            yield "end_runs", end_columns(ends) | self._identity
            if waited := [end.run for end in ends if end.waited]:
                yield "drop_waits_of_runs", {"keys": Bigints(waited)}
        if onward := batch.of(ContinueRecord):
            lines = {
                "keys": Bigints([record.run for record in onward]),
                "next": Bigints([record.next for record in onward]),
            }
            yield (
                "continue_runs",
                lines | whose | {"input": Blobs([record.input for record in onward])},
            )
            yield "move_messages", lines
            yield "move_children", lines
            yield "move_waiters", lines
            if waited := [record.run for record in onward if record.waited]:
                yield "drop_waits_of_runs", {"keys": Bigints(waited)}
        if away := batch.of(PutAway):
            if following := sorted(record.run for record in away if record.follows):
                yield "follow_waits", {"keys": Bigints(following)}
            waiting = lives(away) | whose | waiting_columns(away)
            yield "trim_waits", waiting
            yield "put_away", waiting
        if undoing := batch.of(Undoing):
            yield "begin_undoing", whose | {"keys": Bigints([record.run for record in undoing])}
        if handed := batch.of(HandOver):
            yield "hand_over", lives(handed) | whose
        if parks := batch.of(Park):
            yield "park_runs", lives(parks) | whose | {"reason": Texts([park.reason for park in parks])}

    def _start_statements(self, starts: list[StartRecord]) -> Iterable[tuple[str, dict[str, Any]]]:
        if not starts:
            return
        # By id, the one thing that a stranger may hold: batches of two processes queue up, never deadlock.
        starts = sorted(starts, key=lambda start: start.id)
        if freed := [start for start in starts if start.supersede]:
            yield (
                "supersede_failed",
                {"id": Texts([start.id for start in freed]), "key": Bigints([start.run for start in freed])},
            )
        if unique := [start for start in starts if start.dedup is not None]:
            yield "lock_dedups", dedup_columns(unique)
        if sized := sorted({str(start.queue) for start in starts if start.sized}):
            yield "lock_sized_queues", {"names": Texts(sized)}
        yield (
            "start_runs",
            {
                "key": Bigints([start.run for start in starts]),
                "id": Texts([start.id for start in starts]),
                "workflow": Texts([start.workflow for start in starts]),
                "input": Blobs([start.input for start in starts]),
                "options": Texts([start.options for start in starts]),
                "worker": self._worker,
            },
        )

    # -- outcomes --------------------------------------------------------------------------------

    def _settle(self, connection: Connection, batch: Batch, answers: dict[str, PGresult]) -> None:
        won = Outcome.WON
        for kind, name, resolve in (
            (StepRecord, "record_steps", self._resolve_steps),
            (StartRecord, "start_runs", self._resolve_starts),
            (EndRecord, "end_runs", self._resolve_ends),
            (ContinueRecord, "continue_runs", self._resolve_ends),
        ):
            records: list[Any] = batch.of(kind)
            if records and answers[name].command_tuples != len(records):
                resolve(connection, records)
            else:
                for record in records:
                    record.outcome = won
        if messages := batch.of(MessageRecord):
            settle_messages(messages, rows(connection, answers["send_messages"]))
        if sends := batch.of(SendRecord):
            recorded = rows(connection, answers["record_sends"])
            settle_sends(connection, self._sql, sends, recorded, self._worker)
        if messages or sends:
            batch.woken = answers["wake_receivers"].command_tuples or 0
        if away := batch.of(PutAway):
            gone = {key for (key,) in rows(connection, answers["put_away"])}
            self._resolve_away(connection, [record for record in away if record.run not in gone])
        others: list[Record] = [record for ticket in batch.tickets for record in ticket.records]
        for record in others:
            if record.outcome is PENDING:
                record.outcome = won

    def _resolve_steps(self, connection: Connection, steps: Sequence[StepRecord]) -> None:
        rows = connection.execute(self._sql["find_steps"], places(steps)).fetchall()
        owners = {(run, position): worker for run, position, worker in rows}
        for step in steps:
            mine = owners.get((step.run, step.position)) == self._worker
            step.outcome = Outcome.WON if mine else Outcome.LOST

    def _resolve_starts(self, connection: Connection, starts: Sequence[StartRecord]) -> None:
        ids = {"id": Texts([start.id for start in starts])}
        found = {
            id: (key, name) for id, key, name in connection.execute(self._sql["find_runs"], ids).fetchall()
        }
        missing = [start for start in starts if start.id not in found]
        orphans = self._lost_children(connection, [start for start in missing if start.parent])
        barred = self._barred(connection, [start for start in missing if start.run not in orphans])
        for start in starts:
            if start.run in orphans:
                start.outcome = Outcome.LOST
            elif start.run in barred:
                start.outcome, start.found = barred[start.run]
            elif start.id not in found:
                raise Vanished(start.id)
            elif found[start.id][0] == start.run:
                start.outcome = Outcome.WON
            else:
                start.outcome, start.found = Outcome.ATTACHED, found[start.id]

    def _barred(
        self, connection: Connection, starts: Sequence[StartRecord]
    ) -> dict[int, tuple[Outcome, tuple[int, str] | None]]:
        """Starts that another run with their `dedup`, or their queue's size, stands in the way of."""
        barred: dict[int, tuple[Outcome, tuple[int, str] | None]] = {}
        if sized := {str(start.queue) for start in starts if start.sized}:
            rows = connection.execute(self._sql["full_queues"], {"names": Texts(sorted(sized))}).fetchall()
            full = {name for (name,) in rows}
            barred |= {
                start.run: (Outcome.FULL, None) for start in starts if start.sized and start.queue in full
            }
        if unique := [start for start in starts if start.dedup is not None]:
            rows = connection.execute(self._sql["find_dedups"], dedup_columns(unique)).fetchall()
            holders = {(queue, dedup): (key, id) for queue, dedup, key, id in rows}
            for start in unique:
                if holder := holders.get((start.queue, start.dedup)):
                    barred[start.run] = Outcome.DUPLICATE, holder
        return barred

    def _lost_children(self, connection: Connection, starts: Sequence[StartRecord]) -> set[int]:
        """Children that were not born because somebody else recorded the step that starts them."""
        if not starts:
            return set()
        parents = [cast("tuple[int, str]", start.parent) for start in starts]
        columns = {
            "run": Bigints([run for run, _ in parents]),
            "position": Texts([place for _, place in parents]),
        }
        rows = connection.execute(self._sql["find_children"], columns).fetchall()
        mine = {(run, position) for run, position, worker in rows if worker == self._worker}
        return {start.run for start, parent in zip(starts, parents, strict=True) if parent not in mine}

    def _resolve_ends(self, connection: Connection, ends: Sequence[EndRecord]) -> None:
        rows = connection.execute(
            self._sql["find_ends"], {"key": Bigints([end.run for end in ends])}
        ).fetchall()
        state = {key: (ended_by, owner, cancel) for key, ended_by, owner, cancel in rows}
        for end in ends:
            ended_by, owner, cancel = state[end.run]
            if ended_by == self._worker:
                end.outcome = Outcome.WON
            elif owner == self._worker and cancel:
                end.outcome, end.cancel = Outcome.CANCELLED, cancel
            else:
                end.outcome = Outcome.LOST

    def _resolve_away(self, connection: Connection, away: Sequence[PutAway]) -> None:
        if not away:
            return
        # One that we no longer own was put away by an earlier try, and may have been woken since.
        rows = connection.execute(
            self._sql["find_ends"], {"key": Bigints([record.run for record in away])}
        ).fetchall()
        owners = {key: owner for key, _, owner, _ in rows}
        for record in away:
            record.outcome = Outcome.STAY if owners[record.run] == self._worker else Outcome.WON
