"""Whoever begins to wait while others are being told is told what is there, not that the run has ended without it."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import Topic, sync, workflow
from perdure.store.signal import Signal
from tests.api_tools import until

pytestmark = pytest.mark.postgres
news = Topic("news", str)


@workflow(name="late.speaks")
async def speaks() -> None:
    await perdure.set_event(news, "told")
    await perdure.write_stream("lines", "first")


@pytest.mark.parametrize("what", ["event", "rows"])
def test_a_late_waiter_is_told_too(what: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has ended; a second waiter comes in the moment in which the first is told."""
    with sync.Perdure(database_url) as app:
        handle = app.start("late.speaks")
        assert handle.result(timeout=30) is None
        key = app.runs.get(handle.id).info.key
        mail, late = app.engine.mail, list[Signal]()
        watched: Any = mail.events if what == "event" else mail.rows

        def wait() -> Signal:
            return mail.event_of(key, news.name) if what == "event" else mail.rows_of(key, "lines", 0)

        settle = watched.settle

        def settled(place: Any, value: Any) -> None:
            settle(place, value)
            if not late:
                late.append(wait())

        monkeypatch.setattr(watched, "settle", settled)
        first = wait()
        until(lambda: first.done and late and late[0].done)
        assert late[0].value == first.value
        assert first.value not in ("succeeded", [])
