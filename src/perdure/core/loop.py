"""The host of an `async def` workflow: its tasks on an event loop, and when they are all quiet.

Every task that the code of a run creates is wrapped, by the loop's task factory, in a coroutine that
counts its steps and belongs to a branch, numbered before it starts. The run is quiet when none of its
tasks was stepped for a few turns of the loop: strict order by number alone fails on programs that wait
for "whatever is first", quietness does not (an experiment on ten of them, at every crash prefix).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final

from perdure.core.branch import GoOnAsNew, Unwind, current
from perdure.core.calling import arguments
from perdure.core.drive import drive
from perdure.core.ending import Interrupted, conclude
from perdure.core.gate import Call, Decision, Recorded, diverged
from perdure.core.leaving import can_leave, leave_memory, look_again
from perdure.core.middleware import around_run
from perdure.core.outbox import Outbox
from perdure.core.run import Run
from perdure.core.tasks import Traced, forget_outcome, future_of
from perdure.core.undo import leave, undo
from perdure.core.waits import WOKEN
from perdure.errors import NonDeterminismError
from perdure.models import CancelReason
from perdure.store.records import Ticket

logger = logging.getLogger("perdure.run")

QUIET_TURNS: Final = 3
UNWIND_WITHIN: Final = 0.1
"""Seconds in which closed code has unwound by itself, or is cancelled."""
WARN_AFTER: Final = 2.0
"""Seconds after which a replay that waits for something foreign says so."""


class LoopHost:
    """Runs the code of one run on a loop."""

    __slots__ = (
        "_bodies",
        "_insisting",
        "_loop",
        "_outbox",
        "_pumping",
        "_seen",
        "_warned",
        "acts",
        "branches",
        "run",
        "task",
    )

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self.run, self._loop, self._outbox = run, loop, outbox
        self.acts, self._seen, self._pumping, self._warned = 0, -1, False, False
        self.branches: set[Traced] = set()
        self._bodies: set[asyncio.Task[Any]] = set()
        self._insisting: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        run.host = self

    def start(self, context: Context) -> None:
        """Begin the code, as a task of its own; from the loop's thread."""
        context.run(current.set, self.run.root)
        traced = Traced(self._main(), self)
        self.task = traced.task = asyncio.Task(traced, loop=self._loop, context=context)

    def submit(self, ticket: Ticket) -> None:
        """Send a ticket with the others of this turn of the loop."""
        self._outbox.add(self.run.runtime, ticket)

    def soon(self, make: Callable[[], Ticket | None]) -> None:
        """Have a ticket made, if there is still to be one, and sent, in the order of such calls; from any thread."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001  (no error, no cost)
            self._make(make)
        else:
            self._loop.call_soon_threadsafe(self._make, make)

    def _make(self, make: Callable[[], Ticket | None]) -> None:
        if (ticket := make()) is not None:
            self.submit(ticket)

    # -- the root ----------------------------------------------------------------------------------

    async def _main(self) -> None:
        run, value = self.run, None
        error: BaseException | None = None
        try:
            if run.pending is not None:
                await run.pending.wait()
                run.confirm(run.pending)
            value = await self._call()
        except asyncio.CancelledError as cancelled:
            error = self._meaning(cancelled)
        except BaseException as raised:
            error = raised
        run.over = True
        self._end_branches()
        if self._insisting is not None:
            self._insisting.cancel()
        current.set(None)
        for ticket in conclude(run, value, error):
            await self._wait_for(ticket)
        if not run.over:  # a cancel came first
            try:
                await self._branches_ended()
                await drive(undo(run), run.runtime, self)
            except BaseException as raised:
                error = Interrupted() if isinstance(raised, asyncio.CancelledError) else raised
            else:
                error = None
            run.over = True
            for ticket in conclude(run, None, error):
                await self._wait_for(ticket)
        # Cut the knots of run, host, task and branches: they would wait for a collection (20 of 85 us a run).
        run.host = self.task = None
        del run.root
        if isinstance(error, KeyboardInterrupt):
            raise error

    async def _wait_for(self, ticket: Ticket) -> None:
        """Wait for what the end of the run hangs on, past a cancel that comes late; a loop that closes waits a little."""
        try:
            await ticket.wait()
        except asyncio.CancelledError:
            async with asyncio.timeout(WARN_AFTER):
                await ticket.wait()

    async def _call(self) -> Any:
        run = self.run
        args, kwargs = arguments(run)
        try:
            with around_run(run):
                value = await run.definition.function(*args, **kwargs)
        except BaseException as error:
            if self._fails(error):
                await self._branches_ended()
                await drive(leave(run, failed=True), run.runtime, self)
            raise
        if run.waits_for or run.gate.cancels_next:
            await drive(leave(run, failed=False), run.runtime, self)
        return value

    def _fails(self, error: BaseException) -> bool:
        """Whether the run ends with this error, or a cancel, so that what it did is to be undone."""
        if self.run.leaves_the_stack:
            return False
        if isinstance(error, asyncio.CancelledError):
            return self._meaning(error) is error
        return not isinstance(error, GoOnAsNew | Unwind | Interrupted | KeyboardInterrupt | GeneratorExit)

    def _meaning(self, cancelled: asyncio.CancelledError) -> BaseException:
        """Tell apart who cancelled: perdure, the code itself, or somebody outside (a loop that closes)."""
        if self.run.closed or self.run.fatal is not None:
            return Unwind()
        if self.run.cancel_told:
            return cancelled
        task = asyncio.current_task()
        return Interrupted() if task is not None and task.cancelling() else cancelled

    async def _branches_ended(self) -> None:
        """Have the other branches stop, and wait for that: what they have left undone is to be known."""
        self._end_branches()
        if tasks := [branch.task for branch in self.branches if branch.task not in (None, self.task)]:
            await asyncio.wait(tasks)
        if self._bodies:
            await asyncio.wait(list(self._bodies))  # what they do is to be done before it is undone

    def _end_branches(self) -> None:
        """Branches that outlive their workflow have nobody to report to."""
        if self.run.alone and not self._bodies:
            return
        for call in self.run.gate.parked_calls():
            self.run.gate.withdraw(call)
        for task in list(self._bodies):
            task.cancel()
        for branch in sorted(self.branches, key=lambda branch: branch.path):
            if branch.task is not None and branch.task is not self.task:
                branch.task.cancel()

    # -- the gate ----------------------------------------------------------------------------------

    async def at_gate(self, call: Call) -> Any:
        """Wait for the answer to a call among others."""
        run = self.run
        future: asyncio.Future[Recorded | None] = self._loop.create_future()
        call.resume = future
        try:
            run.gate.ask(call)
        except NonDeterminismError as error:
            self._diverged(error)
            raise Unwind from None
        self.pump()
        try:
            return await future
        except BaseException:
            run.gate.withdraw(call)
            for task in self._bodies:
                if task.get_name() == call.position:
                    task.cancel()
            self.pump()
            raise

    async def take_gate(self, call: Call) -> int:
        """Wait until nothing else is handed out, and keep it so."""
        answer: asyncio.Future[int] = self._loop.create_future()
        call.resume = (call.resume, answer)
        self.run.gate.want(call)
        self.pump()
        return await answer

    def pump(self) -> None:
        """Look whether the run is quiet, and hand out what can be."""
        if not self._pumping and not self.run.closed:
            self._pumping = True
            self._loop.call_soon(self._turn, 0)

    def _turn(self, quiet: int) -> None:
        if self.acts != self._seen:
            self._seen, quiet = self.acts, 0
        if quiet < QUIET_TURNS:
            self._loop.call_soon(self._turn, quiet + 1)
            return
        self._pumping = False
        run = self.run
        leaving = run.leaving is not None and not run.leaving.done
        if leaving or run.closed or run.fatal is not None or run.looking:  # a look pumps when it is done
            return
        try:
            self._apply(run.gate.on_quiet())
        except Unwind:  # a record was refused or fenced: the code here to take off the stack is the run's
            self.close()

    def _apply(self, decision: Decision) -> None:
        run = self.run
        for call in decision.begin:
            context = copy_context()
            context.run(current.set, None)
            task = asyncio.Task(self._body(call), loop=self._loop, name=call.position, context=context)
            self._bodies.add(task)
            task.add_done_callback(self._bodies.discard)
        if decision.holder is not None:
            decision.holder.resume, answer = decision.holder.resume
            if not answer.done():
                answer.set_result(run.gate.next_group())
        if decision.cancel:
            run.cancel_told = True
            self._stop_code()
        elif decision.replayed:
            self._hand_out([(call.resume, record) for call, record in decision.replayed])
        elif decision.group:
            try:
                run.tell(decision.group)
            except Unwind:
                for call in decision.group:
                    if not future_of(call).done():
                        future_of(call).set_exception(Unwind())
                raise
            self._hand_out([(call.resume, None) for call in decision.group])
        elif decision.stuck:
            self._stuck(decision.stuck)
        elif run.cancel_due and not run.calling and run.gate.holder is None and not run.gate.idle:
            run.tell_cancel()
            self._stop_code()

    def _hand_out(self, answers: list[tuple[asyncio.Future[Any], Recorded | None]]) -> None:
        for future, answer in answers:
            if not future.done():
                future.set_result(answer)
        self.acts += 1
        self.pump()

    async def _body(self, call: Call) -> None:
        try:
            told = await drive(call.produce(call), self.run.runtime, self)
        except (asyncio.CancelledError, Unwind) as stopped:
            self.run.gate.withdraw(call)
            if isinstance(stopped, Unwind) and not future_of(call).done():
                future_of(call).set_exception(Unwind())
        except BaseException as error:  # an operation never raises: this is perdure's own fault
            self.run.give_up(RuntimeError(f"an operation failed: {error!r}"))
            logger.exception("an operation of run %s failed", self.run.id)
            self.close()
        else:
            if isinstance(call.resume, tuple):
                call.resume = call.resume[0]
            self.run.gate.finish(call, told)
        self.pump()

    def _stuck(self, missing: tuple[Recorded, ...]) -> None:
        """The next answers of the record have not been asked for, and the code is quiet."""
        foreign = [branch for branch in self.branches if branch.is_foreign(self)]
        if foreign:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "run %s waits for something that is no durable call, while its record goes on with %s",
                    self.run.id,
                    missing[0].name,
                )
            self._loop.call_later(WARN_AFTER, self.pump)
            return
        waiting = [call for call in self.run.gate.parked_calls() if call.position != missing[0].position]
        if waiting:
            call = waiting[0]
            self._diverged(diverged(call.position, call.kind, call.name, missing))
        else:
            self._diverged(
                NonDeterminismError(f"nothing asks for {missing[0].name!r} at {missing[0].position}")
            )

    def _diverged(self, error: NonDeterminismError) -> None:
        self.run.give_up(error)
        self.close()

    # -- from outside --------------------------------------------------------------------------------

    def cancel(self, reason: CancelReason) -> None:
        """Tell the code to stop, as soon as the record allows; from the loop's thread."""
        run = self.run
        if run.hear_cancel(reason):
            return
        if run.tasks == 1 and run.gate.idle:
            if run.calling and run.cancel_due:
                try:
                    run.tell_cancel()
                except Unwind:
                    self.close()
                    return
                self._stop_code()
        else:
            self.pump()

    def _stop_code(self) -> None:
        self._cancel_root()
        self.acts += 1
        self.pump()

    def try_to_leave(self) -> None:
        """Put the run away if all it does is wait; from the loop's thread."""
        if can_leave(self.run) and not self._pumping:
            # In an empty context: the one here may be the workflow's, whose tasks are branches.
            task = asyncio.Task(leave_memory(self), loop=self._loop, context=Context())
            self._bodies.add(task)
            task.add_done_callback(self._bodies.discard)
        else:
            look_again(self.run)

    def close_soon(self) -> None:
        """Close at the loop's next turn; from the loop's thread."""
        self._loop.call_soon(self.close)

    def close(self) -> None:
        """Take the code off the stack; what it still returns or raises is ignored."""
        run = self.run
        if run.fatal is None:
            run.closed = True
        for wait in list(run.waiting.values()):
            wait.signal.settle(WOKEN)
        for call in run.gate.parked_calls():
            if not future_of(call).done():
                future_of(call).set_exception(Unwind())
        for branch in self.branches:
            if branch.task is not None:
                branch.task.add_done_callback(forget_outcome)
        for task in list(self._bodies):
            if task is not asyncio.current_task():
                task.cancel()
        # What waits at the gate or for a signal unwinds by itself; a body in the root's own task has to be told.
        if run.calling and not run.waiting:
            self._cancel_root()
        if self._insisting is None:
            self._insisting = self._loop.call_later(UNWIND_WITHIN, self._insist, False)

    def _cancel_root(self) -> None:
        if self.task is not None and not self.run.over and self.task is not _current_task():
            self.task.cancel()

    def _insist(self, warn: bool) -> None:
        """Cancel what did not unwind by itself: it waits for something that is no durable call."""
        if self.task is not None and not self.task.done():
            if warn:
                logger.warning("the code of run %s does not stop; cancelling it again", self.run.id)
            self._cancel_root()
            self._insisting = self._loop.call_later(
                5 * WARN_AFTER if warn else WARN_AFTER, self._insist, True
            )


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # not on a loop
        return None
