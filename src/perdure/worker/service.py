"""A duty in a thread of its own: tick, wait until it is time or somebody wakes it, tick again."""

from __future__ import annotations

import logging
import threading
from typing import ClassVar

from perdure.policy import backoff

logger = logging.getLogger("perdure.worker")


class Service:
    """Base of the services; a subclass has `tick` and may have `close`.

    Args:
        interval: seconds between ticks, if nobody wakes it.
    """

    name: ClassVar[str]

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"perdure-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        if not self._thread.is_alive() and not self._stopping.is_set():
            self._thread.start()

    def wake(self) -> None:
        """Tick as soon as possible."""
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop ticking; a tick that is under way is awaited."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def tick(self) -> float | None:
        """Do the duty once; return seconds until the next time, or None for the interval."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what it holds; called in its thread at the end."""

    def lost(self) -> None:
        """A tick failed: drop connections that may be broken."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = self._tick()
            self._wake.wait(pause)
            self._wake.clear()
        self.close()

    def _tick(self) -> float | None:
        try:
            pause = self.tick()
        except Exception as error:
            self._failures += 1
            level = logging.WARNING if self._failures < 5 else logging.ERROR
            logger.log(
                level, "%s failed (%d in a row): %s", self.name, self._failures, error, exc_info=level > 30
            )
            self.lost()
            self._stopping.wait(backoff(self._failures))
            return 0.0
        self._failures = 0
        return self.interval if pause is None else pause
