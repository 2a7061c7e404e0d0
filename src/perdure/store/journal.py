"""The journal: one thread that writes what all runs of the process have to record, as fast as it can.

It never waits to gather. While one batch is on its way the next one grows: idle, a record is written at
once; busy, hundreds share a commit. Each lane (a journal has one connection) keeps the order of a run's
records, so what is committed is always a prefix of what the run's code has seen.

A batch that fails is sent again, ticket by ticket, so that one bad row fails alone. A ticket that fails
alone goes to the second lane (`overflow`), where it is tried again while the first goes on; later tickets
of the same run follow it there, in order. A lost connection leaves the outcome unknown: the same batch is
sent again over a new one, and `BatchWriter` recognises its own rows.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import psycopg

from perdure.errors import DatabaseUnavailable
from perdure.policy import backoff
from perdure.store.batch import FENCED_STATE, Batch
from perdure.store.connection import Connection, abort, is_lost, is_retryable
from perdure.store.messages import Vanished
from perdure.store.records import Fenced, Park, Ticket
from perdure.store.signal import settle
from perdure.store.writing import JournalHooks, Writer

logger = logging.getLogger("perdure.journal")

MAX_BATCH_TICKETS: Final = 500
MAX_BATCH_BYTES: Final = 8_000_000
LOCK_TIMEOUT: Final = 0.1
"""Seconds that a batch waits for a lock: nothing but our own keys should ever be locked."""
ALONE_LOCK_TIMEOUT: Final = 0.01
"""The same for a ticket that is tried alone; it comes again, others wait behind it."""
RETRY_AFTER: Final = 0.1
LONGEST_RETRY: Final = 2.0
GIVE_UP_AFTER: Final = 30.0
"""Seconds for which a ticket from outside that somebody blocks is tried again, before its caller gets an error; a
run's own record is tried for as long as it takes."""


class Journal:
    """One lane.

    Args:
        writer: knows how to write a batch as this worker's slot.
        hooks: the owner's.
        name: of the thread and the connection.
        answer_within: seconds in which a batch must be answered.
        overflow: the lane that takes over what fails alone; without one, it is tried again here.
        keeps_order: whether nothing more of a run may be written after a record that was refused. Not so where a run
            waits for each of its tickets, gives up by itself, and may be resumed here.
    """

    def __init__(
        self,
        writer: Writer,
        hooks: JournalHooks,
        *,
        name: str,
        answer_within: float,
        overflow: Journal | None = None,
        keeps_order: bool = True,
    ) -> None:
        self._writer, self._hooks, self._overflow = writer, hooks, overflow
        self._name, self._answer_within, self._keeps_order = name, answer_within, keeps_order
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[Ticket] = deque()
        self._behind: dict[int, deque[Ticket]] = {}
        self._delayed: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._stopping = self._fenced = False
        self._connection: Connection | None = None
        self._idle = True
        self._writing = False
        self._taken: list[Ticket] = []
        self._begun: Batch | None = None
        """What `send` was given, and the thread is to wait for."""
        self.refused: dict[int, Refused] = {}
        """Runs that lack a record, which the database will never take: nothing more of theirs is written."""
        self.sent_at: float | None = None
        """When the batch that is under way was first sent (`time.monotonic()`), or None."""
        self._thread = threading.Thread(target=self._run, name=f"perdure-{name}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, tickets: Iterable[Ticket]) -> None:
        """Queue tickets; each is settled after the commit that holds it."""
        with self._changed:
            if not self._fenced:
                self._queue.extend(tickets)
                if self._idle:
                    self._changed.notify()
                return
        self._fail(tickets, Fenced())

    def send(self, tickets: Sequence[Ticket]) -> None:
        """Queue tickets, and send them at once if they are one statement and nothing else is under way: for event loops.

        While the journal's thread wakes to wait for the answer, the database is at work already, which is two fifths of
        what a commit takes, one at a time. Nothing waits here.
        """
        mine: Batch | None = None
        try:
            with self._changed:
                if self._idle and not (self._writing or self._queue or self._stopping):
                    self._queue.extend(tickets)
                    self._writing = True
                    mine = self._next_batch()
            if mine is None:
                self.submit(tickets)
            elif self._connection is not None and not self._connection.closed:
                self.sent_at = time.monotonic()
                # Sent or not, or not even packed: the thread finds out, sends it again, and recognises its own rows.
                with suppress(Exception):
                    self._writer.begin(self._connection, mine)
        finally:
            if mine is not None:
                with self._changed:
                    self._begun = mine
                    self._changed.notify()

    def lend_hand(self, ticket: Ticket) -> None:
        """Write the next batch in the caller's thread, which is about to wait for `ticket` anyway.

        While nothing else is on its way this saves two changes of thread for a commit (a third of the time that a
        blocking run spends beside its commits, one at a time). Where another thread writes it does nothing.
        """
        mine = False
        try:
            with self._changed:
                if self._writing or self._stopping or ticket.done or not self._queue:
                    return
                mine = self._writing = True
                batch = self._next_batch()
            self._flush(batch)
        except (
            BaseException
        ):  # the caller's thread is interrupted; whether the batch is written, nobody knows
            if mine:
                self._take_back()
            raise
        finally:
            if mine:
                self._written()

    def stop(self, timeout: float = 10.0) -> None:
        """Write what is queued, then stop; what cannot be written in time is failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        self.fence()

    def fence(self) -> None:
        """Fail everything queued, and everything to come."""
        with self._changed:
            self._fenced = self._stopping = True
            tickets = [*self._queue, *(ticket for _, _, ticket in self._delayed)]
            tickets += [ticket for line in self._behind.values() for ticket in line]
            self._queue.clear()
            self._delayed.clear()
            self._behind.clear()
            self._changed.notify()
        self._fail(tickets, Fenced())
        if (connection := self._connection) is not None and self._thread is not threading.current_thread():
            abort(connection)

    def oldest(self) -> float | None:
        """When the oldest batch that has no answer was sent, or None."""
        return self.sent_at

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        batch: Batch | None
        while (batch := self._take()) is not None:
            try:
                self._flush(batch)
            except Exception:
                logger.exception("%s: a batch failed in an unexpected way", self._name)
                self._fail(batch.tickets, DatabaseUnavailable("the journal failed; see the log"))
            self._written()
            batch = None  # not to be kept while this waits for the next
        if self._connection is not None:
            self._connection.close()

    def _written(self) -> None:
        """A batch is dealt with: somebody else may write."""
        with self._changed:
            self.sent_at = None
            self._writing = False
            if self._idle and (self._queue or self._delayed or self._stopping):
                self._changed.notify()

    def _take_back(self) -> None:
        """Have the journal's own thread send what was taken again, over a new connection: it recognises its own rows."""
        self._disconnect(KeyboardInterrupt("the thread that wrote was interrupted"))
        with self._changed:
            self._queue.extendleft(ticket for ticket in reversed(self._taken) if not ticket.done)

    def _take(self) -> Batch | None:
        with self._changed:
            while True:
                self._due()
                if self._begun is not None:
                    batch, self._begun = self._begun, None
                    return batch
                if self._queue and not self._writing:
                    self._writing = True
                    return self._next_batch()
                if self._stopping and not self._delayed and not self._writing:
                    return None
                self._idle = True
                later = self._delayed[0][0] - time.monotonic() if self._delayed else None
                self._changed.wait(None if self._writing else later)
                self._idle = False

    def _due(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self._queue.append(heapq.heappop(self._delayed)[2])  # behind those that have not had a turn

    def _next_batch(self) -> Batch:
        tickets: list[Ticket] = []
        self._taken = tickets
        size = 0
        while self._queue and len(tickets) < MAX_BATCH_TICKETS and size < MAX_BATCH_BYTES:
            ticket = self._queue.popleft()
            if ticket.run in self.refused and not isinstance(ticket.records[0], Park):
                # What is committed is a prefix of what the code saw: nothing may follow a record that is missing.
                ticket.error = self.refused[ticket.run]
                settle([ticket])
                continue
            if ticket.run in self._behind and not ticket.tries:
                self._behind[ticket.run].append(ticket)  # an earlier record of this run is still on its way
                continue
            if ticket.tries and tickets:
                self._queue.appendleft(ticket)  # what failed before is tried alone
                break
            tickets.append(ticket)
            for record in ticket.records:
                size += len(getattr(record, "value", b"")) + len(getattr(record, "input", b""))
            if ticket.tries:
                break
        return Batch(tickets)

    def _flush(self, batch: Batch) -> None:
        failures = 0
        while batch.tickets and not self._fenced:
            self.sent_at = self.sent_at or time.monotonic()
            try:
                alone = len(batch.tickets) == 1
                left = self._writer.write(
                    self._connected(), batch, ALONE_LOCK_TIMEOUT if alone else LOCK_TIMEOUT
                )
            except Exception as error:  # also one that a record raised while it was packed
                if _is_fenced(error):
                    self._declared_dead(batch)
                elif is_lost(error):
                    failures += 1
                    self._disconnect(error)
                    self._pause(backoff(failures))
                elif len(batch.tickets) > 1:
                    logger.warning(
                        "%s: a batch of %d failed (%s)", self._name, len(batch.tickets), _line(error)
                    )
                    for ticket in batch.tickets:
                        if not self._follows(ticket):
                            self.sent_at = time.monotonic()
                            self._flush(Batch([ticket]))
                    return
                else:
                    self._postpone(batch.tickets[0], error)
                    return
            else:
                if left:
                    batch = Batch(ticket for ticket in batch.tickets if ticket not in left)
                    for ticket in left:
                        self._postpone(
                            ticket, psycopg.errors.LockNotAvailable("somebody holds what it is about")
                        )
                if batch.tickets:
                    self._answer(batch)
                return
        self._fail(batch.tickets, Fenced())

    def _follows(self, ticket: Ticket) -> bool:
        """Whether an earlier ticket of its run is still on its way or was refused, so that it is not its turn."""
        if (refused := self.refused.get(ticket.run)) is not None and not isinstance(ticket.records[0], Park):
            self._fail([ticket], refused)
            return True
        with self._changed:
            line = self._behind.get(ticket.run)
            if line is not None:
                line.append(ticket)
        return line is not None

    def _answer(self, batch: Batch) -> None:
        settle(batch.tickets)
        if self._behind and self._overflow is None:
            for ticket in batch.tickets:
                self._release(ticket.run)
        self._hooks.committed(batch)

    def _postpone(self, ticket: Ticket, error: Exception) -> None:
        """Deal with a ticket that fails alone: to the second lane, later again, or to its caller."""
        now = time.monotonic()
        ticket.deadline = ticket.deadline or now + GIVE_UP_AFTER
        passing = (Vanished, psycopg.errors.LockNotAvailable, psycopg.errors.InvalidSqlStatementName)
        temporary = is_retryable(error) or isinstance(error, passing)
        # A run's own record is never given up for what goes by: the run could not go on without it. Only who sends
        # from outside is told in time that he is blocked.
        outsider = ticket.records[0].outside
        if not temporary or (outsider and now > ticket.deadline) or self._stopping:
            logger.error("%s: cannot be written: %s", self._name, _line(error))
            reason = f"the database refused a record of run {ticket.run}: {_line(error)}"
            if self._keeps_order and not outsider and not isinstance(ticket.records[0], Park):
                self.refused[ticket.run] = Refused(reason)
            self._fail([ticket], DatabaseUnavailable(reason) if temporary else Refused(reason))
            self._release(ticket.run)
            return
        ticket.tries += 1
        with self._changed:
            self._behind.setdefault(ticket.run, deque())
        if self._overflow is not None:
            ticket.call(lambda: self._release(ticket.run))
            self._overflow.submit([ticket])
        else:
            with self._changed:
                pause = min(LONGEST_RETRY, RETRY_AFTER * 2 ** (ticket.tries - 1))
                heapq.heappush(self._delayed, (now + pause, next(self._order), ticket))

    def _release(self, run: int) -> None:
        """The ticket that held up its run is settled: the run's later ones may go on."""
        with self._changed:
            if self._overflow is not None and run in self._overflow.refused:
                self.refused[run] = self._overflow.refused[run]
            for follower in reversed(self._behind.pop(run, deque())):
                self._queue.appendleft(follower)
            self._changed.notify()

    def _declared_dead(self, batch: Batch) -> None:
        logger.error("%s: this worker was declared dead; its runs go on elsewhere", self._name)
        self._fail(batch.tickets, Fenced())
        batch.tickets.clear()
        self.fence()
        self._hooks.fenced()

    def _fail(self, tickets: Iterable[Ticket], error: BaseException) -> None:
        tickets = [ticket for ticket in tickets if not ticket.done]
        for ticket in tickets:
            ticket.error = error
        settle(tickets)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            connect = self._hooks.connect
            self._connection = connect(self._name, self._answer_within, lock_timeout=ALONE_LOCK_TIMEOUT)
        return self._connection

    def _disconnect(self, error: BaseException) -> None:
        logger.warning("%s: connection lost (%s); the batch is sent again", self._name, _line(error))
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._fenced:
                self._changed.wait(seconds)


class Refused(Exception):
    """The database will never take this record; the run it belongs to has to be looked at."""


def _is_fenced(error: BaseException) -> bool:
    return isinstance(error, psycopg.Error) and error.sqlstate == FENCED_STATE


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
