"""What is waited for in this process: signals by the thing that settles them, asked for a bounded number at a time."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from perdure.store.signal import Signal, settle

K = TypeVar("K", bound=Hashable)
AT_ONCE: Final = 1000
"""Things asked for in one look; with more of them, each waits its turn."""


class Watched(Generic[K]):
    """Signals by what they wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signals: dict[K, list[Signal]] = {}

    def __bool__(self) -> bool:
        return bool(self._signals)

    def add(self, what: K) -> Signal:
        """A signal that is settled with what becomes of it."""
        signal = Signal()
        with self._lock:
            self._signals.setdefault(what, []).append(signal)
        return signal

    def remove(self, what: K, signal: Signal) -> None:
        """Nobody waits for it with this signal any more."""
        with self._lock:
            if signal not in self._signals.get(what, ()):  # it was moved
                what = next((other for other, signals in self._signals.items() if signal in signals), what)
            signals = self._signals.get(what)
            if signals and signal in signals:
                signals.remove(signal)
                if not signals:
                    del self._signals[what]

    def some(self) -> list[K]:
        """What to ask for now; with more than fits, the next call goes on where this one ended."""
        with self._lock:
            wanted = list(self._signals)[:AT_ONCE]
            for what in wanted if len(wanted) == AT_ONCE else ():
                self._signals[what] = self._signals.pop(what)
        return wanted

    def settle(self, what: K, value: object) -> None:
        """Tell whoever waits for it."""
        with self._lock:
            signals = self._signals.pop(what, [])
        for signal in signals:
            signal.value = value
        settle(signals)

    def move(self, what: K, to: K) -> None:
        """Whoever waited for the one now waits for the other."""
        with self._lock:
            if signals := self._signals.pop(what, None):
                self._signals.setdefault(to, []).extend(signals)

    def abandon(self, error: BaseException) -> None:
        """Tell everybody that nothing will come."""
        with self._lock:
            every, self._signals = self._signals, {}
        for signals in every.values():
            for signal in signals:
                signal.settle(error=error)
