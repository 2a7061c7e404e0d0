"""Which queues have a size: whoever starts runs on one of them has to ask whether it is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from perdure.store import queues
from perdure.store.database import Database

FRESH_SECONDS: Final = 5.0
"""For so long what was read is not doubted: a size that is new is minded by every process within this."""


class Sizes:
    """The queues that have a size, read again, by another thread, when somebody asks after some time."""

    def __init__(self, database: Database, ask: Callable[[], None]) -> None:
        self._database, self._ask = database, ask
        self._lock = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._read_at = 0.0
        self._asked = False

    def has(self, queue: str) -> bool:
        """Whether a queue has one, as far as it is known."""
        if time.monotonic() > self._read_at + FRESH_SECONDS and not self._asked:
            self._asked = True
            self._ask()
        return queue in self._names

    def read(self) -> None:
        """Read them now."""
        with self._lock:
            self._asked = False
            self._names, self._read_at = queues.sized(self._database), time.monotonic()

    def read_if_asked(self) -> None:
        """Read them if somebody asked."""
        if self._asked:
            self.read()
