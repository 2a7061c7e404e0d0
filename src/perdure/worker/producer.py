"""The producer: one poll a second, or at once when somebody hints; claims what there is room for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from perdure.core.ending import end_unrun, park
from perdure.core.registry import workflows
from perdure.core.run import Run
from perdure.models import DEFAULT_QUEUE, CancelReason
from perdure.policy import given_up
from perdure.store import claims
from perdure.store.claims import ClaimedRun, Poll
from perdure.store.connection import Connection
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine
    from perdure.worker.incarnation import Incarnation

logger = logging.getLogger("perdure.producer")

POLL_SECONDS: Final = 1.0
SOONEST: Final = 0.02
CLAIM_AT_ONCE: Final = 100
SUSPECTS_PATIENCE: Final = 30
"""Polls for which a worker that is never idle leaves runs alone that are suspected to kill their workers."""


class Producer(Service):
    """Claims runs for this worker."""

    name = "producer"

    def __init__(self, engine: Engine) -> None:
        super().__init__(POLL_SECONDS)
        self._engine = engine
        self._connection: Connection | None = None
        self._doubtful = False
        self._busy_polls = 0
        self._full = self._threadless = False

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
        if incarnation.dead or not engine.accepts_runs():
            return 0.1
        if self._doubtful:
            self._reconcile(incarnation)
        room = min(CLAIM_AT_ONCE, engine.settings.concurrency - engine.executor.count)
        self._full = room <= 0
        names, room = self._fitting(room)
        limit = 0 if engine.executor.alone else max(0, room)
        self._busy_polls = self._busy_polls + 1 if engine.executor.count else 0
        suspects = limit > 0 and (not self._busy_polls or self._busy_polls % SUSPECTS_PATIENCE == 0)
        # Until all of them have begun: whatever fails here, the claim may be committed, and what is ours by the
        # database has to be in memory or to be given back.
        self._doubtful = True
        found = self._poll(incarnation, names, suspects=suspects, limit=limit)
        incarnation.saw(found.now)
        for claimed in found.runs:
            self._begin(incarnation, claimed)
        self._doubtful = False
        for key, reason in found.cancels.items():
            engine.executor.cancel(key, reason)
        if found.woken or (found.runs and len(found.runs) == limit):
            return 0.0
        # Whoever wakes next is not to wait for the poll after.
        return None if found.next_due is None else min(POLL_SECONDS, max(SOONEST, found.next_due))

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    def _poll(self, incarnation: Incarnation, names: list[str], *, suspects: bool, limit: int) -> Poll:
        settings = self._engine.settings
        return claims.poll(
            self._connected(),
            self._engine.database,
            worker=incarnation.worker,
            queues=settings.listen or (DEFAULT_QUEUE,),
            workflows=names,
            versions=settings.versions,
            suspects=suspects,
            limit=limit,
        )

    def _fitting(self, room: int) -> tuple[list[str], int]:
        """The workflows that there is room for, and how much: blocking ones need a thread that is free."""
        known = dict(workflows)
        if all(definition.colour for definition in known.values()):
            return list(known), room
        free = self._engine.threads.free
        self._threadless = not free
        if free:
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
            self._connection = self._engine.database.connect("producer", self._engine.settings.lease / 2)
        return self._connection
