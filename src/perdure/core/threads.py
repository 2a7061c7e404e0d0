"""The host of a `def` workflow: threads that pass a baton.

Threads run when the system likes, so the code of a run is executed by one of its threads at a time: the one
that holds the baton. It passes it on at its next durable call. When nobody can take it, the run is quiet,
exactly, and the gate decides. Bodies of steps run without the baton, at the same time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from perdure.core.branch import GoOnAsNew, Unwind, current
from perdure.core.calling import arguments
from perdure.core.drive import drive_blocking
from perdure.core.ending import Interrupted, conclude
from perdure.core.gate import Call, Decision, Recorded, diverged
from perdure.core.leaving import can_leave, look_again, put_away_record, unrecorded_waits
from perdure.core.middleware import around_run
from perdure.core.run import Run
from perdure.core.strands import Fan, Strand, Word
from perdure.core.undo import leave, undo
from perdure.core.waits import WOKEN
from perdure.errors import Cancelled, NonDeterminismError
from perdure.models import CancelReason
from perdure.store.records import Outcome, PutAway, Ticket


class ThreadHost:
    """Runs the code of one run in threads."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.RLock()
        self._next: deque[tuple[Strand, Word, Any]] = deque()
        self._holder: Strand | None = None
        self._strands = threading.local()
        run.host = self

    def execute(self, context: Context) -> None:
        """Run the code in this thread, to its end."""
        self._holder = Strand()
        context.run(self._main, self._holder)

    def submit(self, ticket: Ticket) -> None:
        """Send a ticket to the journal."""
        self.run.runtime.submit(ticket)

    def soon(self, make: Callable[[], Ticket | None]) -> None:
        """Have a ticket made, if there is still to be one, and sent, in the order of such calls; from any thread."""
        with self._lock:
            if (ticket := make()) is not None:
                self.submit(ticket)

    # -- the root ----------------------------------------------------------------------------------

    def _main(self, strand: Strand) -> None:
        run, value = self.run, None
        error: BaseException | None = None
        self._strands.mine = strand
        current.set(run.root)
        try:
            if run.pending is not None:
                run.pending.wait_blocking()
                run.confirm(run.pending)
            value = self._call()
        except Cancelled as cancelled:
            error = Unwind() if run.closed else cancelled
        except BaseException as raised:
            error = raised
        run.over = True
        current.set(None)
        interrupted = isinstance(error, KeyboardInterrupt | Interrupted)
        drive_blocking(conclude(run, value, error), run.runtime)
        if not run.over:  # a cancel came first
            try:
                drive_blocking(undo(run), run.runtime, self)
            except BaseException as raised:
                error = raised
            else:
                error = None
            run.over = True
            drive_blocking(conclude(run, None, error), run.runtime)
        run.host = None  # cut the knots of run, host and branch: they would wait for a collection
        del run.root
        if interrupted and error is not None:
            raise error

    def _call(self) -> Any:
        run = self.run
        args, kwargs = arguments(run)
        try:
            with around_run(run):
                value = run.definition.function(*args, **kwargs)
        except BaseException as error:
            passes = GoOnAsNew | Unwind | Interrupted | KeyboardInterrupt | GeneratorExit
            if not isinstance(error, passes) and not run.leaves_the_stack:
                drive_blocking(leave(run, failed=True), run.runtime, self)
            raise
        if run.waits_for or run.gate.cancels_next:
            drive_blocking(leave(run, failed=False), run.runtime, self)
        return value

    # -- strands -----------------------------------------------------------------------------------

    def fan_out(self, thunks: tuple[Callable[[], Any], ...], *, race: bool = False) -> Fan:
        """Run functions as branches in threads of their own, and wait for all.

        In a race the first to end has won, and the others are told to stop; what cannot be interrupted, a body that
        runs, is waited for.
        """
        branch = current.get()
        assert branch is not None
        parent: Strand = self._strands.mine
        fan = Fan(len(thunks), parent, race=race)
        with self._lock:
            for place, thunk in enumerate(thunks):
                context = copy_context()
                context.run(current.set, branch.fork())
                self.run.tasks += 1
                self._next.append((fan.strands[place], Word.GO_ON, None))
                arguments = (self._strand, fan, place, thunk)
                threading.Thread(
                    target=context.run, args=arguments, name=f"perdure-{self.run.id}", daemon=True
                ).start()
            if thunks:
                parent.fan = fan
                self._pass_on()
        if thunks:
            with self.run.runtime.blocked():
                word, _ = parent.listen()
            stopped, parent.fan, parent.stopped = parent.stopped or word is Word.STOP, None, False
            self.run.check_open()
            if stopped:
                raise Cancelled  # whatever its branches made of it
        self.run.check_open()
        return fan

    def _strand(self, fan: Fan, place: int, thunk: Callable[[], Any]) -> None:
        self._strands.mine = strand = fan.strands[place]
        word, _ = strand.listen()
        try:
            if word is Word.UNWIND:
                raise Unwind
            if word is Word.STOP:
                raise Cancelled
            fan.results[place] = thunk()
        except BaseException as error:
            fan.errors[place] = error
        with self._lock:
            self.run.tasks -= 1
            for loser in fan.ended(place):
                self._stop(loser)
            if not fan.left:
                self._next.append((fan.parent, Word.GO_ON, None))
            self._pass_on()

    def _stop(self, strand: Strand) -> None:
        """Tell one strand, and all that it waits for, to stop: where it is, or after the body that it runs."""
        for place, (queued, _, _) in enumerate(self._next):
            if queued is strand:
                self._next[place] = (strand, Word.STOP, None)
                return
        if strand.fan is not None:
            strand.stopped = True
            for inner in strand.fan.strands:
                self._stop(inner)
            return
        for call in self.run.gate.parked_calls():
            if call.resume is strand:
                self._stop_call(call)

    def _stop_call(self, call: Call) -> None:
        """Tell the strand that waits for this call to stop, when its turn comes: the order is a replay's too.

        One that runs its body takes its turn after that, and the run's other code waits until then.
        """
        strand: Strand = call.resume
        gate = self.run.gate
        wants_gate, runs = call.wants_gate and gate.holder is not call, call in gate.running
        gate.withdraw(call)
        self._next.append((strand, Word.STOP, None))
        if wants_gate:
            strand.tell(Word.STOP)  # out of turn, and only to the body
        elif runs and (wait := self.run.waiting.get(call.position)) is not None:
            wait.signal.settle(WOKEN)

    def at_gate(self, call: Call) -> Recorded | None:
        """Wait for the answer to a call among others; run its body here when its time has come."""
        run, strand = self.run, self._strands.mine
        call.resume = strand
        with self._lock:
            try:
                run.gate.ask(call)
            except NonDeterminismError as error:
                self._give_up(error)
                raise Unwind from None
            self._pass_on()
        with run.runtime.blocked():
            word, value = strand.listen()
        if word is Word.BODY:
            self._body(call)
            with run.runtime.blocked():
                word, value = strand.listen()
        if word is Word.ANSWER:
            answer: Recorded | None = value
            return answer
        if word is Word.STOP:
            raise Cancelled
        raise Unwind

    def take_gate(self, call: Call) -> int:
        """Wait until nothing else is handed out, and keep it so."""
        with self._lock:
            self.run.check_open()
            if call not in self.run.gate.running:
                raise Cancelled  # told to stop while the body ran
            self.run.gate.want(call)
            self._look()
            self.run.check_open()
        word, number = self._strands.mine.listen()
        if word is Word.STOP:
            raise Cancelled
        if word is not Word.GATE:
            raise Unwind
        return int(number)

    def _body(self, call: Call) -> None:
        branch = current.get()
        current.set(None)
        try:
            told = drive_blocking(call.produce(call), self.run.runtime, self)
        except Unwind:
            call.resume.tell(Word.UNWIND)
            self.close()  # a record was refused or fenced: the others wait for what will not come
            return
        except Cancelled:
            told = None  # told to stop in its wait
        except BaseException as error:
            self._give_up(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        finally:
            current.set(branch)
        with self._lock:
            if self.run.leaves_the_stack:
                call.resume.tell(Word.UNWIND)  # closed while the body ran: nobody will hand anything out
                return
            if told is not None and call in self.run.gate.running:
                self.run.gate.finish(call, told)
            elif told is not None:
                told.drop()
            self._look()

    def _pass_on(self) -> None:
        """Give the baton to the next strand, or, if there is none, let the gate decide."""
        self._holder = None
        self._look()

    def _look(self) -> None:
        if self._holder is not None:
            return
        if not self._next:
            run = self.run
            if run.closed or run.fatal is not None or (run.leaving is not None and not run.leaving.done):
                return
            try:
                self._apply(run.gate.on_quiet())
            except Unwind:  # a record was refused or fenced
                self.close()
                return
        if self._next:
            strand, word, value = self._next.popleft()
            self._holder = strand
            strand.tell(word, value)

    def _apply(self, decision: Decision) -> None:
        run = self.run
        for call in decision.begin:
            call.resume.tell(Word.BODY)
        if decision.holder is not None:
            decision.holder.resume.tell(Word.GATE, run.gate.next_group())
        if decision.cancel:
            run.cancel_told = True
            self._stop_code()
        elif decision.replayed:
            self._next.extend((call.resume, Word.ANSWER, record) for call, record in decision.replayed)
        elif decision.group:
            # First in line, then recorded: if that is refused, `close` finds them there.
            self._next.extend((call.resume, Word.ANSWER, None) for call in decision.group)
            run.tell(decision.group)
        elif decision.stuck:
            waiting = run.gate.parked_calls()
            if waiting:
                call = waiting[0]
                self._give_up(diverged(call.position, call.kind, call.name, decision.stuck))
        elif run.cancel_due and run.gate.holder is None and not run.gate.idle:
            run.tell_cancel()
            self._stop_code()

    def _stop_code(self) -> None:
        """Every strand that waits at the gate is told to stop, and whoever waits for such strands."""
        for call in sorted(self.run.gate.parked_calls(), key=lambda call: call.position):
            fan: Fan | None = call.resume.member_of
            while fan is not None:
                fan.parent.stopped = True
                fan = fan.parent.member_of
            self._stop_call(call)

    def _give_up(self, error: Exception) -> None:
        self.run.give_up(error)
        self.close()

    # -- from outside --------------------------------------------------------------------------------

    def cancel(self, reason: CancelReason) -> None:
        """Tell the code to stop at its next durable call, or in the wait where it is."""
        run = self.run
        with self._lock:
            if run.hear_cancel(reason):
                return
            if run.tasks == 1 and run.gate.idle:
                if run.cancel_due:
                    self._wake()
            else:
                self._look()

    def try_to_leave(self) -> None:
        """Put the run away if all it does is wait; from a thread of the engine."""
        run = self.run
        with self._lock:
            if not can_leave(run) or (self._holder is not None and run.tasks > 1):
                look_again(run)
                return
            try:
                if waits := unrecorded_waits(run):
                    # Two tickets, one transaction each: whoever ends the target must find the wait committed.
                    ticket = run.submit(*waits)
                    ticket.call(lambda: run.runtime.begun_waiting(run))
                    return
                record = put_away_record(run)
                if record is None:
                    look_again(run)
                    return
                run.leaving = run.submit(record)
            except Unwind:  # a record was refused or fenced: there is no code here to take off the stack
                self.close()
                return
        run.leaving.call(lambda: self._left(record))

    def _left(self, record: PutAway) -> None:
        run = self.run
        if run.leaving is not None and run.leaving.error is None and record.outcome is Outcome.WON:
            self.close()
            return
        with self._lock:
            run.leaving = None  # it stays, and may try again
            self._look()
        if run.cancel_reason is not CancelReason.NONE:
            self.cancel(run.cancel_reason)
        run.runtime.stayed(run)

    def close_soon(self) -> None:
        """Close; other strands may wait."""
        self.close()

    def close(self) -> None:
        """Take the code off the stack; what it still returns or raises is ignored."""
        run = self.run
        with self._lock:
            if run.fatal is None:
                run.closed = True
            self._wake()
            for call in run.gate.parked_calls():
                if call not in run.gate.running:
                    call.resume.tell(Word.UNWIND)
            while self._next:
                self._next.popleft()[0].tell(Word.UNWIND)

    def _wake(self) -> None:
        for wait in list(self.run.waiting.values()):
            wait.signal.settle(WOKEN)
