"""`perdure.testing.Clock`: a test owns the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import workflow
from perdure.testing import Clock


@workflow
def a_month() -> str:
    began = perdure.now()
    perdure.sync.sleep(timedelta(days=30))
    return str(round((perdure.now() - began) / timedelta(days=1)))


def test_a_month_passes_at_a_word(database_url: str) -> None:
    """A long sleep ends when the clock is advanced, and `now()` agrees."""
    with perdure.sync.Perdure(database_url, grace=0), Clock(database_url) as clock:
        handle = a_month.start()
        with pytest.raises(perdure.WaitTimeout):
            handle.result(timeout=0.1)
        clock.advance(timedelta(days=30))
        assert handle.result(timeout=20) == "30"


def test_time_can_be_set_and_is_given_back(database_url: str) -> None:
    """`set` takes an aware time; afterwards the database's own clock is back."""
    with perdure.sync.Perdure(database_url, grace=0) as app:
        with Clock(database_url) as clock:
            assert clock.set(datetime(2040, 1, 1, tzinfo=UTC)) == datetime(2040, 1, 1, tzinfo=UTC)
            with pytest.raises(ValueError, match="aware"):
                clock.set(datetime(2040, 1, 1))  # noqa: DTZ001  (the point)
        (now,) = app.database.run("next_incarnation")[0][1:2]
        assert abs(now - datetime.now(UTC)) < timedelta(hours=1)


def test_a_clock_that_is_not_owned_cannot_be_moved(database_url: str) -> None:
    """Moving it outside of `with` says how to use it."""
    with perdure.sync.Perdure(database_url, grace=0), Clock(database_url):
        pass
    with pytest.raises(Exception, match="owned"):
        Clock(database_url).advance(1)
