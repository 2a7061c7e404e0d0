"""Timers keep every wait that somebody still waits for, whatever happens to the list meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perdure.store import claims
from perdure.worker.engine import Engine
from perdure.worker.timers import Timers


class LateLock:
    """A lock that somebody else gets first, once: `first` runs just before it is taken."""

    def __init__(self, lock: threading.Lock, first: Callable[[], None]) -> None:
        self._lock, self._first = lock, [first]

    def __enter__(self) -> None:
        if self._first:
            self._first.pop()()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_wait_that_is_added_while_others_are_purged_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The purge comes between `add` and the lock that `add` waits for: the wait is settled all the same."""
    monkeypatch.setattr(claims, "due", lambda *_: ({}, None))
    timers = Timers(cast("Engine", SimpleNamespace(database=None)))
    for number in range(3):
        timers.add(number, "1", 3600).settle()
    timers._leaving = True
    lock: Any = LateLock(timers._lock, timers._purge)
    timers._lock = lock
    wait = timers.add(9, "1", 0)
    timers.tick()
    assert wait.done
