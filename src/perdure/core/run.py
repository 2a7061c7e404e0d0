"""A run while it is in memory: its branches, its record, what it has pending, whether it may go on.

The barrier is one line here: before anything that others can see, wait for `pending`, the ticket of the
run's last record. Tickets of one run are written in order, so the last one stands for all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from perdure.core.branch import Branch, Unwind
from perdure.core.gate import CANCEL_POSITION, Call, Gate, Recorded, Told
from perdure.core.mailbox import Mailbox
from perdure.core.registry import Compensation, WorkflowDefinition
from perdure.core.runtime import Runtime
from perdure.errors import PerdureError
from perdure.models import CancelReason, Info, Kind, Status
from perdure.store.records import (
    AnsweredWait,
    Fenced,
    Outcome,
    Record,
    StepRecord,
    StreamRecord,
    Ticket,
)
from perdure.store.signal import Signal


class Waiting(NamedTuple):
    """A call in a durable wait: for a signal in memory and, put away, for a run's end, its event, or a message."""

    signal: Signal
    target: int | None = None
    topic: str | None = None


class StoppedAtOnce(Exception):
    """The reason for which the code of a run is taken off the stack: somebody wants it to end at once."""


class Run:
    """One run in this process. `host` runs its code: on a loop or in threads."""

    __slots__ = (
        "_last_reading",
        "_mailbox",
        "begun_before",
        "calling",
        "cancel_reason",
        "cancel_told",
        "claim",
        "closed",
        "consider_at",
        "context",
        "definition",
        "fatal",
        "frontier",
        "gate",
        "has_children",
        "host",
        "id",
        "input",
        "intents",
        "key",
        "late",
        "leave_at",
        "leaving",
        "looking",
        "not_undone",
        "over",
        "parked_reason",
        "patches",
        "pending",
        "progress",
        "queue",
        "root",
        "runtime",
        "scheduled_at",
        "seed",
        "shields",
        "streams",
        "tasks",
        "timeout",
        "undo",
        "undoing",
        "unreached",
        "waited",
        "waiting",
        "waits",
        "waits_for",
        "written",
    )

    def __init__(
        self,
        runtime: Runtime,
        definition: WorkflowDefinition,
        key: int,
        id: str,
        input: bytes,
        *,
        records: Sequence[Recorded] = (),
        waits: dict[str, float] | None = None,
        intents: Mapping[str, bytes | None] | None = None,
        cancel: CancelReason = CancelReason.NONE,
        claim: int = 0,
    ) -> None:
        self.runtime, self.definition = runtime, definition
        self.key, self.id, self.input = key, id, input
        self.gate = Gate(records)
        self.root = Branch(self, "")
        self.tasks = 1
        self.pending: Ticket | None = None
        self.closed = False
        self.fatal: Exception | None = None
        self.over = False  # the code has ended; only its end is still to be recorded
        self.claim = claim
        self.begun_before = False
        """Code of it has run before this life; a transaction of that may still be committing, if its worker lives."""
        self.leaving: Ticket | None = None
        self.leave_at = 0.0
        """When the call that began to wait last has waited long enough (`time.monotonic()`)."""
        self.consider_at: float | None = None
        """When it will be looked whether the run can be put away, if that is planned."""
        self.waiting: dict[str, Waiting] = {}
        self.waits = waits or {}
        self.waited = bool(waits)
        self._inherit(records, intents or {})
        self.undo: list[Compensation] = []
        """What undoes the steps that are done, oldest first."""
        self.late: list[Signal] = []
        """Threads of bodies that were given up and still run; settled with their end."""
        self.undoing = False
        self.not_undone: list[str] = []
        """What could not be undone, in words."""
        self.cancel_reason = cancel
        self.cancel_told = False
        self.context: Mapping[str, Any] = {}
        """What travels with the run, for middleware."""
        self.queue: str | None = None
        """Queue from which it was claimed."""
        self.seed: str | None = None
        """What its randomness is seeded with, where that is not its own key."""
        self.scheduled_at: datetime | None = None
        """The tick of a schedule that it is for."""
        self.frontier: Callable[[Call], Generator[Any, Any, Told]] | None = None
        """What is done where the record ends, in a replay that only looks whether the code still fits."""
        self.has_children = False
        """It has started runs that are to end with it."""
        self.waits_for: list[tuple[int, str]] = []
        """Key and id of runs that it has started and that are to end before it."""
        self.shields = 0
        """Blocks of code that are not to be told to stop."""
        self.calling = False
        self.looking = 0
        """Calls that look something up in the database, before or after the gate: meanwhile it is not quiet."""
        self.parked_reason: str | None = None
        self.timeout: float | None = None
        self.host: Any = None
        self._last_reading: datetime | None = None
        self._mailbox: Mailbox | None = None

    def _inherit(self, records: Sequence[Recorded], intents: Mapping[str, bytes | None]) -> None:
        """What an earlier life had begun: bodies, waits, streams."""
        self.intents = set(intents)
        """Positions of bodies that have begun, of those that say so."""
        self.patches: dict[str, bool] = {}
        self.unreached: set[str] = set()
        """Calls that an earlier life had begun, and this one's code has not come to; readings too, which skip the gate."""
        self.progress: dict[str, bytes] = {}
        """What bodies said of their progress."""
        self.streams: dict[str, int] = {}
        self.written: dict[str, dict[str, int]] = {}
        if records or intents or self.waits:
            recorded = self.gate.positions
            self.unreached.update(place for place in (*self.waits, *intents) if place not in recorded)
            self.unreached.update(record.position for record in records if record.kind == Kind.CLOCK)
            self.progress.update((place, detail) for place, detail in intents.items() if detail is not None)

    # -- may it go on ----------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise if the code of this run must not go on."""
        if self.leaving is not None and self.left:
            self.closed = True
        if self.closed or self.fatal is not None:
            raise Unwind

    @property
    def left(self) -> bool:
        """Whether the run is put away, by the database: known here before the host has acted on it."""
        leaving = self.leaving
        return (
            leaving is not None
            and leaving.done
            and leaving.error is None
            and leaving.records[0].outcome is Outcome.WON
        )

    @property
    def leaves_the_stack(self) -> bool:
        """Whether the code is being unwound, so that a cancel in it is perdure's own."""
        return self.closed or self.fatal is not None

    def check_running(self) -> None:
        """Raise if the code of this run has ended, or must not go on: then no durable call begins any more."""
        if self.over:
            raise Unwind
        self.check_open()

    def give_up(self, error: Exception) -> Unwind:
        """The run cannot go on here: return what takes its code off the stack; it is then parked."""
        self.fatal = self.fatal or error
        self._close_branches()
        return Unwind()

    def hear_cancel(self, reason: CancelReason) -> bool:
        """Somebody wants it to stop; return whether its code need not be told: it ends anyway, or no more of it is run."""
        at_once = reason is CancelReason.AT_ONCE
        if at_once or self.cancel_reason is CancelReason.NONE:
            self.cancel_reason = reason
        if self.closed or (self.leaving is not None and not self.leaving.done):
            return True
        if at_once and not self.over:
            self.give_up(StoppedAtOnce())
        return at_once

    def _close_branches(self) -> None:
        """Whoever found out leaves the stack by itself; the other branches wait for what will not come."""
        if self.host is not None and not self.over:
            self.host.close_soon()

    def confirm(self, ticket: Ticket) -> None:
        """Go on after a ticket only if it was written."""
        if ticket.stands:
            return
        if isinstance(ticket.error, Fenced):
            self.closed = True
            raise Unwind
        if ticket.error is not None:
            raise self.give_up(PerdureError(str(ticket.error)))
        for record in ticket.records:
            if record.outcome is Outcome.LOST and record.run == self.key:
                self.closed = True  # somebody else's record stands: this is no longer the run that goes on
                self._close_branches()
                raise Unwind
        ticket.stands = True  # thousands of branches may ask, of a ticket with thousands of records

    def check_owner(self) -> None:
        """Raise if this worker is no longer sure to own the run: a courtesy before each body."""
        self.check_running()
        if not self.runtime.alive():
            self.closed = True
            self.runtime.fenced()  # for all its runs: none may be dropped while the worker goes on to live
            raise Unwind

    @property
    def replays(self) -> bool:
        """Whether an earlier life of the run has come further than this one's code."""
        return bool(self.unreached) or not self.gate.used_up

    @property
    def alone(self) -> bool:
        """One task, and nothing outstanding: the gate has nothing to order."""
        return self.tasks == 1 and self.gate.idle

    @property
    def cancel_due(self) -> bool:
        """The code has to be told to stop, now that the record is used up."""
        return bool(self.cancel_reason) and not self.cancel_told and not self.shields and self.gate.used_up

    # -- what it records -------------------------------------------------------------------------

    def submit(self, *records: Record, contested: bool = False) -> Ticket:
        """Send records on their way, after everything this run has sent before."""
        self.check_open()
        if self.pending is not None and self.pending.done:
            self.confirm(self.pending)  # nothing may follow a record that is missing
        ticket = Ticket(*records)
        self.pending = ticket
        if contested:
            self.runtime.submit(ticket, contested=True)
        else:
            self.host.submit(ticket)
        return ticket

    def barrier(self) -> Generator[Ticket, None, None]:
        """Wait until everything recorded so far is committed: before each effect."""
        while (pending := self.pending) is not None and not pending.done:
            yield pending
            self.confirm(pending)  # and look again: another branch may have recorded more meanwhile
        if pending is not None:
            self.confirm(pending)
        self.check_owner()

    def tell(self, calls: Iterable[Call]) -> None:
        """Record answers as one group, in the order in which they are about to be handed out."""
        records: list[Record] = []
        then: list[Callable[[Ticket], None]] = []
        group = 0
        for order, call in enumerate(calls):
            told = call.told
            assert told is not None
            if told.group is None:
                group = group or self.gate.next_group()
                records.append(self.record_of(call, told, group, order))
            for record in told.with_records:
                if isinstance(record, StreamRecord):
                    record.place = self.next_place(record.key)  # in the order in which they are sent
            records += told.with_records
            if told.then is not None:
                then.append(told.then)
        if records:
            ticket = self.submit(*records)
            for go_on in then:
                go_on(ticket)

    def record_of(self, call: Call, told: Told, group: int | None, order: int | None) -> StepRecord:
        """The row for one answer."""
        return StepRecord(
            self.key,
            call.position,
            group,
            order,
            call.kind,
            call.name,
            told.failed,
            told.value,
            told.attempts,
            told.seconds,
            told.message,
        )

    def next_place(self, key: str) -> int:
        """The place of the next item of a stream."""
        place = self.streams.get(key, 0)
        self.streams[key] = place + 1
        return place

    def tell_cancel(self) -> None:
        """Record that the code is told to stop here."""
        self.cancel_told = True
        group = self.gate.next_group()
        self.submit(
            StepRecord(
                self.key, CANCEL_POSITION, group, 0, Kind.CANCEL, self.cancel_reason.name, False, b"null"
            )
        )

    # -- waiting ---------------------------------------------------------------------------------

    def answered(self, position: str) -> list[Record]:
        """The record that a wait is over, if there was a row for it."""
        return [AnsweredWait(self.key, position)] if self.waits.pop(position, None) is not None else []

    @property
    def mailbox(self) -> Mailbox:
        """The run's messages."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self.key, self.gate.consumed())
        return self._mailbox

    # -- readings --------------------------------------------------------------------------------

    def not_before(self, reading: datetime) -> datetime:
        """A clock reading that never goes back within the run."""
        reading = reading.astimezone(UTC)
        if self._last_reading is not None and reading < self._last_reading:
            reading = self._last_reading
        self._last_reading = reading
        return reading

    def info(self) -> Info:
        """What its own code can know of it."""
        key = f"{self.runtime.realm}-{self.key:x}"
        name, at = self.definition.name, self.scheduled_at
        return Info(self.id, name, None, 1, key, self.runtime.worker, scheduled_at=at)

    def end_status(self) -> Status:
        """How the run ends once its code was told to stop."""
        return Status.FAILED if self.cancel_reason is CancelReason.OUT_OF_TIME else Status.CANCELLED
