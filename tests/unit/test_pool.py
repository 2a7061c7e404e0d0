"""The pool gives each piece of work a thread of its own, as long as there are some left."""

from __future__ import annotations

import threading

from perdure.core.pool import Threads
from tests.api_tools import until


def test_two_pieces_of_work_at_once_get_two_threads() -> None:
    """One idle thread is not woken for two of them, the second of which would wait for the first."""
    threads, door = Threads(4), threading.Event()
    threads.call(lambda: None).wait_blocking(5)
    until(lambda: threads._idle)
    blocked = threads.call(lambda: door.wait(10))
    assert threads.call(lambda: 1).wait_blocking(3)
    door.set()
    assert blocked.wait_blocking(5)
