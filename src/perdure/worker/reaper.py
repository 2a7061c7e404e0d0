"""The reaper: declares workers dead whose lease has run out, and gives their runs back to the queue.

Every worker has one; they may all do it at the same time. It also sweeps up what a crash between two
transactions can have left, and deadlines, which nobody announces.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.core.entities import order_of
from perdure.core.registry import entities as known_entities
from perdure.errors import WorkflowExpired, WorkflowTimeout
from perdure.serial import encode_failure
from perdure.store import entities, workers
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


class Reaper(Service):
    """Buries the dead, requeues their runs, sweeps."""

    name = "reaper"

    def __init__(self, engine: Engine) -> None:
        super().__init__(min(5.0, engine.settings.lease / 3))
        self._engine = engine
        self._connection: Connection | None = None
        self._deadlines: list[float] = []

    def expect(self, seconds: float) -> None:
        """A run of this worker has to end within so many seconds: sweep then, not at the next interval."""
        if seconds < 3600:
            heapq.heappush(self._deadlines, time.monotonic() + max(0.0, seconds) + 0.01)
            self.wake()

    def tick(self) -> float | None:
        """Do all of it once."""
        types = list(known_entities)
        changed, left_behind, dead, orphaned = self._sweep(types)
        if changed:
            self._engine.hints.work()
            self._engine.watcher.wake()
        if left_behind:
            self._carry_out_told(types)
        if dead:
            self._bury()
        if dead or orphaned:
            self._requeue()
        now = time.monotonic()
        while self._deadlines and self._deadlines[0] <= now:
            heapq.heappop(self._deadlines)
        return min(self.interval, self._deadlines[0] - now) if self._deadlines else None

    def _sweep(self, types: Sequence[str]) -> tuple[int, bool, bool, bool]:
        """The one statement of an idle reaper: it sweeps up, and says what else there is to do."""
        given = {"timeout": MISSED_DEADLINE, "expired": EXPIRED, "left": TOLD_SECONDS, "types": types}
        sweep = self._engine.database.statements["sweep"]
        return self._connected().execute(sweep, given, binary=True).fetchone() or (0, False, False, False)

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
