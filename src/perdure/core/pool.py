"""A pool of threads for blocking code, which grows while its threads only wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from perdure.store.signal import Signal


class Threads:
    """A pool of threads that grows while its threads only wait.

    At most `limit` threads work at a time; one that waits for something durable gives its place to another,
    so that a thousand parents can wait for a thousand children.
    """

    IDLE_SECONDS: Final = 10.0

    def __init__(self, limit: int) -> None:
        self._limit, self._working, self._idle = limit, 0, 0
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[Callable[[], None]] = deque()
        self._mine = threading.local()

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread, as soon as one is free.

        Raises:
            RuntimeError: the system has no thread for it, and there is none that would take it later.
        """
        with self._changed:
            self._queue.append(work)
            if not self._staff():
                self._queue.pop()
                raise RuntimeError("no thread can be started, and there is none that works")

    @property
    def free(self) -> int:
        """How many more threads could begin to work now."""
        return max(0, self._limit - self._working - len(self._queue))

    def call(self, work: Callable[[], Any]) -> Signal:
        """Run `work` in a thread; the signal has its value or its error."""
        signal = Signal()

        def settle() -> None:
            try:
                value = work()
            except BaseException as error:
                signal.settle(error=error)
            else:
                signal.settle(value)

        self.run(settle)
        return signal

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """While this lasts the thread only waits: its place is free for another."""
        if not getattr(self._mine, "working", False):
            yield
            return
        with self._changed:
            self._working -= 1
            self._staff()
        try:
            yield
        finally:
            with self._changed:
                self._working += 1

    def _staff(self) -> bool:
        """Have somebody take what is queued; whether there is anybody who will."""
        self._changed.notify()
        # A thread that was notified counts as idle until it runs: each idle one stands for one piece of work, no more.
        if len(self._queue) > self._idle and self._working + self._idle < self._limit:
            self._working += 1
            try:
                threading.Thread(target=self._work, name="perdure-work", daemon=True).start()
            except RuntimeError:  # the system has no more: those that are there have to do
                self._working -= 1
        return bool(self._working or self._idle)

    def _work(self) -> None:
        self._mine.working = True
        while True:
            with self._changed:
                while not self._queue or self._working > self._limit:
                    self._working -= 1
                    self._idle += 1
                    woken = self._changed.wait(self.IDLE_SECONDS)
                    self._idle -= 1
                    if not woken and not self._queue:
                        return
                    self._working += 1
                work = self._queue.popleft()
            work()
            work = _nothing


def _nothing() -> None:
    return None
