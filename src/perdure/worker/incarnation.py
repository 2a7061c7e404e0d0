"""One life of a worker: its number, its two journal lanes, its lease; what a run asks of its owner.

When a worker is declared dead, this life is over for good: everything it has not been answered for is
void, its runs unwind, and the process begins another life under a new number.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from perdure.core.entities import Order
from perdure.core.mailbox import Mailbox
from perdure.core.registry import WorkflowDefinition
from perdure.core.run import Run
from perdure.errors import DefinitionError
from perdure.models import DEFAULT_QUEUE, CancelReason, Status
from perdure.policy import put_away_after
from perdure.store import entities, messages
from perdure.store import runs as stored
from perdure.store.batch import Batch, BatchWriter
from perdure.store.entities import CommandRecord, CommandWriter
from perdure.store.journal import Journal
from perdure.store.records import Ticket
from perdure.store.session import Session
from perdure.store.signal import Signal
from perdure.store.workers import COMMAND_SLOT, CONTESTED_SLOT, CORE_SLOT, FIRST_TRANSACTION_SLOT, SESSIONS
from perdure.store.writing import JournalHooks

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class Incarnation:
    """The owner of runs, as `core.run.Runtime` wants it.

    Args:
        engine: what all lives of this process share.
        number: the incarnation's number; half of every key that it makes.
        now: the database's time when the number was taken.
        realm: which database it is.
        owns: whether it is a worker; a client has a journal without a fence, and runs nothing.
    """

    def __init__(self, engine: Engine, number: int, now: datetime, realm: str, *, owns: bool) -> None:
        self.worker, self.owns, self.realm = number, owns, realm
        self.exceptions = engine.settings.exceptions
        self.instances, self.middleware = engine.settings.instances, engine.settings.middleware
        self.version = engine.settings.version
        listen = engine.settings.queues
        self.home_queue = DEFAULT_QUEUE if DEFAULT_QUEUE in listen else listen[0]
        self._engine = engine
        self._keys = itertools.count(number << 32)
        self._lease = engine.settings.lease
        self._renewed_at = boot_time()
        self._clock_base = (now, boot_time())
        self.dead = False
        self._fencing = threading.Lock()
        self._slots = list(range(FIRST_TRANSACTION_SLOT, FIRST_TRANSACTION_SLOT + SESSIONS))
        hooks = JournalHooks(engine.database.connect, self.fenced, engine.committed)
        answer_within = self._lease / 2
        fence = number if owns else None
        single = not engine.database.pooler
        statements = engine.database.statements
        writer = BatchWriter(statements, fence, CONTESTED_SLOT, single_form=single)
        self.contested = Journal(writer, hooks, name="journal-2", answer_within=answer_within)
        writer = BatchWriter(statements, fence, CORE_SLOT, single_form=single)
        self.core = Journal(
            writer, hooks, name="journal", answer_within=answer_within, overflow=self.contested
        )
        commands = CommandWriter(statements, fence, COMMAND_SLOT)
        command_hooks = JournalHooks(engine.database.connect, self.fenced, self._carried_out)
        self.commands = Journal(
            commands, command_hooks, name="commands", answer_within=answer_within, keeps_order=False
        )
        self._lanes = (self.core, self.contested, self.commands)

    def start(self) -> None:
        """Begin to write."""
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Write what is queued, and stop."""
        for lane in self._lanes:
            lane.stop()

    def _carried_out(self, batch: Batch) -> None:
        """Commands are done: what they told other objects comes next; if this worker dies now, another finds it."""
        self._engine.committed(batch)
        tells = [Ticket(told) for command in batch.of(CommandRecord) for told in command.tells]
        if tells:
            self.commands.submit(tells)

    def carry_out(self, orders: Iterable[tuple[str, Order]]) -> None:
        """Carry out told commands, each under its id, that were left behind."""
        self.commands.submit(
            Ticket(CommandRecord(self.new_key(), o.place, id, o.command.name, o.args, o.apply, is_told=True))
            for id, o in orders
        )

    # -- the lease ---------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the lease holds, by the worker's own count: a courtesy, the fence is the guarantee."""
        return not self.dead and (
            not self.owns or time.clock_gettime(_CLOCK) - self._renewed_at < self._lease
        )

    def renewed(self, sent: float, now: datetime) -> None:
        """A renewal was answered."""
        self._renewed_at = sent
        self.saw(now)

    def saw(self, now: datetime) -> None:
        """The database told its time."""
        self._clock_base = (now, boot_time())

    def silence(self) -> tuple[float, float]:
        """Seconds since the last renewal that was answered was sent, and since the database last told its time."""
        now = boot_time()
        return now - self._renewed_at, now - self._clock_base[1]

    def oldest_unanswered(self) -> float | None:
        """When the oldest batch without an answer was sent."""
        sent = [journal.sent_at for journal in self._lanes if journal.sent_at is not None]
        return min(sent) if sent else None

    def fenced(self) -> None:
        """This life is over."""
        with self._fencing:
            if self.dead:
                return
            self.dead = True
        for lane in self._lanes:
            lane.fence()
        self._engine.incarnation_died(self)

    # -- what a run asks -----------------------------------------------------------------------------

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        """Queue a ticket in the first lane, or in the second."""
        lane = self.contested if contested else self.core
        if self._engine.loops.is_here():
            lane.send([ticket])
        else:
            lane.submit([ticket])

    def is_sized(self, queue: str | None) -> bool:
        """Whether a queue may refuse runs, being full."""
        return queue is not None and self._engine.sizes.has(queue)

    def submit_many(self, tickets: list[Ticket]) -> None:
        """Queue tickets in the first lane."""
        self.core.submit(tickets)

    def send(self, tickets: list[Ticket]) -> None:
        """Queue tickets of the event loop in the first lane; what is alone is sent at once."""
        self.core.send(tickets)

    def lend_hand(self, ticket: Ticket) -> None:
        """Write it in this thread, which would only wait for it, if nothing is being written."""
        self.core.lend_hand(ticket)

    def expect(self, key: int) -> None:
        """A run is being started here: it is ours, though not yet running."""
        self._engine.executor.expect(key)

    def new_key(self) -> int:
        """A key that nothing ever had."""
        return next(self._keys)

    def now(self) -> datetime:
        """The database's time: its last answer, and what has passed since."""
        base, at = self._clock_base
        return base + timedelta(seconds=boot_time() - at)

    monotonic = staticmethod(time.monotonic)
    """Seconds that only go forward; a built-in, as it is asked twice for each step."""

    def timer(self, run: Run, position: str, seconds: float) -> Signal:
        """Settled once the wait at this position is over by the database's clock."""
        return self._engine.timers.add(run.key, position, seconds)

    def begun_waiting(self, run: Run, seconds: float | None = None) -> None:
        """Look later whether the run can be put away."""
        after = put_away_after(seconds)
        if after is not None:
            self._engine.timers.consider(run, after)

    def stayed(self, run: Run) -> None:
        """The run was not put away, since something that it waits for has come: look for it."""
        self._engine.timers.ask_soon(run.key)
        self._engine.mail.wake()
        self._engine.watcher.wake()
        self.begun_waiting(run)

    def end_of(self, key: int) -> Signal:
        """Settled once that run has ended, or is parked."""
        return self._engine.watcher.watch(key)

    def unwatch(self, key: int, signal: Signal) -> None:
        """Nobody waits for the end of that run with this signal any more."""
        self._engine.watcher.unwatch(key, signal)

    def expect_mail(self, mailbox: Mailbox, topic: str) -> None:
        """Look for messages of this topic, as long as the mailbox wants one."""
        self._engine.mail.expect(mailbox, topic)

    def event_of(self, key: int, name: str) -> Signal:
        """Settled once that run has set the event, or has ended without."""
        return self._engine.mail.event_of(key, name)

    def command(self, ticket: Ticket) -> None:
        """Queue a command on a durable object."""
        self.commands.submit([ticket])

    def find_entity(self, type: str, key: str) -> tuple[int, bytes | None]:
        """Version and state of a durable object; 0 and None of one that is not there."""
        return entities.find(self._engine.database, [(type, key, 0)]).get((type, key, 0), (0, None))

    def entity_after(self, type: str, key: str, version: int) -> Signal:
        """Settled with version and state once an object has changed since this version."""
        return self._engine.mail.entity_after(type, key, version)

    def unwatch_entity(self, type: str, key: str, version: int, signal: Signal) -> None:
        """Nobody waits for that change with this signal any more."""
        self._engine.mail.entities.remove((type, key, version), signal)

    def rows_of(self, key: int, name: str, place: int) -> Signal:
        """Settled with rows of that run's stream from this place on; with none once it has ended."""
        return self._engine.mail.rows_of(key, name, place)

    def unwatch_rows(self, key: int, name: str, place: int, signal: Signal) -> None:
        """Nobody waits for those rows with this signal any more."""
        self._engine.mail.rows.remove((key, name, place), signal)

    def last_event(self, key: int, name: str) -> Any:
        """The event of that run, if it is set: whether it is an error, and its value."""
        return messages.find_events(self._engine.database, [(key, name)]).get((key, name))

    def how_ended(self, key: int) -> Any:
        """How that run ended (status and value), or why it is parked; None if it goes on. One that was deleted has failed."""
        for _, status, value in stored.find_ended(self._engine.database, [key]):
            return self.how_ended(int(value)) if status is Status.CONTINUED else (status, value)
        for _, reason in stored.find_silent(self._engine.database, [key]):
            return reason
        return None

    def unwatch_event(self, key: int, name: str, signal: Signal) -> None:
        """Nobody waits for that event with this signal any more."""
        self._engine.mail.events.remove((key, name), signal)

    def can_run(self, definition: WorkflowDefinition, version: str | None) -> bool:
        """Whether runs of it, of this version, may run in this process."""
        versions = self._engine.settings.versions
        fits = version is None or versions is None or version in versions
        engine = self._engine
        return fits and self.owns and not self.dead and engine.accepts_runs() and engine.executor.has_room()

    def launch(self, run: Run, ticket: Ticket) -> None:
        """Run a run here once its ticket is committed."""
        if run.timeout is not None:
            self._engine.reaper.expect(run.key, run.timeout)
        self._engine.executor.launch(run)

    def execute(self, run: Run) -> None:
        """Run the code of a blocking run in this thread, to its end."""
        self._engine.executor.execute(run)

    def request_cancel(self, key: int) -> None:
        """Cancel another run, without waiting."""
        self._engine.threads.call(lambda: self._engine.cancel([key], CancelReason.ASKED))

    def ended(self, run: Run, status: Status, value: bytes) -> None:
        """Tell whoever waits in this process."""
        self._engine.watcher.ended(run.key, status, value)
        self._engine.reaper.over(run.key)

    def let_go_of(self, key: int) -> None:
        """A run that was expected here is not to run here."""
        self._engine.executor.unexpect(key)

    def let_go(self, run: Run) -> None:
        """The run is no longer in memory here."""
        self._engine.executor.forget(run)

    def in_thread(self, work: Callable[[], Any]) -> Signal:
        """Call something that blocks in a thread."""
        return self._engine.threads.call(work)

    def blocked(self) -> Any:
        """While this lasts the thread only waits."""
        return self._engine.threads.blocked()

    def call_async(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call an `async def` function from a thread, on the app's loop."""
        return self._engine.loops.call(function, args, kwargs)

    def name_of_instance(self, instance: object) -> str:
        """The name under which an object is stored."""
        for name, known in self.instances.items():
            if known is instance:
                return name
        raise DefinitionError(
            f"{instance!r} has no name by which another process could find it: give it one, as in "
            f"Perdure(instances={{'main': ...}})"
        )

    def find(self, id: str) -> tuple[int, str] | None:
        """Key and workflow of a run by its id."""
        return stored.key_of(self._engine.database, id)

    def was_sent(self, id: str, topic: str, key: str) -> bool:
        """Whether a run of this id was sent the message with this key."""
        return stored.was_sent(self._engine.database, id, topic, key)

    def session(self, *, is_async: bool) -> Session:
        """A session for one attempt of a transaction step."""
        pool = self._engine.pools.get(is_async=is_async)
        return Session(
            pool, self._engine.database.statements, self._slots, worker=self.worker, is_async=is_async
        )
