"""The producer: one poll every two seconds, or at once when somebody hints; claims what there is room for."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perdure.core.ending import end_unrun, park
from perdure.core.marks import marks
from perdure.core.registry import workflows
from perdure.core.run import Run
from perdure.models import CancelReason
from perdure.policy import given_up
from perdure.store import claims
from perdure.store.claiming import WAKE_LIMIT, Claimant, Look
from perdure.store.claims import ClaimedRun
from perdure.store.connection import ANSWER_WITHIN, Connection
from perdure.worker.claimer import Claimer
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine
    from perdure.worker.incarnation import Incarnation

logger = logging.getLogger("perdure.producer")

POLL_SECONDS: Final = 2.0
UNHINTED_POLL_SECONDS: Final = 1.0
"""Behind a pooler, where no hints arrive."""
SOONEST: Final = 0.02
CLAIM_AT_ONCE: Final = 250
"""By 40 at a time, a run without steps took 95 us of the interpreter, by 250 it takes 66."""
LOOK_SECONDS: Final = 0.5
"""How long a look will do while claims find all that there is room for."""
SLOW_LOOK: Final = 0.05
"""Seconds. Behind dead rows, which a snapshot can hold for hours, full looks take longer, up to some seconds."""
LOOK_SHARE: Final = 10
"""Where two in a row did, they take at most a tenth of the time from now on; those in between are quick."""
FEW_GROUPS: Final = 10
"""Where there was work in more of them, a hint is no reason to try them all."""
SUSPECTS_PATIENCE: Final = 30
"""Polls for which a worker that is never idle leaves runs alone that are suspected to kill their workers."""


class Producer(Service):
    """Claims runs for this worker."""

    name = "producer"

    def __init__(self, engine: Engine) -> None:
        super().__init__(UNHINTED_POLL_SECONDS if engine.database.pooler else POLL_SECONDS)
        self._engine = engine
        self._connection: Connection | None = None
        self._doubtful = False
        self._busy_polls = 0
        self._full = self._threadless = False
        self._async_only = False
        """A claim held down to the threads that are free found only `async` runs: until the next look, those alone."""
        self.claimer = Claimer(engine.database)
        self._found: Look | None = None
        self._last: Look | None = None
        self._hinted = self._drained = False
        self._look_at = self._full_look_at = self._full_look_took = 0.0
        self._unanswered = False

    def freed(self) -> None:
        """A run has left memory: there may be room again."""
        if self._threadless and self._engine.threads.free:
            self._threadless = False
            self.wake()
        if self._full and self._engine.executor.count <= self._engine.settings.concurrency * 3 // 4:
            self._full = False
            self.wake()

    def tick(self) -> float | None:
        """Poll once; at once again while there is more."""
        engine = self._engine
        incarnation = engine.incarnation
        if incarnation.dead:
            return 0.1
        if self._doubtful:
            self._reconcile(incarnation)
        self._busy_polls = self._busy_polls + 1 if engine.executor.count else 0
        hinted, self._hinted = self._hinted, False
        if hinted and self._drained and self._last is not None:
            # What has come is mostly of the same kind as what was there last, and a look takes its time too. Only while
            # nothing waits, or it would go before what is more urgent.
            self._take(incarnation, self._last, suspects=False)
        found, fresh = self._look(incarnation, hinted=hinted)
        if fresh:
            # It has found again what was passed over, so that a blocking run waits for a look, not for ever.
            self._async_only = False
        suspects = not self._busy_polls or self._busy_polls % SUSPECTS_PATIENCE == 0
        took, limit = self._take(incarnation, found, suspects=suspects)
        self._drained = took < limit
        if took == limit:
            self._found = found if limit else None
            return 0.0 if took else self._pause(found)
        # Less than there is room for, of what an older look found: it may not have seen all.
        return 0.0 if found.woken == WAKE_LIMIT or not fresh else self._pause(found)

    def hint(self) -> None:
        """Somebody says that there is work in a queue."""
        self._hinted = True
        self.wake()

    def look_again(self) -> None:
        """There is something that only a look finds, such as a cancel."""
        self._look_at = 0.0
        self.wake()

    def _look(self, incarnation: Incarnation, *, hinted: bool) -> tuple[Look, bool]:
        """Look for work; or, where the last claim had all that there was room for, what was found a moment ago will do."""
        found, self._found = self._found, None
        began = time.monotonic()
        if found is not None and began < self._look_at:
            return found, False
        quick = began < self._full_look_at
        self._unanswered = quick and (hinted or self._unanswered)
        queues, connection = self._engine.settings.queues, self._connected()
        # A claim is waited for as long as the lease allows; a look needs no lease.
        connection.answer_within = ANSWER_WITHIN
        found = self.claimer.look(connection, incarnation.worker, queues, quick=quick)
        connection.answer_within = self._engine.settings.lease / 2
        ended = time.monotonic()
        self._look_at = ended + LOOK_SECONDS
        if not quick:
            took, self._full_look_took = min(ended - began, self._full_look_took), ended - began
            self._full_look_at = ended + LOOK_SHARE * took if took > SLOW_LOOK else 0.0
        free = {group: since for group, since in found.groups.items() if not self.claimer.limited(group[0])}
        if 0 < len(free) <= FEW_GROUPS:
            self._last = replace(found, groups=free)
        incarnation.saw(found.now)
        self._engine.paused = found.paused
        for key, reason in found.cancels.items():
            self._engine.executor.cancel(key, reason)
        return found, True

    def _take(self, incarnation: Incarnation, found: Look, *, suspects: bool) -> tuple[int, int]:
        """Claim what a look found, and begin it; how many there are, of how many there is room for."""
        engine = self._engine
        room = min(CLAIM_AT_ONCE, engine.settings.concurrency - engine.executor.count)
        self._full = room <= 0
        names, room = self._fitting(room)
        # While the app is stopping it takes no more, but cancels reach those that still run. Asked after the look, which
        # may have taken its time.
        limit = max(0, room) if engine.accepts_runs() and not engine.executor.alone else 0
        if not limit or not found.groups:
            return 0, limit
        who = Claimant(incarnation.worker, names, engine.settings.versions)
        # Until all of them have begun: whatever fails here, the claim may be committed, and what is ours by the
        # database has to be in memory or to be given back.
        self._doubtful = True
        runs = self.claimer.claim(self._connected(), who, found, limit)
        if not runs and suspects and found.suspects:
            runs = self.claimer.claim(self._connected(), who, found, 1, suspects=True)
        if self.stopping:
            # They are in nobody's memory, and go back to the queue when the worker is retired.
            return 0, limit
        for claimed in runs:
            self._begin(incarnation, claimed)
        self._doubtful = False
        # Only before a full look, which finds again what is passed over; a quick one does not.
        passing = len(runs) == limit < CLAIM_AT_ONCE and time.monotonic() >= self._full_look_at
        if passing and all(workflows[claimed.workflow].colour for claimed in runs):
            self._async_only = True
        return len(runs), limit

    def _pause(self, found: Look) -> float | None:
        """Seconds until the next look: whoever wakes next is not to wait for the poll after."""
        soonest = [due for due in (found.next_due, self.claimer.again) if due is not None]
        if self._unanswered:  # what a hint meant a quick look may not have found
            soonest.append(self._full_look_at - time.monotonic())
        return min(self.interval, *(max(SOONEST, due) for due in soonest)) if soonest else None

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    def _fitting(self, room: int) -> tuple[list[str], int]:
        """The workflows that there is room for, and how much: blocking ones need a thread that is free."""
        known = dict(workflows)
        if all(definition.colour for definition in known.values()):
            return list(known), room
        free = self._engine.threads.free
        self._threadless = not free
        if free and not self._async_only:
            return list(known), min(room, free)
        return [name for name, definition in known.items() if definition.colour], room

    def _begin(self, incarnation: Incarnation, claimed: ClaimedRun) -> None:
        definition = workflows[claimed.workflow]
        if claimed.cancel is CancelReason.AT_ONCE:
            end_unrun(
                Run(incarnation, definition, claimed.key, claimed.id, claimed.input, claim=claimed.claim)
            )
            return
        if given_up(claimed.recoveries, definition.max_recoveries):
            run = Run(incarnation, definition, claimed.key, claimed.id, claimed.input, claim=claimed.claim)
            reason = (
                f"its workers died {claimed.recoveries} times in a row while it ran (max_recoveries="
                f"{definition.max_recoveries}); find out why, then resume it"
            )
            park(run, reason)
            self._engine.watcher.parked(claimed.key, reason)
            return
        if claimed.recoveries:
            logger.info(
                "run %s (%s) goes on here, after %d crashes of its workers",
                claimed.id,
                claimed.workflow,
                claimed.recoveries,
                extra=marks(claimed.id, claimed.workflow),
            )
        self._engine.executor.adopt(incarnation, claimed, definition)

    def _reconcile(self, incarnation: Incarnation) -> None:
        """After a claim without an answer: give back what is ours by the database but unknown here."""
        connection = self._connected()
        owned = claims.owned(connection, self._engine.database, incarnation.worker)
        unknown = sorted(set(owned) - self._engine.executor.known(owned))
        if unknown:
            logger.warning("giving back %d runs of a claim that had no answer", len(unknown))
            claims.hand_over(connection, self._engine.database, incarnation.worker, unknown)
        self._doubtful = False

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.database.connect(
                "producer", self._engine.settings.lease / 2, plan_once=True
            )
        return self._connection
