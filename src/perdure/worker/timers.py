"""Timers: waits of runs that are still in memory, and the moment when a waiting run is put away.

This process's clock only says when to ask: whether a wait is over the database decides, so that workers
whose clocks are wrong still agree, and a test can own the time.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING, Final

from perdure.core.run import Run
from perdure.store import claims
from perdure.store.signal import Signal
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

ASK_AGAIN: Final = 0.02
LONGEST_PAUSE: Final = 60.0
PURGE_FROM: Final = 500


class Timers(Service):
    """Asks for due waits, and has waiting runs put away."""

    name = "timers"

    def __init__(self, engine: Engine) -> None:
        super().__init__(LONGEST_PAUSE)
        self._engine = engine
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._waits: list[tuple[float, int, int, str, Signal]] = []
        self._leavers: list[tuple[float, int, Run]] = []
        self._next = 0.0
        self._purge_at = PURGE_FROM
        self._leaving = False

    def add(self, run: int, position: str, seconds: float) -> Signal:
        """A signal that is settled once the wait at this position is over."""
        signal = Signal()
        self._push(self._waits, (time.monotonic() + seconds, next(self._order), run, position, signal))
        return signal

    def consider(self, run: Run, seconds: float) -> None:
        """Look, in so many seconds, whether the run can be put away.

        One look is planned for each run, whatever number of waits it begins meanwhile: it looks again later where
        the last of them has not waited long enough.
        """
        run.leave_at = at = time.monotonic() + seconds
        if run.consider_at is None or at < run.consider_at:
            run.consider_at = at
            self._push(self._leavers, (at, next(self._order), run))

    def ask_soon(self, run: int) -> None:
        """Ask for the waits of a run now: the database says that one of them is over, whatever the clock here says."""
        now = time.monotonic()
        with self._lock:
            self._waits[:] = [(now if wait[2] == run else wait[0], *wait[1:]) for wait in self._waits]
            heapq.heapify(self._waits)
            self._next = now
        self.wake()

    def tick(self) -> float | None:
        """Settle the waits that are over, and have those who only wait put away."""
        now = time.monotonic()
        with self._lock:
            leavers = [run for at, _, run in _pop(self._leavers, now) if run.consider_at == at]
            asked = [wait for wait in _pop(self._waits, now) if not wait[4].done]
            self._purge()
        for run in leavers:
            self._put_away(run)
            self._leaving = True
        if asked:
            try:
                self._ask(asked)
            except BaseException:
                for _, _, run, position, signal in asked:
                    if not signal.done:
                        self._push(self._waits, (now + ASK_AGAIN, next(self._order), run, position, signal))
                raise
        with self._lock:
            self._next = min(
                [line[0][0] for line in (self._waits, self._leavers) if line], default=now + LONGEST_PAUSE
            )
        return max(0.0, self._next - time.monotonic())

    def _purge(self) -> None:
        """Forget the waits of runs that were put away: an hour-long one would stay here for the hour."""
        if len(self._waits) > self._purge_at or (self._leaving and not self._leavers):
            self._leaving = False
            # In place: `_push` may have taken hold of this list already, and waits for the lock.
            self._waits[:] = [wait for wait in self._waits if not wait[4].done]
            heapq.heapify(self._waits)
            self._purge_at = max(PURGE_FROM, len(self._waits) * 5 // 4)

    def _ask(self, asked: list[tuple[float, int, int, str, Signal]]) -> None:
        remaining, now = claims.due(
            self._engine.database, [(run, position) for _, _, run, position, _ in asked]
        )
        if now is not None:
            self._engine.incarnation.saw(now)  # whoever wakes now finds that it is as late as it slept
        for _, _, run, position, signal in asked:
            # A wait without a row was answered or forgotten: whoever still waits for it may go on and look.
            left = remaining.get((run, position), 0.0)
            if left <= 0:
                signal.settle()
            else:
                at = time.monotonic() + max(left, ASK_AGAIN)
                with self._lock:
                    heapq.heappush(self._waits, (at, next(self._order), run, position, signal))

    def _put_away(self, run: Run) -> None:
        host, run.consider_at = run.host, None
        if run.leave_at > time.monotonic():
            self.consider(run, run.leave_at - time.monotonic())
            return
        if run.closed or host is None or not self._engine.executor.has(run.key):
            return
        if run.definition.colour:
            self._engine.loops.call_soon(host.try_to_leave)
        else:
            host.try_to_leave()

    def _push(self, line: list, entry: tuple) -> None:  # type: ignore[type-arg]
        with self._lock:
            heapq.heappush(line, entry)
            sooner = entry[0] < self._next
            if sooner:
                self._next = entry[0]
        if sooner:
            self.wake()


def _pop(line: list, now: float) -> list:  # type: ignore[type-arg]
    due = []
    while line and line[0][0] <= now:
        due.append(heapq.heappop(line))
    return due
