"""A system that has no more threads, for a while: nothing that was claimed stays behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from perdure import workflow
from perdure.core.pool import Threads
from perdure.sync import Perdure
from tests.api_tools import rows, until

pytestmark = pytest.mark.session


@workflow(name="threadless.brief")
async def brief() -> int:
    return 1


@workflow(name="threadless.blocking")
def blocking() -> int:
    return 1


class Refusing:
    """`Thread.start`, which fails for threads of a name, so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
        self.left, start = times, threading.Thread.start

        def refusing(thread: threading.Thread) -> None:
            if thread.name == name and self.left:
                self.left -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refusing)


@pytest.mark.parametrize(
    ("flow", "thread"), [("threadless.brief", "perdure-loop"), ("threadless.blocking", "perdure-work")]
)
def test_runs_that_no_thread_could_be_started_for_begin_later(
    flow: str, thread: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are given back, and no thread's place is lost."""
    with Perdure(database_url, worker=False) as client:
        handles: list[Any] = [client.start(flow) for _ in range(10)]
        refusing = Refusing(monkeypatch, thread, 3)
        with Perdure(database_url, threads=3) as app:
            for handle in handles:
                assert handle.result(30) == 1
            until(lambda: app.engine.threads.free == 3)
    assert refusing.left == 0
    assert rows(database_url, "select count(*) from perdure.live") == [(0,)]


def test_work_waits_for_a_thread_that_works_where_no_other_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Threads(3)
    door, did = threading.Event(), list[str]()
    pool.call(lambda: door.wait(20))
    Refusing(monkeypatch, "perdure-work", 1)
    pool.run(lambda: did.append("second"))
    door.set()
    until(lambda: did == ["second"])
