"""The watcher: tells those who wait for the end of a run, in this process, how it ended.

A run that ends here is told at once. For the others it polls, a second apart or when a hint comes, and
only while somebody waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from perdure.errors import PerdureError
from perdure.models import Status
from perdure.store import runs
from perdure.store.signal import Signal, settle
from perdure.worker.service import Service

if TYPE_CHECKING:
    from perdure.worker.engine import Engine

POLL_SECONDS: Final = 1.0
AT_ONCE: Final = 1000
"""Runs asked for in one poll; with more watched, each waits its turn."""


class Watcher(Service):
    """Knows which ends are waited for."""

    name = "watcher"

    def __init__(self, engine: Engine) -> None:
        super().__init__(3600.0)
        self._engine = engine
        self._lock = threading.Lock()
        self._watched: dict[int, list[Signal]] = {}
        self._closed = False

    def watch(self, key: int) -> Signal:
        """A signal whose value will be (status, value), or the reason if the run is parked."""
        signal = Signal()
        if self._closed:
            signal.settle(error=app_closed())
            return signal
        with self._lock:
            self._watched.setdefault(key, []).append(signal)
        if not self._engine.executor.has(key):
            self.wake()
        return signal

    def watches(self, key: int) -> bool:
        """Whether somebody waits for its end."""
        return key in self._watched

    def abandon(self) -> None:
        """The app closes: whoever still waits is told so."""
        with self._lock:
            self._closed = True
            watched, self._watched = self._watched, {}
        for signals in watched.values():
            for signal in signals:
                signal.settle(error=app_closed())

    def unwatch(self, key: int, signal: Signal) -> None:
        """Nobody waits for it any more."""
        if signal.done:
            return  # and is watched no longer
        with self._lock:
            if signal not in self._watched.get(key, ()):  # it was moved to a later life of that run
                key = next((other for other, signals in self._watched.items() if signal in signals), key)
            signals = self._watched.get(key)
            if signals and signal in signals:
                signals.remove(signal)
                if not signals:
                    del self._watched[key]

    def ended(self, key: int, status: Status, value: bytes) -> None:
        """A run has ended; where it went on as new, that is followed."""
        if status is not Status.CONTINUED:
            self._tell(key, (status, value))
            return
        with self._lock:
            if signals := self._watched.pop(key, None):
                self._watched.setdefault(int(value), []).extend(signals)
        self.wake()

    def parked(self, key: int, reason: str) -> None:
        """A run is parked."""
        self._tell(key, reason)

    def tick(self) -> float | None:
        """Ask for the ends that did not happen here."""
        with self._lock:
            keys = [key for key in self._watched if not self._engine.executor.has(key)][:AT_ONCE]
            for key in keys if len(keys) == AT_ONCE else ():
                self._watched[key] = self._watched.pop(key)  # to the end of the line
        if keys:
            for key, status, value in runs.find_ended(self._engine.database, keys):
                self.ended(key, status, value)
            for key, told in runs.find_silent(self._engine.database, keys):
                self._tell(key, told)
        return POLL_SECONDS if keys else None

    def _tell(self, key: int, value: object) -> None:
        with self._lock:
            signals = self._watched.pop(key, None)
        if signals:
            for signal in signals:
                signal.value = value
            settle(signals)


def app_closed() -> PerdureError:
    """The error for those who still wait while the app closes."""
    return PerdureError(
        "the app is closing while this run is awaited; the run goes on, here later or elsewhere"
    )
