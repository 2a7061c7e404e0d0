"""A run driven by hand: every effect of its operations is answered by whoever tests, in any order that can happen.

There is no loop, thread or clock here. `Hand` is the host and the worker of one life: code runs until it is quiet,
then the gate decides, then something happens outside: a body ends, a batch is committed, its answer comes
or is lost, the worker is declared dead or dies. What happens is `choose`'s choice, so a search can go through
all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from perdure.core.branch import Branch, Unwind
from perdure.core.effects import AtGate, Await, DurableWait, Invoke, Pause, StopHere, TakeGate, Use
from perdure.core.ending import conclude
from perdure.core.gate import Call
from perdure.core.run import Run
from perdure.errors import Cancelled, DatabaseUnavailable
from perdure.models import CancelReason
from perdure.store.records import EndRecord, Fenced, IntentRecord, Outcome, Park, StepRecord, Ticket
from perdure.store.session import Conflict
from perdure.store.session import Recorded as RecordThere
from perdure.store.signal import Signal
from tests.hand_session import CommitPoint, HandSession
from tests.memory_runtime import Life, Past, Unit

Steps = Generator[Any, Any, Any]
Program = Callable[["Hand", Branch], Steps]


class Died(BaseException):
    """The worker is no more."""


@dataclass(frozen=True)
class Fork:
    """The code goes on in branches; answered when all have ended."""

    programs: tuple[Program, ...]


@dataclass(eq=False)
class Process:
    """A generator under way: code of the run, or the production of one answer."""

    steps: Steps
    call: Call | None = None
    then: Callable[[Any, BaseException | None], None] | None = None


@dataclass(eq=False)
class Hand(Life):
    """One life, moved by choices.

    Attributes:
        choose: picks one of so many things that can happen.
        calm: nothing goes wrong in this life.
        rows: what transactions wrote, kept from life to life.
        seen: what the code learned, with the number of units sent by then.
        bodies: positions whose bodies began.
        faults: rules that were broken.
    """

    choose: Callable[[int], int] = lambda options: 0
    calm: bool = True
    may_cancel: bool = False
    rows: list[str] = field(default_factory=list)
    seen: list[tuple[int, Any]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queue: deque[Ticket] = deque()
        self.unanswered: list[Ticket] = []
        self.fencing = self.fallen = False
        self.conflicts = 0
        self.missing: list[Unit] = []
        self.too_late: list[Unit] = []
        self._processes: list[Process] = []
        self._ready: deque[tuple[Process, Any, BaseException | None]] = deque()
        self._waiting: list[tuple[Process, Signal]] = []
        self._invoked: list[tuple[Process, Invoke]] = []
        self._commits: list[tuple[Process, CommitPoint]] = []
        self._alarms: list[Callable[[], None]] = []

    # -- the run's host and owner ----------------------------------------------------------------

    def close_soon(self) -> None:
        """The hand itself sees that a run is given up."""

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        if contested and (self.queue or self.unanswered):
            self.faults.append("a ticket of the second lane may overtake those of the first")
        assert self.run is not None
        if self.run.closed:
            self.faults.append("a run that is closed has sent something")
        self.note(ticket)
        self.submitted.append(ticket)
        if self.fencing:
            ticket.settle(error=Fenced())
        elif self.fallen and not isinstance(ticket.records[0], Park):
            self.missing.append(tuple(ticket.records))
            ticket.settle(error=DatabaseUnavailable("refused"))  # nothing is written behind a gap
        else:
            self.queue.append(ticket)

    def later(self, callback: Callable[[], None]) -> None:
        self._alarms.append(callback)

    def session(self, *, is_async: bool) -> Any:
        return HandSession(self)

    def see(self, what: Any) -> None:
        """Note what the code has learned."""
        self.seen.append((self.sent, what))

    # -- one life --------------------------------------------------------------------------------

    def live_by_hand(self, definition: Any, program: Program) -> Past:
        """Run the code until it has ended, died, or lost the run."""
        run = self.born(definition)
        run.host = self
        self._start(Process(program(self, run.root), then=self._conclude))
        try:
            while not (self.over.done and not self._ready):
                self._turn(run)
        except Died:
            self.dead = True
        self._forget()
        return self.journal

    def _forget(self) -> None:
        """What is left of the code goes the way of its process."""
        self.faults, faults = [], self.faults
        self.dead = True
        for process in self._processes:
            with suppress(Unwind, RuntimeError):
                process.steps.close()
        self.faults = faults

    def _conclude(self, value: Any, error: BaseException | None) -> None:
        assert self.run is not None
        self._start(Process(conclude(self.run, value, error)))

    def _turn(self, run: Run) -> None:
        if self._ready:
            self._step(*self._ready.popleft())
            return
        done = [entry for entry in self._waiting if entry[1].done]
        if done:
            self._waiting = [entry for entry in self._waiting if not entry[1].done]
            self._ready.extend((process, None, None) for process, _ in done)
            return
        if not (run.closed or run.fatal) and self._decide(run):
            return
        events = self._events()
        assert events, "nothing can happen any more, and the run has not ended"
        events[self.choose(len(events)) if len(events) > 1 else 0]()

    def _decide(self, run: Run) -> bool:
        decision = run.gate.on_quiet()
        for call in decision.begin:
            self._start(Process(call.produce(call), call))
        if decision.holder is not None:
            process = decision.holder.resume[1]
            decision.holder.resume = decision.holder.resume[0]
            self._ready.append((process, run.gate.next_group(), None))
        for call, record in decision.replayed:
            self._ready.append((call.resume, record, None))
        if decision.group:
            try:
                run.tell(decision.group)
            except Unwind:
                self._ready.extend((call.resume, None, Unwind()) for call in decision.group)
                self._take_off_the_stack(run)
                return True
            self._ready.extend((call.resume, None, None) for call in decision.group)
        assert not decision.stuck, f"stuck: {decision.stuck}"
        return bool(self._ready)

    def _take_off_the_stack(self, run: Run) -> None:
        for call in run.gate.parked_calls():
            run.gate.withdraw(call)
            code = call.resume[0] if isinstance(call.resume, tuple) else call.resume
            self._ready.append((code, None, Unwind()))

    def _start(self, process: Process) -> None:
        self._processes.append(process)
        self._ready.append((process, None, None))

    def _step(self, process: Process, value: Any, error: BaseException | None) -> None:
        try:
            effect = process.steps.send(value) if error is None else process.steps.throw(error)
        except StopIteration as stop:
            self._ended(process, stop.value, None)
        except Exception as raised:
            self._ended(process, None, raised)
        except (Unwind, Cancelled) as raised:
            self._ended(process, None, raised)
        else:
            self._answer(process, effect)

    def _ended(self, process: Process, value: Any, error: BaseException | None) -> None:
        if process.call is None:
            if process.then is not None:
                process.then(value, error)
            elif error is not None:
                self.faults.append(f"the end of the run raised {error!r}")
                self.over.settle()
            return
        assert self.run is not None
        call = process.call
        code = call.resume[0] if isinstance(call.resume, tuple) else call.resume
        if error is None:
            call.resume = code
            if call in self.run.gate.running:
                self.run.gate.finish(call, value)
        else:
            assert isinstance(error, Unwind), f"an operation raised {error!r}"
            self.run.gate.withdraw(call)
            self._ready.append((code, None, Unwind()))

    def _answer(self, process: Process, effect: Any) -> None:
        assert self.run is not None
        match effect:
            case Fork(programs):
                self._fork(process, programs)
            case AtGate(call):
                call.resume = process
                self.run.gate.ask(call)
            case TakeGate(call):
                call.resume = (call.resume, process)
                self.run.gate.want(call)
            case Invoke():
                self._check_barrier(effect)
                self._invoked.append((process, effect))
            case CommitPoint():
                self._commits.append((process, effect))
            case Use(function, args, kwargs):
                self._ready.append((process, function(*args, **kwargs), None))
            case Signal():
                self._waiting.append((process, effect))
            case DurableWait(signal) | Await(signal, _):
                self._waiting.append((process, signal))
            case Pause():
                self._ready.append((process, None, None))
            case StopHere():
                self._ready.append((process, None, Cancelled()))
            case _:
                raise AssertionError(f"an effect that nobody knows: {effect!r}")

    def _fork(self, parent: Process, programs: tuple[Program, ...]) -> None:
        assert self.run is not None
        left, errors = [len(programs)], []

        def joined(value: Any, error: BaseException | None) -> None:
            assert self.run is not None
            errors.extend([error] if error is not None else [])
            left[0] -= 1
            self.run.tasks -= 1
            if not left[0]:
                self._ready.append((parent, None, errors[0] if errors else None))

        for program in programs:
            self.run.tasks += 1
            self._start(Process(program(self, self.run.root.fork()), then=joined))

    def _check_barrier(self, effect: Invoke) -> None:
        place = effect.info().idempotency_key.rpartition("-")[2] if effect.info else "?"
        if self.queue or self.unanswered:
            self.faults.append(f"the body of {place} began before the record was safe")
        if self.fencing or self.fallen:
            self.faults.append(f"the body of {place} began without an owner")
        if place in {record.position for record in self.past.of(IntentRecord)}:
            self.faults.append(f"the body of {place} began twice, which it must not")
        if place in self.past.positions():
            self.faults.append(f"the body of {place} began although it is recorded")
        self.bodies.append(place)

    # -- what can happen -------------------------------------------------------------------------

    def _events(self) -> list[Callable[[], None]]:
        """Everything that can happen now; what a calm life does comes first."""
        events: list[Callable[[], None]] = []
        if self.unanswered:
            events.append(self._answered)
        elif self.queue:
            events.append(lambda: self._commit(len(self.queue)))
        events += [partial(self._end_body, entry) for entry in self._invoked]
        events += [partial(self._end_transaction, entry, "committed") for entry in self._commits]
        events += [partial(self._ring, alarm) for alarm in self._alarms]
        if self.calm:
            return events
        if self.queue and not self.unanswered:
            events += [lambda: self._commit(1)] if len(self.queue) > 1 else []
            events += [self._lose_answer, self._fence]
            events += (
                [self._refuse] if len(self.queue) == 1 and not self.concluding and not self.fallen else []
            )
        for entry in self._commits:
            # Three conflicts are one more than a transaction is given here; without a bound the search never ends.
            for outcome in ("rolled back", "answer lost", "died after")[0 if self.conflicts < 3 else 2 :]:
                events.append(partial(self._end_transaction, entry, outcome))
        if self.may_cancel:
            events.append(self._ask_to_cancel)
        events.append(self._die)
        return events

    def _commit(self, size: int) -> None:
        self.unanswered = [self.queue.popleft() for _ in range(size)]
        self._answered()

    def _answered(self) -> None:
        tickets, self.unanswered = self.unanswered, []
        already = len([unit for unit in self.committed if unit in [tuple(t.records) for t in tickets]])
        self.commit(tickets[already:])
        for ticket in tickets[:already]:
            ticket.settle()

    def commit(self, tickets: Any) -> None:
        already = self.journal.positions()
        for ticket in tickets:
            for record in ticket.records:
                if isinstance(record, StepRecord) and record.position in already:
                    self.faults.append(f"position {record.position} was recorded twice")
        super().commit(tickets)
        run = self.run
        for ticket in tickets:
            for record in ticket.records:
                if isinstance(record, EndRecord) and not record.regardless and run and run.cancel_reason:
                    self.too_late.append(self.committed.pop())
                    record.outcome, record.cancel = Outcome.CANCELLED, int(run.cancel_reason)

    def _lose_answer(self) -> None:
        """Committed, but nobody knows: the writer will ask again, and recognise its own rows."""
        if any(isinstance(record, EndRecord) for ticket in self.queue for record in ticket.records):
            self._commit(len(self.queue))
            return
        self.unanswered = list(self.queue)
        self.queue.clear()
        for ticket in self.unanswered:
            self.committed.append(tuple(ticket.records))

    def _fence(self) -> None:
        self.fencing = True
        tickets = list(self.queue)
        self.queue.clear()
        for ticket in tickets:
            ticket.settle(error=Fenced())

    def _refuse(self) -> None:
        self.fallen = True
        ticket = self.queue.popleft()
        self.missing.append(tuple(ticket.records))
        ticket.settle(error=DatabaseUnavailable("refused"))

    def _die(self) -> None:
        raise Died

    def _ask_to_cancel(self) -> None:
        assert self.run is not None
        self.may_cancel = False
        self.run.cancel_reason = CancelReason.ASKED

    def _ring(self, alarm: Callable[[], None]) -> None:
        self._alarms.remove(alarm)
        alarm()

    def _end_body(self, entry: tuple[Process, Invoke]) -> None:
        self._invoked.remove(entry)
        process, effect = entry
        try:
            value = effect.function(*effect.args, **effect.kwargs)
        except Exception as error:
            self._ready.append((process, None, error))
        else:
            self._ready.append((process, value, None))

    def _end_transaction(self, entry: tuple[Process, CommitPoint], outcome: str) -> None:
        self._commits.remove(entry)
        process, point = entry
        if self.fencing:
            self._ready.append((process, None, Fenced()))
            return
        if point.record.position in self.journal.positions():
            self._ready.append((process, None, RecordThere()))
            return
        if outcome != "rolled back":
            if self.queue or self.unanswered:
                self.faults.append("a transaction was committed before the record that precedes it")
            self.note(Ticket(point.record))
            self.committed.append((point.record,))
            self.rows.extend(point.session.written)
        if outcome == "died after":
            raise Died
        self.conflicts += outcome != "committed"
        error = None if outcome == "committed" else Conflict(outcome, unknown=outcome == "answer lost")
        self._ready.append((process, None, error))
