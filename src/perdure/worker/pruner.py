"""The pruner: deletes whole ended trees that are kept no longer, where the app has a `Retention`.

Every worker has one. They share a walk through the births, a page at a time: who moves its row on looks at the next
page, and after the last one all rest. It works on a connection of its own, which it has only while there is something to
do, and rests after each page as long as the page took, so that it has at most half of a core, and after a walk long
enough that looking at what is kept is less than a hundredth of one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perdure.retention import Pruned, Retention
from perdure.store.connection import Connection
from perdure.store.pruning import ANSWER_WITHIN, Pruning, Walk
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

logger = logging.getLogger("perdure.pruner")

REST_SECONDS: Final = 300.0
"""From one walk to the next, and from one look whether one is due to the next."""
REST_FOR_EACH: Final = 0.001
"""Seconds of rest for each birth that was looked at and kept: a hundred times what the look takes (measured: about 10 µs)."""
LEAST_PAUSE: Final = 0.05


class Pruner(Service):
    """Deletes what is kept no longer."""

    name = "pruner"

    def __init__(self, engine: Engine, retention: Retention) -> None:
        super().__init__(REST_SECONDS)
        self._engine = engine
        self._walk = Walk(engine.database, retention)
        self._pruning = Pruning(engine.database, retention, lambda work: work(self._connected()))
        self._connection: Connection | None = None
        self._begun = False
        self._gone = Pruned()

    def tick(self) -> float | None:
        """Look at the next page of the walk, if it is due."""
        began = time.monotonic()
        if not self._begun:
            self._walk.begin()
            self._begun = True
        if (taken := self._walk.take(REST_SECONDS)) is None:
            self._tell()
            self.lost()
            return None
        place, kept = taken
        page = self._pruning.page(place)
        try:
            kept += page.looked - self._prune(page.roots)
        except Exception:
            # What cannot be deleted now must not keep the rest: the next walk comes here again.
            self._walk.go_on(page.end, kept + page.looked)
            raise
        if self.stopping:
            return None  # whoever takes the page next finds what is left of it
        if not page.last:
            self._walk.go_on(page.end, kept)
            return max(LEAST_PAUSE, time.monotonic() - began)
        self._walk.forget()
        self._walk.end(max(REST_SECONDS, kept * REST_FOR_EACH))
        self._tell()
        self.lost()
        return None

    def _prune(self, roots: Sequence[int]) -> int:
        """Delete trees until told to stop; return how many."""
        trees = 0
        for gone in self._pruning.prune(roots):
            self._gone += gone
            trees += gone.trees
            if self.stopping:
                break
        return trees

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost

    def _tell(self) -> None:
        if self._gone.runs:
            logger.info("pruned %d runs in %d trees", self._gone.runs, self._gone.trees)
            self._gone = Pruned()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.database.connect("pruner", ANSWER_WITHIN)
        return self._connection
