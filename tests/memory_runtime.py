"""A worker made of memory: the runtime that a run asks for, with a journal that is a list.

It exists so that the core can be driven without a database, and so that a test decides what of a journal was
committed when the worker died. A `Past` is what a new owner would load; `Life` is one owner with its journal.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from perdure.core.gate import Recorded
from perdure.core.loop import LoopHost
from perdure.core.mailbox import Mailbox
from perdure.core.middleware import Middleware
from perdure.core.outbox import Outbox
from perdure.core.registry import WorkflowDefinition
from perdure.core.run import Run
from perdure.core.tasks import install_task_factory
from perdure.core.threads import ThreadHost
from perdure.errors import DatabaseUnavailable
from perdure.models import CancelReason, Status
from perdure.store.records import (
    AnsweredWait,
    EndRecord,
    IntentRecord,
    Outcome,
    Park,
    Record,
    StepRecord,
    Ticket,
    WaitRecord,
)
from perdure.store.session import Session
from perdure.store.signal import Signal, settle

KEY = 7 << 32
Unit = tuple[Record, ...]
"""What one ticket carries: committed together."""


@dataclass(frozen=True)
class Past:
    """What is committed of a run: units in the order of their commit."""

    units: tuple[Unit, ...] = ()

    def of(self, kind: type[Any]) -> list[Any]:
        """The committed records of one kind."""
        return [record for unit in self.units for record in unit if isinstance(record, kind)]

    def prefix(self, length: int) -> Past:
        """What a crash after so many commits leaves."""
        return Past(self.units[:length])

    def records(self) -> list[Recorded]:
        """The rows as a claim would load them; the order of loading means nothing, so it is turned round."""
        rows = [
            Recorded(
                s.position, s.group, s.order or 0, s.kind, s.name, s.failed, s.value, s.attempts, s.message
            )
            for s in self.of(StepRecord)
        ]
        return rows[::-1]

    def positions(self) -> set[str]:
        """Positions of everything that the code was told."""
        return {record.position for record in self.of(StepRecord)}

    def waits(self) -> dict[str, float]:
        """Waits that are not over, with the seconds that remain: none."""
        answered = {record.position for record in self.of(AnsweredWait)}
        return {r.position: 0.0 for r in self.of(WaitRecord) if r.position not in answered}

    def rows(self) -> list[tuple[Any, ...]]:
        """The journal in comparable form."""
        return [
            (s.position, s.group, s.order, s.kind, s.name, s.failed, s.value) for s in self.of(StepRecord)
        ]

    @property
    def end(self) -> EndRecord | None:
        """How the run ended, if it did."""
        return next(iter(self.of(EndRecord)), None)

    @property
    def parked(self) -> str | None:
        """Why the run is parked, if it is."""
        return next((record.reason for record in self.of(Park)), None)


@dataclass(eq=False)
class Life:
    """One owner of one run. Subclasses say when what is submitted is committed.

    Attributes:
        past: what was committed before this life began.
        seed: of everything that differs from life to life.
        cancel_at: the code is told to stop once so many units are submitted.
        refuse_at: the database refuses the unit of this number, for good.
        concluding: the code has ended, and its end is on its way to the journal.
        sent: units that the run has sent on their way, at the moment when it did.
        letters: messages to the run: topic, number, payload.
    """

    past: Past = Past()
    seed: int = 0
    cancel_at: int | None = None
    worker: int = 7
    version: str | None = None
    home_queue: str = "default"
    realm: str = "memory"
    exceptions: tuple[type[BaseException], ...] = ()
    middleware: tuple[Middleware, ...] = ()
    instances: Mapping[str, object] = field(default_factory=dict)
    submitted: list[Ticket] = field(default_factory=list)
    committed: list[Unit] = field(default_factory=list)
    run: Run | None = None
    dead: bool = False
    refuse_at: int | None = None
    concluding: bool = False
    sent: int = 0
    letters: Sequence[tuple[str, int, bytes]] = ()

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.over = Signal()
        self._keys = itertools.count(KEY + 1000 * (self.seed + 1))
        self._clock = itertools.count()

    # -- what a test asks ------------------------------------------------------------------------

    def born(self, definition: WorkflowDefinition, *args: Any) -> Run:
        """The run, as its new owner has it before its code begins."""
        cancelled = any(record.kind == 7 for record in self.past.of(StepRecord))
        self.run = Run(
            self,
            definition,
            KEY,
            "the-run",
            definition.signature.encode_call(args, {}),
            records=self.past.records(),
            waits=self.past.waits(),
            intents={record.position: None for record in self.past.of(IntentRecord)},
            cancel=CancelReason.ASKED if cancelled else CancelReason.NONE,
        )
        self.run.begun_before = True  # of a first life too: what is done in doubt has to be right in each
        return self.run

    @property
    def journal(self) -> Past:
        """Everything committed, of this life and before."""
        return Past(self.past.units + tuple(self.committed))

    @property
    def barrier_holds(self) -> bool:
        """Whether everything that the run has recorded is committed."""
        assert self.run is not None
        pending = self.run.pending
        return pending is None or pending.done

    def note(self, ticket: Ticket) -> None:
        """The run sends a ticket."""
        self.sent += 1
        self.concluding |= any(isinstance(record, EndRecord | Park) for record in ticket.records)

    def commit(self, tickets: Sequence[Ticket]) -> None:
        """Write tickets as one batch, and answer them."""
        for ticket in tickets:
            if self._refuses(ticket):
                ticket.error = DatabaseUnavailable("refused")
                continue
            self.committed.append(tuple(ticket.records))
            for record in ticket.records:
                record.outcome = Outcome.WON
        settle(tickets)

    def _refuses(self, ticket: Ticket) -> bool:
        """Behind a record that was refused nothing is written but the word that the run is given up."""
        if self.refuse_at is None or isinstance(ticket.records[0], Park):
            return False
        return self.submitted.index(ticket) >= self.refuse_at

    # -- what a run asks -------------------------------------------------------------------------

    def alive(self) -> bool:
        return not self.dead

    def is_sized(self, queue: str | None) -> bool:
        return False

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        self.submit_many([ticket])

    def submit_many(self, tickets: list[Ticket]) -> None:
        raise NotImplementedError

    def send(self, tickets: list[Ticket]) -> None:
        self.submit_many(tickets)

    def lend_hand(self, ticket: Ticket) -> None:
        """The test decides when something is written."""

    def new_key(self) -> int:
        return next(self._keys)

    def now(self) -> datetime:
        # Every life has another idea of the time, so that one that is read again is found out.
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.seed, seconds=next(self._clock))

    monotonic = staticmethod(time.monotonic)

    def timer(self, run: Run, position: str, seconds: float) -> Signal:
        signal = Signal()
        self.later(signal.settle)
        return signal

    def later(self, callback: Callable[[], None]) -> None:
        """Call back at a moment that depends on the seed."""
        raise NotImplementedError

    def begun_waiting(self, run: Run, seconds: float | None = None) -> None:
        return

    def expect(self, key: int) -> None:
        return

    def let_go_of(self, key: int) -> None:
        return

    def can_run(self, definition: WorkflowDefinition, version: str | None) -> bool:
        return False

    def launch(self, run: Run, ticket: Ticket) -> None:
        raise AssertionError("children run elsewhere")

    def execute(self, run: Run) -> None:
        raise AssertionError("children run elsewhere")

    def request_cancel(self, key: int) -> None:
        raise AssertionError("children run elsewhere")

    def stayed(self, run: Run) -> None:
        return

    def unwatch(self, key: int, signal: Signal) -> None:
        return

    def expect_mail(self, mailbox: Mailbox, topic: str) -> None:
        seen, look = mailbox.ask(topic)
        letters = [(number, value) for name, number, value in self.letters if name == topic and number > seen]

        def arrive() -> None:
            mailbox.arrived(topic, letters, look)

        self.later(arrive)

    def event_of(self, key: int, name: str) -> Signal:
        signal = Signal()
        self.later(lambda: signal.settle((False, b'"the other\'s"')))
        return signal

    def name_of_instance(self, instance: object) -> str:
        return next(name for name, known in self.instances.items() if known is instance)

    def command(self, ticket: Ticket) -> None:
        self.submit_many([ticket])

    def find_entity(self, type: str, key: str) -> tuple[int, bytes | None]:
        return 0, None

    def entity_after(self, type: str, key: str, version: int) -> Signal:
        return Signal()

    def unwatch_entity(self, type: str, key: str, version: int, signal: Signal) -> None:
        return

    def rows_of(self, key: int, name: str, place: int) -> Signal:
        signal = Signal()
        self.later(lambda: signal.settle([]))
        return signal

    def unwatch_rows(self, key: int, name: str, place: int, signal: Signal) -> None:
        return

    def last_event(self, key: int, name: str) -> Any:
        return None

    def how_ended(self, key: int) -> Any:
        return None

    def unwatch_event(self, key: int, name: str, signal: Signal) -> None:
        return

    def end_of(self, key: int, *, parked: bool = True) -> Signal:
        signal = Signal()
        self.later(lambda: signal.settle((Status.SUCCEEDED, b'"the child\'s"')))
        return signal

    def find(self, id: str) -> tuple[int, str] | None:
        return None

    def was_sent(self, id: str, topic: str, key: str) -> bool:
        return False

    def ended(self, run: Run, status: Status, value: bytes) -> None:
        return

    def let_go(self, run: Run) -> None:
        if run is self.run:
            self.over.settle()

    def in_thread(self, work: Callable[[], Any]) -> Signal:
        signal = Signal()

        def settled() -> None:
            try:
                value = work()
            except BaseException as error:
                signal.settle(error=error)
            else:
                signal.settle(value)

        threading.Thread(target=settled, daemon=True).start()
        return signal

    def call_async(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        return asyncio.run(function(*args, **kwargs))

    @contextmanager
    def blocked(self) -> Iterator[None]:
        yield

    def session(self, *, is_async: bool) -> Session:
        raise AssertionError("no transactions here")

    def fenced(self) -> None:
        self.dead = True


class CountingOutbox(Outbox):
    """The loop's outbox, which notes for the owner how much its run has sent."""

    def add(self, owner: Any, ticket: Ticket) -> None:
        """Queue a ticket."""
        owner.note(ticket)
        super().add(owner, ticket)


class LoopLife(Life):
    """An owner whose journal is written by the event loop, some turns after it was asked to.

    Everything that a seed decides is counted in turns of the loop: the same seed gives the same run.
    """

    queue: list[Ticket]

    def submit_many(self, tickets: list[Ticket]) -> None:
        self.submitted += tickets
        assert self.run is not None
        if self.cancel_at is not None and len(self.submitted) >= self.cancel_at:
            self.cancel_at, host = None, self.run.host
            self.later(lambda: host.cancel(CancelReason.ASKED))
        if self.dead:
            return
        self.queue = [*getattr(self, "queue", []), *tickets]
        self.later(self._write)

    def _write(self) -> None:
        if self.queue and not self.dead:
            # Now and then only a part, as when a batch is full.
            size = self.rng.randint(1, len(self.queue))
            batch, self.queue = self.queue[:size], self.queue[size:]
            self.commit(batch)
            if self.queue:
                self.later(self._write)

    def later(self, callback: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                callback()

        # Not in the caller's context: the code of the run calls this too.
        loop.call_soon(turn, self.rng.randrange(6), context=Context())

    async def live(self, definition: WorkflowDefinition, *args: Any, patience: float = 5.0) -> Past:
        """Run the code to its end, a crash or a stop; return what is committed.

        Raises:
            TimeoutError: it neither ended nor was parked.
        """
        loop = asyncio.get_running_loop()
        install_task_factory(loop)
        run = self.born(definition, *args)
        LoopHost(run, loop, CountingOutbox(loop)).start(Context())
        async with asyncio.timeout(patience):
            await self.over.wait()
            while not self.dead and not all(t.done for t in self.submitted):  # noqa: ASYNC110 - turns are its clock
                await asyncio.sleep(0)
        return self.journal

    def crash(self) -> None:
        """The worker is no more: nothing is committed or answered from here on."""
        assert self.run is not None
        self.dead = True
        self.run.host.close()
        self.over.settle()


class ThreadLife(Life):
    """An owner of a blocking run, whose journal is a thread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._changed = threading.Condition()
        self._stopped = False

    def submit_many(self, tickets: list[Ticket]) -> None:
        with self._changed:
            for ticket in tickets:
                self.note(ticket)
            self.submitted += tickets
            self._changed.notify()

    def later(self, callback: Callable[[], None]) -> None:
        threading.Thread(target=callback, daemon=True).start()

    def live(self, definition: WorkflowDefinition, *args: Any, patience: float = 10.0) -> Past:
        """Run the code to its end; return what is committed.

        Raises:
            TimeoutError: it neither ended nor was parked.
        """
        run = self.born(definition, *args)
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        host = ThreadHost(run)
        threading.Thread(target=host.execute, args=(Context(),), daemon=True).start()
        if not self.over.wait_blocking(patience):
            raise TimeoutError(f"the run stands still after {len(self.committed)} units")
        with self._changed:
            self._stopped = True
            self._changed.notify()
        writer.join()
        return self.journal

    def _write(self) -> None:
        done = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda done=done: len(self.submitted) > done or self._stopped)  # type: ignore[misc]
                batch = self.submitted[done : done + self.rng.randint(1, 4)]
            if not batch:
                return
            done += len(batch)
            self.commit(batch)
