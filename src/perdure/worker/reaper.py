"""The reaper: declares workers dead whose lease has run out, and gives their runs back to the queue.

Every worker has one; they may all do it at the same time. It also sweeps up what a crash between two
transactions can have left, and deadlines, which nobody announces.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from perdure.core.entities import order_of
from perdure.core.registry import entities as known_entities
from perdure.errors import WorkflowExpired, WorkflowTimeout
from perdure.serial import encode_failure
from perdure.store import entities, workers
from perdure.store.arrays import Texts
from perdure.store.connection import Connection
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

logger = logging.getLogger("perdure.reaper")

MISSED_DEADLINE = encode_failure(WorkflowTimeout("the run did not begin within its timeout"))
EXPIRED = encode_failure(WorkflowExpired("the run did not begin before it expired"))


TOLD_SECONDS: Final = 5.0
"""After so long a told command is taken for left behind; carried out twice at once it is still done once."""
TOLD_AT_ONCE: Final = 500
SHARE: Final = 10
"""A sweep may take a tenth of the time: behind dead rows that a snapshot holds for hours it takes seconds."""
FORESIGHT: Final = 3600.0
"""Deadlines that are further away are found by a sweep."""
PURGE_FROM: Final = 1000


class Reaper(Service):
    """Buries the dead, requeues their runs, sweeps."""

    name = "reaper"

    def __init__(self, engine: Engine) -> None:
        super().__init__(min(5.0, engine.settings.lease / 3))
        self._engine = engine
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        self._line: list[tuple[float, int]] = []
        self._due = False
        self._sweep_at = self._rested_at = 0.0

    def expect(self, run: int, seconds: float) -> None:
        """A run of this worker has to end within so many seconds: sweep then, not at the next interval."""
        if seconds >= FORESIGHT:
            return
        at = time.monotonic() + max(0.0, seconds) + 0.01
        with self._lock:
            self._deadlines[run] = at
            heapq.heappush(self._line, (at, run))
            first = self._line[0][1] == run
        if first:
            self.wake()

    def over(self, run: int) -> None:
        """A run has ended: its deadline is nothing to sweep for."""
        if run in self._deadlines:
            with self._lock:
                self._deadlines.pop(run, None)
                if len(self._line) > 2 * len(self._deadlines) + PURGE_FROM:
                    self._line = [(at, key) for key, at in self._deadlines.items()]
                    heapq.heapify(self._line)

    def tick(self) -> float | None:
        """Sweep, if it is time to or a deadline has passed, and do what there is to do."""
        now = time.monotonic()
        self._due = self._passed(now) or self._due
        if now >= (self._rested_at if self._due else self._sweep_at):
            self._sweep_up()
            self._due = False
        with self._lock:
            deadline = self._line[0][0] if self._line else self._sweep_at
        return max(0.0, min(self._rested_at if self._due else self._sweep_at, deadline) - time.monotonic())

    def _passed(self, now: float) -> bool:
        """Whether the deadline of a run has passed that has not ended."""
        passed = False
        with self._lock:
            while self._line and self._line[0][0] <= now:
                at, run = heapq.heappop(self._line)
                if self._deadlines.get(run) == at:
                    del self._deadlines[run]
                    passed = True
        return passed

    def _sweep_up(self) -> None:
        types = list(known_entities)
        began = time.monotonic()
        changed, left_behind, dead, lease_ends, orphaned = self._sweep(types)
        ended = time.monotonic()
        # Who lives renews its lease before then; who does not is found as soon as it is over.
        soon = self.interval if lease_ends is None else min(self.interval, lease_ends + 0.01)
        self._rested_at = ended + SHARE * (ended - began)
        self._sweep_at = max(ended + soon, self._rested_at)
        if changed:
            self._engine.hints.work()
            self._engine.watcher.wake()
        if left_behind:
            self._carry_out_told(types)
        if dead:
            self._bury()
        if dead or orphaned:
            self._requeue()

    def _sweep(self, types: Sequence[str]) -> tuple[int, bool, bool, float | None, bool]:
        """The one statement of an idle reaper: it sweeps up, and says what else there is to do."""
        given = {"timeout": MISSED_DEADLINE, "expired": EXPIRED, "left": TOLD_SECONDS, "types": Texts(types)}
        (row,) = self._engine.database.fetch(self._connected(), "sweep", given)
        return cast("tuple[int, bool, bool, float | None, bool]", row)

    def _bury(self) -> None:
        for worker in workers.bury(self._connected(), self._engine.database):
            logger.warning("worker %d is dead: its lease ran out", worker)

    def _requeue(self) -> None:
        if requeued := workers.requeue_orphans(self._connected(), self._engine.database):
            logger.warning("%d runs of dead workers go on elsewhere", len(requeued))
            self._engine.hints.work()

    def _carry_out_told(self, types: Sequence[str]) -> None:
        """What commands told other objects, and whoever told it has died: carried out by anybody who has the code."""
        found = entities.find_told(self._engine.database, types, TOLD_SECONDS, TOLD_AT_ONCE)
        orders = [(id, order_of(type, key, command, args)) for id, type, key, command, args in found]
        self._engine.incarnation.carry_out((id, order) for id, order in orders if order is not None)

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.database.connect("reaper", 30.0)
        return self._connection
