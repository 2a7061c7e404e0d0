"""A one-shot event between threads and event loops: how the engine's threads answer the user's code.

A batch answers hundreds of callers at once. Each waits for its own signal; `settle` marks them all, and
wakes each event loop once for all of its waiters, since a wake-up costs a write to a pipe.

The order of the two sides is what makes it free of locks: a waiter adds itself, then looks whether the
signal is set; the settler sets it, then takes the waiters. One of the two always sees the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final


class Signal:
    """Something that happens once: pending, then settled for good, perhaps with an error."""

    __slots__ = ("_waiters", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._waiters: list[Any] = []

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Settle it and wake its waiters; a second call changes nothing."""
        if not self.done:
            self.value, self.error = value, error
            settle([self])

    def add(self, waiter: asyncio.Future[None] | threading.Lock | Callable[[], None]) -> None:
        """Add a waiter; the caller must look at `done` afterwards, and may be woken all the same."""
        self._waiters.append(waiter)

    def remove(self, waiter: Any) -> None:
        """Forget a waiter, if it is still there."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def call(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once settled, from whatever thread; at once if it is already."""
        once = _Once(callback)
        self.add(once)
        if self.done:
            once()

    async def wait(self) -> None:
        """Wait without blocking the loop."""
        if self.done:
            return
        future = asyncio.get_running_loop().create_future()
        self.add(future)
        if self.done and not future.done():
            future.set_result(None)
        try:
            await future
        finally:
            if not self.done:
                self.remove(future)

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Wait and block the thread, at most `timeout` seconds; tell whether it is settled."""
        if self.done:
            return True
        lock = threading.Lock()
        lock.acquire()
        self.add(lock)
        if not self.done:
            lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        if not self.done:
            self.remove(lock)
        return self.done

    def take(self) -> list[Any]:
        """Mark it settled, and return its waiters, for `settle` to wake."""
        self.done = True
        waiters, self._waiters = self._waiters, []
        return waiters


class _Once:
    """A callback that runs once, whoever of two threads comes first."""

    __slots__ = ("_calls",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._calls = [callback]

    def __call__(self) -> None:
        try:
            callback = self._calls.pop()
        except IndexError:
            return
        callback()


def settle(signals: Iterable[Signal]) -> None:
    """Settle many signals, whose values are set already, and wake every event loop once."""
    futures: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for signal in signals:
        for waiter in signal.take():
            if isinstance(waiter, asyncio.Future):
                futures.setdefault(waiter.get_loop(), []).append(waiter)
            elif isinstance(waiter, _LOCK):
                waiter.release()
            else:
                waiter()
    here = asyncio._get_running_loop() if futures else None  # noqa: SLF001  (no error, no cost)
    for loop, batch in futures.items():
        if loop is here:
            _resolve(batch)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, batch)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            continue


_LOCK: Final = type(threading.Lock())


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
