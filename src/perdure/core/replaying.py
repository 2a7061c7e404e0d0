"""Replaying a history to see whether today's code still fits it: nothing is written, and no body of a step is run.

The code runs as it does on every replay, under the same hosts and the same gate, owned by a runtime that keeps nothing.
It is stopped where the record ends (`Run.frontier`), where it leaves the record, or where it ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, cast

from perdure.core.branch import Unwind
from perdure.core.gate import CANCEL_POSITION, Call, Recorded, Told, described
from perdure.core.loop import LoopHost
from perdure.core.middleware import Middleware
from perdure.core.outbox import Outbox
from perdure.core.registry import WorkflowDefinition
from perdure.core.run import Run
from perdure.core.runtime import Runtime
from perdure.core.tasks import install_task_factory
from perdure.core.threads import ThreadHost
from perdure.errors import DefinitionError
from perdure.models import DEFAULT_QUEUE, CancelReason, Status
from perdure.store.records import ContinueRecord, EndRecord, Outcome, Park, Ticket
from perdure.store.signal import Signal


@dataclass(slots=True)
class History:
    """What is recorded of a run, as a replay needs it: as of `now`; `end` is how it ended, if it has."""

    realm: str
    now: datetime
    key: int
    id: str
    workflow: str
    input: bytes
    records: Sequence[Recorded]
    waits: dict[str, float] = field(default_factory=dict)
    intents: Mapping[str, bytes | None] = field(default_factory=dict)
    cancel: CancelReason = CancelReason.NONE
    context: Mapping[str, Any] = field(default_factory=dict)
    seed: str | None = None
    end: Status | None = None
    scheduled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a replay: whether code and record agree, and what was found, in words."""

    agrees: bool
    text: str


class Replayer:
    """The owner of one run that is only looked at: a `Runtime` that keeps nothing and answers nothing."""

    worker = 0
    version: str | None = None
    home_queue = DEFAULT_QUEUE

    def __init__(
        self,
        history: History,
        *,
        exceptions: tuple[type[BaseException], ...] = (),
        middleware: tuple[Middleware, ...] = (),
        instances: Mapping[str, object] | None = None,
    ) -> None:
        self.exceptions, self.middleware = exceptions, middleware
        self.instances = {} if instances is None else instances
        self.realm, self.history = history.realm, history
        self.over = Signal()
        self.reached: Call | None = None
        self.last: EndRecord | Park | None = None
        self._keys = -1

    # -- what it keeps ---------------------------------------------------------------------------

    def frontier(self, call: Call) -> Generator[Any, Any, Told]:
        """The record is used up: the code would go on with this call."""
        self.reached = call
        self._run.closed = True
        if self._run.host is not None:
            self._run.host.close_soon()
        raise Unwind
        yield  # a generator, as every way to find an answer

    def is_sized(self, queue: str | None) -> bool:
        """Nothing is refused."""
        return False

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        """Take a record for written, and look whether it ends the run."""
        for record in ticket.records:
            record.outcome = Outcome.WON
            if isinstance(record, EndRecord | Park):
                self.last = record
        ticket.settle()

    def submit_many(self, tickets: list[Ticket]) -> None:
        """The same for many."""
        for ticket in tickets:
            self.submit(ticket)

    send = submit_many

    def lend_hand(self, ticket: Ticket) -> None:
        """Nothing is on its way."""

    def begin(self, definition: WorkflowDefinition) -> Run:
        """The run, before its code begins."""
        history = self.history
        run = Run(
            cast("Runtime", self),
            definition,
            history.key,
            history.id,
            history.input,
            records=history.records,
            waits=dict(history.waits),
            intents=history.intents,
            cancel=history.cancel,
        )
        run.context, run.seed, run.frontier = history.context, history.seed, self.frontier
        run.scheduled_at = history.scheduled_at
        if any(record.position == CANCEL_POSITION for record in history.records) and not history.cancel:
            run.cancel_reason = CancelReason.ASKED
        self._run = run
        return run

    def verdict(self) -> Verdict:
        """What the replay has found, once it is over."""
        if isinstance(self.last, Park):
            return Verdict(False, self.last.reason)
        told, end = f"{len(self.history.records)} records", self.history.end
        if self.reached is not None:
            what = f"{described(self.reached.kind, self.reached.name)} at position {self.reached.position}"
            if end is Status.SUCCEEDED:
                return Verdict(False, f"the run succeeded after {told}, but the code goes on with {what}")
            return Verdict(True, f"agrees with {told}, then goes on with {what}")
        if self.last is None:
            return Verdict(False, "the code stopped without an end")
        status = Status.CONTINUED if isinstance(self.last, ContinueRecord) else Status.of(self.last.status)
        if end in (Status.SUCCEEDED, Status.CONTINUED) and status is not end:
            return Verdict(False, f"the run {end} after {told}, but the code ends as {status}")
        return Verdict(True, f"agrees with {told}, then ends as {status}")

    # -- what a run asks -------------------------------------------------------------------------

    def alive(self) -> bool:
        """Nobody else is to take it over."""
        return True

    def fenced(self) -> None:
        """Never: nothing is owned."""

    def expect(self, key: int) -> None:
        """No run is started here."""

    def new_key(self) -> int:
        """A key for what is never written."""
        self._keys -= 1
        return self._keys

    def now(self) -> datetime:
        """The time at which the history was as it is; nothing that is recorded depends on it."""
        return self.history.now

    def monotonic(self) -> float:
        """Nothing is measured."""
        return 0.0

    def can_run(self, definition: WorkflowDefinition, version: str | None) -> bool:
        """Nothing is run here but the one."""
        return False

    def let_go_of(self, key: int) -> None:
        """No run is started here."""

    def begun_waiting(self, run: Run, seconds: float | None = None) -> None:
        """It is never put away."""

    def stayed(self, run: Run) -> None:
        """It is never put away."""

    def ended(self, run: Run, status: Status, value: bytes) -> None:
        """Nobody waits for it."""

    def let_go(self, run: Run) -> None:
        """The code is off the stack: the replay is over."""
        self.over.settle()

    def blocked(self) -> AbstractContextManager[Any]:
        """Nobody needs the thread."""
        return nullcontext()

    def in_thread(self, work: Callable[[], Any]) -> Signal:
        """Look something up; bodies of steps never come here."""
        signal = Signal()
        signal.settle(work())
        return signal

    def find(self, id: str) -> tuple[int, str] | None:
        """What a start found is taken for what it started."""
        return None

    def request_cancel(self, key: int) -> None:
        """Nobody is told."""

    def name_of_instance(self, instance: object) -> str:
        """The name under which an object is stored."""
        for name, known in self.instances.items():
            if known is instance:
                return name
        raise DefinitionError(f"{instance!r} is not among the instances given to the replay")

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def never(*_args: object, **_options: object) -> NoReturn:
            raise RuntimeError(f"a replay needs no {name}: the record has the answer, or it stops before")

        return never


def replay(replayer: Replayer, definition: WorkflowDefinition, context: Context, within: float) -> Verdict:
    """Run the code over a history, in a thread of its own.

    Args:
        replayer: the owner, which knows the history.
        definition: of the workflow, as it is today.
        context: in which the code runs.
        within: seconds after which code that waits for something else is given up.
    """
    run = replayer.begin(definition)
    work = _on_loop if definition.colour else _in_thread
    arguments = (run, replayer, context, within)
    thread = threading.Thread(target=work, args=arguments, name="perdure-replay", daemon=True)
    thread.start()
    if not replayer.over.wait_blocking(within):
        left = run.gate.left_over()
        goes_on = f", while the record goes on with {left.name!r} at position {left.position}" if left else ""
        return Verdict(
            False, f"for {within:g} s the code has waited for something that is no durable call{goes_on}"
        )
    return replayer.verdict()


def _in_thread(run: Run, _replayer: Replayer, context: Context, _within: float) -> None:
    ThreadHost(run).execute(context)


def _on_loop(run: Run, replayer: Replayer, context: Context, within: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        install_task_factory(loop)
        LoopHost(run, loop, Outbox(loop)).start(context)
        async with asyncio.timeout(within):
            await replayer.over.wait()

    try:
        asyncio.run(main())
    except TimeoutError:
        return
