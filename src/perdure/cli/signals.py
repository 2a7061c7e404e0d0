"""How a worker process is stopped: in order at the first signal, at once at the second.

A handler runs in the main thread, between any two instructions of whatever holds whatever lock, and not at all
while that thread is inside something that blocks. So it only passes the signal's number on, and a thread that
holds nothing decides. That thread also bounds what nobody can: a user's thread that does not end must not
keep a process whose runs have been handed over.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, Protocol

logger = logging.getLogger("perdure.cli")

LEAVE_WITHIN: Final = 5.0
"""Seconds within which the process is gone after the second signal, or after its app was closed."""

_CLOSED: Final = 0


class Closing(Protocol):
    """An app that is being closed."""

    def hurry(self) -> None:
        """Wait for no run any longer."""


class Stopper:
    """Hears SIGTERM and SIGINT.

    Args:
        app: what is to be closed.
        begin: called once, from a thread, at the first signal; it must see to it that the app is closed.
        grace: seconds that closing waits, for the log.
    """

    def __init__(self, app: Closing, begin: Callable[[], object], grace: str) -> None:
        self.code = 0
        """What the process is to exit with."""
        self._app, self._begin, self._grace = app, begin, grace
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="perdure-signals", daemon=True)

    def start(self) -> None:
        """Hear signals from now on; in the main thread."""
        self._thread.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def closed(self) -> None:
        """The app is closed: what is left of the process has some seconds to end."""
        self._numbers.put(_CLOSED)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._numbers.put(number)

    def _watch(self) -> None:
        first = self._numbers.get()
        if first:
            logger.info("%s: stopping in order, within %s; again to stop at once", _name(first), self._grace)
            self._begin()
            self._hurry(self._numbers.get())
        with suppress(queue.Empty):
            while not (third := self._numbers.get(timeout=LEAVE_WITHIN)):
                pass
            self.code = 128 + third
        logging.shutdown()
        os._exit(self.code)

    def _hurry(self, second: int) -> None:
        if second:
            self.code = 128 + second
            logger.warning("%s again: stopping at once", _name(second))
            self._app.hurry()


def _name(number: int) -> str:
    return signal.Signals(number).name
