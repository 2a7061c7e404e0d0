"""What a claim leaves out, or has no owner any more when it is answered, is somebody's all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from perdure import workflow
from perdure.store import claiming
from perdure.sync import Perdure
from tests.api_tools import rows, until

pytestmark = pytest.mark.session

begun: list[str] = []


@workflow(name="passed.brief")
async def brief() -> None:
    await asyncio.sleep(0.05)


@workflow(name="passed.blocking")
def blocking() -> None:
    begun.append("blocking")


@contextmanager
def flood(url: str) -> Iterator[None]:
    """`async` runs that never end coming."""
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            ((queued,),) = rows(url, "select count(*) from perdure.live where status = 2")
            if queued < 1000:
                rows(url, "select perdure.start('passed.brief') from generate_series(1, 500)")
            stop.wait(0.02)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        stop.set()
        feeder.join()
        rows(url, "delete from perdure.live where status = 2")


def test_blocking_runs_are_passed_over_only_where_the_next_look_finds_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full looks are slow here, so quick ones come between, which do not find again what was passed over."""
    look_fully, asked = claiming.look, list[tuple[bool, bool]]()

    def look(*args: Any, **how: Any) -> Any:
        if how["places"]:
            threading.Event().wait(0.3)  # what dead rows under somebody's snapshot do to it
        return look_fully(*args, **how)

    monkeypatch.setattr(claiming, "look", look)
    with (
        Perdure(database_url, worker=False) as client,
        flood(database_url),
        Perdure(database_url, concurrency=300) as app,
    ):
        producer = app.engine.producer
        claim = producer.claimer.claim

        def watched(connection: Any, who: Any, *args: Any, **how: Any) -> Any:
            asked.append(("passed.blocking" in who.workflows, time.monotonic() < producer._full_look_at))
            return claim(connection, who, *args, **how)

        monkeypatch.setattr(producer.claimer, "claim", watched)
        until(lambda: sum(quick for _, quick in asked) > 100)
        client.start("passed.blocking").result(30)
    assert all(whole for whole, quick in asked if quick), (
        "a claim before a quick look left the blocking runs out"
    )


def test_claim_that_is_answered_after_the_app_was_closed_begins_nothing(database_url: str) -> None:
    """The worker is retired, and another has taken the run: it is nobody's to begin here."""
    begun.clear()
    claimed, answered = threading.Event(), threading.Event()
    with Perdure(database_url, worker=False) as client:
        app = Perdure(database_url, grace=0)
        app.open()
        producer, executor = app.engine.producer, app.engine.executor
        claim = producer.claimer.claim

        def late(*args: Any, **how: Any) -> Any:
            runs = claim(*args, **how)
            if runs:
                claimed.set()
                answered.wait(60)
            return runs

        producer.claimer.claim = late  # type: ignore[method-assign]
        handle = client.start("passed.blocking")
        assert claimed.wait(10)
        app.close()
        with Perdure(database_url):
            handle.result(30)
        answered.set()
        producer._thread.join(30)
        assert not producer._thread.is_alive()
        until(lambda: executor.idle)
    assert begun == ["blocking"]
