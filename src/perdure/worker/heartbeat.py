"""The heartbeat: renews the worker's lease, and stops the worker in time when that fails.

The worker counts its lease from the moment it *sent* the last renewal that was answered, on a clock that
goes on while the machine sleeps. It does not renew while its journal is stuck: a heartbeat that outlives
the journal would keep runs from workers that can still write.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from perdure.store import workers
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.worker.incarnation import Incarnation, boot_time
from perdure.worker.service import Service, logger


class Heartbeat(Service):
    """Renews the lease of the current incarnation."""

    name = "heartbeat"

    def __init__(self, database: Database, incarnation: Callable[[], Incarnation], lease: float) -> None:
        super().__init__(lease / 3)
        self._database, self._incarnation, self._lease = database, incarnation, lease
        self._connection: Connection | None = None

    def tick(self) -> float | None:
        """Renew, or find out that it is too late."""
        incarnation = self._incarnation()
        if incarnation.dead:
            return 0.05
        if not incarnation.alive():
            logger.error("the lease of worker %d could not be renewed in time; it stops", incarnation.worker)
            incarnation.fenced()
            return 0.05
        oldest = incarnation.oldest_unanswered()
        if oldest is not None and time.monotonic() - oldest > self._lease / 2:
            logger.error(
                "the journal has had no answer for %.1f s; the lease is not renewed",
                time.monotonic() - oldest,
            )
            return self._lease / 10
        sent = boot_time()
        now = workers.renew(self._connected(), self._database, incarnation.worker)
        if now is None:
            logger.error("worker %d was declared dead", incarnation.worker)
            incarnation.fenced()
            return 0.05
        if not incarnation.alive():
            incarnation.fenced()  # it was over before this answer came, and its runs have begun to unwind
            return 0.05
        incarnation.renewed(sent, now)
        return None

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("heartbeat", self._lease / 3)
        return self._connection
