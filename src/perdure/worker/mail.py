"""The mail: brings messages, events and streams to those who wait for them in this process.

It looks when a hint comes, when somebody begins to wait, and every second as long as somebody does; for all of them
in one statement. Runs that were put away are woken by whoever sends, in the sender's own transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.core.mailbox import Mailbox
from perdure.models import Status
from perdure.store import entities, messages, streams
from perdure.store import runs as stored
from perdure.store.signal import Signal
from perdure.worker.service import Service
from perdure.worker.watched import AT_ONCE, Watched

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

POLL_SECONDS: Final = 1.0


class Mail(Service):
    """Knows which messages and events are waited for."""

    name = "mail"

    def __init__(self, engine: Engine) -> None:
        super().__init__(3600.0)
        self._engine = engine
        self._lock = threading.Lock()
        self._lines: dict[tuple[int, str], Mailbox] = {}
        self.events: Watched[tuple[int, str]] = Watched()
        """By run and name; settled with (failed, value) of the event, or with how the run ended without it."""
        self.rows: Watched[tuple[int, str, int]] = Watched()
        """By run, stream and place; settled with rows from there on, or with none once the run has ended."""
        self.entities: Watched[tuple[str, str, int]] = Watched()
        """By type, key and version; settled with a later version and its state."""

    def expect(self, mailbox: Mailbox, topic: str) -> None:
        """Look for messages of this topic, as long as the mailbox wants one."""
        with self._lock:
            self._lines[mailbox.run, topic] = mailbox
        self.wake()

    def event_of(self, run: int, key: str) -> Signal:
        """A signal for an event."""
        signal = self.events.add((run, key))
        self.wake()
        return signal

    def rows_of(self, run: int, key: str, place: int) -> Signal:
        """A signal for the rows of a stream."""
        signal = self.rows.add((run, key, place))
        self.wake()
        return signal

    def entity_after(self, type: str, key: str, version: int) -> Signal:
        """A signal for a change of a durable object."""
        signal = self.entities.add((type, key, version))
        self.wake()
        return signal

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._lines or self.events or self.rows or self.entities)

    def tick(self) -> float | None:
        """Look for all of it once."""
        more = self._deliver()
        self._tell()
        return 0.0 if more else POLL_SECONDS if self.awaited else None

    def abandon(self, error: BaseException) -> None:
        """The app closes: whoever still waits is told so."""
        self.events.abandon(error)
        self.rows.abandon(error)
        self.entities.abandon(error)

    def _deliver(self) -> bool:
        """Hand messages over, for a bounded number of lines in each look; tell whether more have come than fit."""
        with self._lock:
            lines, self._lines = list(self._lines.items()), {}  # who still waits afterwards is put back
        more = False
        while lines:
            try:
                more = self._look(lines[:AT_ONCE]) or more
            except BaseException:
                with self._lock:
                    for place, mailbox in lines:
                        self._lines.setdefault(place, mailbox)
                raise
            lines = lines[AT_ONCE:]
        return more

    def _look(self, lines: Sequence[tuple[tuple[int, str], Mailbox]]) -> bool:
        asked = [(place, mailbox, *mailbox.ask(place[1])) for place, mailbox in lines]
        found = messages.find_messages(self._engine.database, [(*place, seen) for place, _, seen, _ in asked])
        more = False
        for place, mailbox, _, look in asked:
            rows = found.get(place, [])
            still = mailbox.arrived(place[1], rows, look)
            if still and self._engine.executor.has(place[0]):
                with self._lock:
                    self._lines.setdefault(place, mailbox)
                more = more or len(rows) == messages.PAGE_MESSAGES
        return more

    def _tell(self) -> None:
        if objects := self.entities.some():
            for object, state in entities.find(self._engine.database, objects).items():
                self.entities.settle(object, state)
        events, rows = self.events.some(), self.rows.some()
        if not events and not rows:
            return
        # How a run ended is asked first: what it made known before that is then seen.
        runs = {run for run, _ in events} | {run for run, _, _ in rows}
        ended = {
            key: (status, value) for key, status, value in stored.find_ended(self._engine.database, runs)
        }
        # Who has been told of a value or of rows is not told of the end too: under the same place somebody else may
        # have begun to wait meanwhile, who has seen neither.
        told = messages.find_events(self._engine.database, events) if events else {}
        for place, value in told.items():
            self.events.settle(place, value)
        for run, key in events:
            if run in ended and (run, key) not in told:
                status, end = ended[run]
                if status is Status.CONTINUED:
                    self.events.move((run, key), (int(end), key))
                    self.wake()
                else:
                    self.events.settle((run, key), str(status))
        items = streams.find_items(self._engine.database, rows) if rows else {}
        for what, found in items.items():
            self.rows.settle(what, found)
        for row in rows:
            if row[0] in ended and row not in items:
                self.rows.settle(row, [])
