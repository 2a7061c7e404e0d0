"""The mail: brings messages and events to those who wait for them in this process.

It looks when a hint comes, when somebody begins to wait, and every second as long as somebody does; for all of them
in one statement. Runs that were put away are woken by whoever sends, in the sender's own transaction.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from perdure.core.mailbox import Mailbox
from perdure.store import messages, runs
from perdure.store.signal import Signal
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

POLL_SECONDS: Final = 1.0
AT_ONCE: Final = 1000
"""Topics, and events, asked for in one look; with more of them, each waits its turn."""


class Mail(Service):
    """Knows which messages and events are waited for."""

    name = "mail"

    def __init__(self, engine: Engine) -> None:
        super().__init__(3600.0)
        self._engine = engine
        self._lock = threading.Lock()
        self._lines: dict[tuple[int, str], Mailbox] = {}
        self._events: dict[tuple[int, str], list[Signal]] = {}

    def expect(self, mailbox: Mailbox, topic: str) -> None:
        """Look for messages of this topic, as long as the mailbox wants one."""
        with self._lock:
            self._lines[mailbox.run, topic] = mailbox
        self.wake()

    def watch(self, run: int, key: str) -> Signal:
        """A signal whose value will be (failed, value) of an event, or how its run ended without it."""
        signal = Signal()
        with self._lock:
            self._events.setdefault((run, key), []).append(signal)
        self.wake()
        return signal

    def unwatch(self, run: int, key: str, signal: Signal) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            signals = self._events.get((run, key))
            if signals and signal in signals:
                signals.remove(signal)
                if not signals:
                    del self._events[run, key]

    def tick(self) -> float | None:
        """Look for all of it once."""
        more = self._deliver()
        self._tell()
        with self._lock:
            waits = bool(self._lines or self._events)
        return 0.0 if more else POLL_SECONDS if waits else None

    def _deliver(self) -> bool:
        """Hand messages over; tell whether there were more topics than fit into one look."""
        with self._lock:
            lines = list(self._lines.items())[:AT_ONCE]
            for place, _ in lines:
                del self._lines[place]  # to the end of the line, if it is still wanted afterwards
            more = bool(self._lines)
        if not lines:
            return False
        asked = [(place, mailbox, *mailbox.ask(place[1])) for place, mailbox in lines]
        try:
            found = messages.find_messages(
                self._engine.database, [(*place, seen) for place, _, seen, _ in asked]
            )
        except BaseException:
            with self._lock:
                for place, mailbox in lines:
                    self._lines.setdefault(place, mailbox)
            raise
        for place, mailbox, _, look in asked:
            rows = found.get(place, [])
            still = mailbox.arrived(place[1], rows, look)
            if still and self._engine.executor.has(place[0]):
                with self._lock:
                    self._lines.setdefault(place, mailbox)
                more = more or len(rows) == messages.PAGE_MESSAGES
        return more

    def _tell(self) -> None:
        with self._lock:
            wanted = list(self._events)[:AT_ONCE]
            for place in wanted if len(wanted) == AT_ONCE else ():
                self._events[place] = self._events.pop(place)  # to the end of the line
        if not wanted:
            return
        # How a run ended is asked first: what it set before that is then seen.
        ended = {
            key: status
            for key, status, _ in runs.find_ended(self._engine.database, {run for run, _ in wanted})
        }
        for place, value in messages.find_events(self._engine.database, wanted).items():
            self._settle(place, value)
        for run, key in wanted:
            if run in ended:
                self._settle((run, key), str(ended[run]))

    def _settle(self, place: tuple[int, str], value: object) -> None:
        with self._lock:
            signals = self._events.pop(place, [])
        for signal in signals:
            signal.settle(value)
