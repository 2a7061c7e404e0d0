"""Hints: after a commit, tell others that there may be something for them. Correctness never needs one.

NOTIFY takes a lock on the whole database at commit, so hints are gathered for a few milliseconds and sent
from a connection of their own, never with a batch. Runs that wait for an end are woken here too.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from perdure.models import CancelReason
from perdure.store import claims
from perdure.store.batch import Batch
from perdure.store.entities import CommandRecord
from perdure.store.records import (
    AnsweredWait,
    ContinueRecord,
    EndRecord,
    EventRecord,
    HandOver,
    IntentRecord,
    MessageRecord,
    Park,
    ProgressRecord,
    PutAway,
    SendRecord,
    StartRecord,
    StepRecord,
    StreamRecord,
    WaitRecord,
)
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

GATHER_SECONDS: Final = 0.003
GATHER_MOST: Final = 0.012
"""Where hints follow each other without a pause, each gathers twice as long as the one before, up to this: whoever hears
them is at work already, and of a caller that starts runs one by one they took 0.12 of 0.45 ms of CPU a start."""
WAITERS_SECONDS: Final = 0.02
"""For so long ends gather before the runs that were put away to wait for them are looked for: one statement instead of
one for each commit, which took a tenth of a run's time, one at a time."""
_NOBODYS_NEWS: Final = frozenset(
    {StepRecord, WaitRecord, AnsweredWait, IntentRecord, ProgressRecord, PutAway}
)
"""What a run records for itself, and nobody else waits for."""
WORK, ENDED, CANCEL, MAIL, SCHEDULE = "work", "ended", "cancel", "mail", "schedule"


class Hints(Service):
    """Gathers and sends hints."""

    name = "hints"

    def __init__(self, engine: Engine) -> None:
        super().__init__(3600.0)
        self._engine = engine
        self._lock = threading.Lock()
        self._ends: list[int] = []
        self._news: list[int] = []
        self._parents: list[int] = []
        self._kinds: set[str] = set()
        self._sent_at = self._look_at = 0.0
        self._gather = GATHER_SECONDS

    def committed(self, batch: Batch) -> None:
        """Look at a batch that was just committed."""
        if not batch.has_but(_NOBODYS_NEWS):
            return
        ends = [record.run for record in (*batch.of(EndRecord), *batch.of(Park))]
        parents = [end.run for end in batch.of(EndRecord) if end.parent]
        news = [record.run for record in batch.of(EventRecord)]
        sent = bool(batch.of(MessageRecord) or batch.of(SendRecord))
        written = bool(batch.of(StreamRecord) or batch.of(CommandRecord))
        queued = any(start.options is not None for start in batch.of(StartRecord)) or bool(
            batch.of(HandOver) or batch.of(ContinueRecord)
        )
        number = self._engine.incarnation.worker
        kinds = {WORK} if queued or batch.woken else set()
        if sent or news or written:
            kinds.add(MAIL)
            # Here it is known at once; what is gathered is what others are told.
            if self._engine.mail.awaited:
                self._engine.mail.wake()
        if any(key >> 32 != number for key in ends):
            kinds.add(ENDED)
        with self._lock:
            first = bool(ends or news) and not (self._ends or self._news)
            self._ends += ends
            self._news += news
            self._parents += parents
            self._kinds |= kinds
        if first or kinds or parents:
            self.wake()

    def work(self) -> None:
        """There is work in a queue."""
        self._add(WORK)

    def ended(self) -> None:
        """Some run has ended."""
        self._add(ENDED)

    def cancel(self) -> None:
        """Some run is to be cancelled."""
        self._add(CANCEL)

    def schedule(self) -> None:
        """Some schedule has changed."""
        self._add(SCHEDULE)

    def tick(self) -> float | None:
        """Send what has gathered."""
        self._engine.sizes.read_if_asked()
        early = self._sent_at + self._gather - time.monotonic()
        if early > 0:
            self._stopping.wait(early)  # the first goes at once; those that follow it gather
            self._gather = min(2 * self._gather, GATHER_MOST)
        else:
            self._gather = GATHER_SECONDS
        self._sent_at = time.monotonic()
        with self._lock:
            kinds, self._kinds = self._kinds, set()
            parents, self._parents = self._parents, []
            look = self.stopping or self._sent_at >= self._look_at
            if look:
                ends, self._ends = self._ends, []
                news, self._news = self._news, []
                self._look_at = self._sent_at + WAITERS_SECONDS
            else:
                ends, news = [], []
            later = self._look_at - self._sent_at if self._ends or self._news else None
        if parents and (children := claims.find_bereaved(self._engine.database, parents)):
            self._engine.cancel(children, CancelReason.ASKED)
        if (ends or news) and claims.wake_waiters(self._engine.database, ends, news):
            kinds |= {WORK, ENDED}
        if kinds:
            self._engine.told(kinds - {MAIL})
            number = self._engine.incarnation.worker
            payload = f"{number} {' '.join(sorted(kinds))}"
            self._engine.database.run("hint", {"channel": self._engine.database.channel, "payload": payload})
        return later

    def close(self) -> None:
        """Send the last ones."""
        self.tick()

    def _add(self, kind: str) -> None:
        with self._lock:
            self._kinds.add(kind)
        self.wake()
