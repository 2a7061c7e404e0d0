"""The scheduler: starts the runs of ticks that are due, and of those that have waited for a run to end.

Every worker has one, and whoever comes first takes a schedule; the others skip its row. While nothing happens it costs one
statement every twenty seconds: it sleeps until the next tick it knows of. Hints (a schedule has changed, a run has ended) only
save time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import psycopg

from perdure.core.ticks import tick_start
from perdure.models import CancelReason
from perdure.schedules import Plan, Standing, turn
from perdure.store import ticks
from perdure.store.batch import FENCED_STATE
from perdure.store.connection import Connection, is_lost
from perdure.store.operations import Note
from perdure.store.ticks import SCHEDULES_AT_ONCE, Advance, Round, TickStart
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine
    from perdure.worker.incarnation import Incarnation

logger = logging.getLogger("perdure.scheduler")

POLL_SECONDS: Final = 20.0
UNHINTED_POLL_SECONDS: Final = 10.0
"""Behind a pooler, where no hints arrive."""
LOOK_SECONDS: Final = 0.05
"""Time between two looks, however often it is woken: runs can end thousands of times a second."""
TAKEN_SECONDS: Final = 0.1
"""When to look again after others had locked what is due."""
SPREAD_SECONDS: Final = 0.05
"""Not all workers wake in the same moment for a tick: the first one leaves nothing for the others."""
PUT_OFF_SECONDS: Final = 30.0
"""For so long a schedule is left alone here whose tick could not be started."""
RUNS_AT_ONCE: Final = 1000
"""Runs that one transaction starts."""
LOCK_SECONDS: Final = 1.0


class Scheduler(Service):
    """Turns ticks into runs."""

    name = "scheduler"

    def __init__(self, engine: Engine) -> None:
        super().__init__(UNHINTED_POLL_SECONDS if engine.database.pooler else POLL_SECONDS)
        self._engine = engine
        self._connection: Connection | None = None
        self._looked_at = 0.0
        self._put_off: dict[str, float] = {}
        self.waits = False
        """Whether some tick waits for a run to end: then it is worth telling when one does."""

    def tick(self) -> float | None:
        """Look once, and do what there is to do; at once again while there may be more."""
        engine = self._engine
        incarnation = engine.incarnation
        if incarnation.dead or not engine.accepting:
            return 0.5
        early = self._looked_at + LOOK_SECONDS - time.monotonic()
        if early > 0:
            self._stopping.wait(early)
        now = self._looked_at = time.monotonic()
        self._put_off = {name: until for name, until in self._put_off.items() if until > now}
        found = ticks.look(engine.database, list(self._put_off))
        self.waits = found.waits
        if found.something:
            advances = self._move(incarnation)
            self._announce(advances)
            return 0.0 if advances else TAKEN_SECONDS
        soonest = min(self._put_off.values(), default=now + self.interval) - now
        if found.due_in is not None:
            soonest = min(soonest, found.due_in + random.uniform(0, SPREAD_SECONDS))
        return min(self.interval, soonest)

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    # -- one round -------------------------------------------------------------------------------

    def _move(self, incarnation: Incarnation) -> list[Advance]:
        """Move on what is due; where one of many cannot be, each by itself, so that it hurts nobody else."""
        done = self._attempt(incarnation, SCHEDULES_AT_ONCE)
        if done is not None:
            return done
        advances: list[Advance] = []
        while not self.stopping and len(advances) < SCHEDULES_AT_ONCE:
            done = self._attempt(incarnation, 1)
            if not done:
                break
            advances += done
        return advances

    def _attempt(self, incarnation: Incarnation, limit: int) -> list[Advance] | None:
        """One transaction; None if it failed."""
        round = Round(self._connected(), self._engine.database, incarnation.worker, LOCK_SECONDS)
        budget = [RUNS_AT_ONCE]

        def decide(standings: Sequence[Standing], now: datetime, busy: set[str]) -> list[Advance]:
            found: list[Advance] = []
            for standing in standings:
                if budget[0] <= 0:
                    break  # the others have their turn in the next round
                name = standing.plan.name
                if (
                    advance := self._decided(incarnation, standing, now, name in busy, budget[0])
                ) is not None:
                    budget[0] -= len(advance.starts)
                    found.append(advance)
            return found

        try:
            done = round.move(decide, list(self._put_off), limit)
        except psycopg.Error as error:
            if error.sqlstate == FENCED_STATE:
                incarnation.fenced()
            if is_lost(error) or error.sqlstate == FENCED_STATE:
                raise
            if limit == 1 or len(round.taken) == 1:
                for name in round.taken:
                    self._leave(name, str(error))
            else:
                logger.warning("the ticks of %d schedules are taken one by one: %s", len(round.taken), error)
            return None
        for name, why in round.broken.items():
            self._leave(name, why)
        return done

    def _decided(
        self, incarnation: Incarnation, standing: Standing, now: datetime, busy: bool, most: int
    ) -> Advance | None:
        """What becomes of one schedule; None if that cannot be said here."""
        plan = standing.plan
        try:
            decision = turn(standing, now, busy=busy, most=most)
            starts = [self._start(incarnation, plan, tick, now) for tick in decision.start]
        except Exception as error:  # middleware is the user's
            self._leave(plan.name, f"{type(error).__name__}: {error}")
            return None
        return Advance(plan, decision, starts)

    def _start(self, incarnation: Incarnation, plan: Plan, tick: datetime, now: datetime) -> TickStart:
        return tick_start(incarnation, plan, tick, max(ticks.ready_at(plan, tick), now))

    def _leave(self, name: str, why: str) -> None:
        """Leave a schedule alone for a while: what is due of it stays due."""
        logger.error(
            "schedule %s cannot be moved on here; trying again in %g s: %s", name, PUT_OFF_SECONDS, why
        )
        self._put_off[name] = time.monotonic() + PUT_OFF_SECONDS

    def _announce(self, advances: Sequence[Advance]) -> None:
        """After the commit: tell workers, and stop the runs that are in the way of a tick."""
        if any(advance.starts for advance in advances):
            self._engine.hints.work()
        for plan, decision, _ in advances:
            if decision.stop:
                at_once = plan.overlap == "terminate_other"
                keys = ticks.others(self._engine.database, plan.name, at_once=at_once)
                note = Note(f"schedule {plan.name}", f"overlap={plan.overlap}")
                reason = CancelReason.AT_ONCE if at_once else CancelReason.ASKED
                if keys:
                    self._engine.cancel(keys, reason, note)
            if decision.missed:
                logger.warning(
                    "schedule %s: %d ticks were missed and are too old to be made up",
                    plan.name,
                    decision.missed,
                )

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.database.connect("scheduler", self._engine.settings.lease / 2)
        return self._connection
