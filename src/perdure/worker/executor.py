"""The executor: the runs that are in memory here, and where their code runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Final

from perdure.core.gate import CANCEL_POSITION, recorded_rows
from perdure.core.loop import LoopHost
from perdure.core.registry import WorkflowDefinition
from perdure.core.run import Run
from perdure.core.threads import ThreadHost
from perdure.models import CancelReason
from perdure.policy import SUSPECT_AFTER
from perdure.store.claims import ClaimedRun

if TYPE_CHECKING:
    from perdure.worker.engine import Engine
    from perdure.worker.incarnation import Incarnation


_LESS_THAN: Final = dict.fromkeys(CancelReason, ()) | {
    CancelReason.AT_ONCE: (CancelReason.ASKED, CancelReason.OUT_OF_TIME)
}
"""A run that was told to stop can still be stopped at once; anything else is told once."""
_TOLD: Final = {reason: reason for reason in CancelReason} | {CancelReason.UNDOING: CancelReason.NONE}
"""What the code is told: not that it undoes what it did, which it does by itself."""


class Executor:
    """Runs the code of runs, on the app's loop or in its threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._runs: dict[int, Run] = {}
        self._expected: set[int] = set()
        self.entered = 0
        """How many times a run has come into memory here."""
        self._base = Context()
        self.suspect: int | None = None
        """Key of the run that is run alone, because it may be what killed its workers."""
        self._suspected_at = 0.0

    def use_context(self, context: Context) -> None:
        """Take these context variables as what the code of every run begins with."""
        self._base = context

    @property
    def alone(self) -> bool:
        """Whether a suspect is to be left alone still: for one lease, then it has shown that it does no harm."""
        return (
            self.suspect is not None and time.monotonic() - self._suspected_at < self._engine.settings.lease
        )

    def has_room(self) -> bool:
        """Whether one more run may be in memory; else it waits in the queue."""
        return len(self._runs) + len(self._expected) < self._engine.settings.concurrency

    @property
    def count(self) -> int:
        """Runs in memory."""
        return len(self._runs)

    @property
    def idle(self) -> bool:
        """Whether no run is in memory, nor about to be."""
        return not self._runs and not self._expected

    def has(self, key: int) -> bool:
        """Whether a run is in memory here, or about to be."""
        return key in self._runs or key in self._expected

    def known(self, keys: Iterable[int]) -> set[int]:
        """Those of these runs that are in memory, or about to be."""
        with self._lock:
            return {key for key in keys if key in self._runs or key in self._expected}

    def expect(self, key: int) -> None:
        """A run is being started here."""
        with self._lock:
            self._expected.add(key)

    def unexpect(self, key: int) -> None:
        """It will not run here after all."""
        with self._lock:
            self._expected.discard(key)

    def adopt(self, incarnation: Incarnation, claimed: ClaimedRun, definition: WorkflowDefinition) -> None:
        """Go on with a run that was just claimed."""
        records = recorded_rows(claimed.steps)
        told = any(record.position == CANCEL_POSITION for record in records)
        run = Run(
            incarnation,
            definition,
            claimed.key,
            claimed.id,
            claimed.input,
            records=records,
            waits=claimed.waits,
            intents=claimed.intents,
            cancel=_TOLD[claimed.cancel],
            claim=claimed.claim,
        )
        run.context, run.seed = claimed.context, claimed.seed
        run.scheduled_at = claimed.scheduled_at
        run.streams, run.written = claimed.streams, claimed.written
        run.queue, run.begun_before = claimed.group[0], claimed.begun
        if told and run.cancel_reason is CancelReason.NONE:
            run.cancel_reason = CancelReason.ASKED
        if claimed.recoveries >= SUSPECT_AFTER:
            self.suspect, self._suspected_at = run.key, time.monotonic()
        if claimed.remaining is not None:
            self._engine.reaper.expect(run.key, claimed.remaining)
        self.launch(run)

    def launch(self, run: Run) -> None:
        """Run the code of a run, on the loop or in a thread of the pool.

        Raises:
            RuntimeError: the system has no thread for it; the run is not in memory.
        """
        self.enter(run)
        try:
            if run.definition.colour:
                self._engine.loops.submit(
                    lambda loop, outbox: LoopHost(run, loop, outbox).start(self.context())
                )
            else:
                host = ThreadHost(run)
                self._engine.threads.run(lambda: host.execute(self.context()))
        except RuntimeError:
            with self._lock:
                self._runs.pop(run.key, None)
            raise

    def execute(self, run: Run) -> None:
        """Run the code of a blocking run in the caller's thread."""
        self.enter(run)
        ThreadHost(run).execute(self.context())

    def enter(self, run: Run) -> None:
        """Note that a run is in memory; an older life of it is void, since this one's claim proves it over."""
        with self._lock:
            older = self._runs.get(run.key)
            self._runs[run.key] = run
            self._expected.discard(run.key)
            self.entered += 1
        if older is not None and older is not run:
            self._close(older)

    def context(self) -> Context:
        """The context for the code of one run: the same for every run, live and on replay."""
        return self._base.copy()

    def forget(self, run: Run) -> None:
        """The run is no longer in memory."""
        with self._lock:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]
        if self.suspect == run.key:
            self.suspect = None
            self._engine.producer.wake()
        if run.parked_reason is not None:
            self._engine.watcher.parked(run.key, run.parked_reason)
        elif self._engine.watcher.watches(run.key):
            self._engine.watcher.wake()  # it goes on elsewhere, or waits
        if run.queue is not None and self._engine.producer.claimer.limited(run.queue):
            self._engine.hints.work()  # a slot is free, for any worker
        self._engine.producer.freed()

    def cancel(self, key: int, reason: CancelReason) -> None:
        """Tell the code of a run to stop."""
        run = self._runs.get(key)
        host = run.host if run is not None else None
        if run is None or host is None or run.cancel_reason not in (CancelReason.NONE, *_LESS_THAN[reason]):
            return
        if run.definition.colour:
            self._engine.loops.call_soon(lambda: host.cancel(reason))
        else:
            host.cancel(reason)

    def unwinding(self) -> bool:
        """Whether code of async runs is still on the stack."""
        with self._lock:
            return any(run.definition.colour for run in self._runs.values())

    def close_all(self, incarnation: Incarnation | None = None) -> None:
        """Take runs off the stack: those of one life, or all."""
        with self._lock:
            runs = [run for run in self._runs.values() if incarnation is None or run.runtime is incarnation]
        for run in runs:
            self._close(run)

    def _close(self, run: Run) -> None:
        run.closed = True
        host = run.host
        if host is not None and run.definition.colour:
            self._engine.loops.call_soon(host.close)
        elif host is not None:
            host.close()
