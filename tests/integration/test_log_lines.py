"""Log lines of trouble name the workflow, the run, the step and the attempt, in their text and as fields; others there are none."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import perdure
from perdure import Retry, step, sync, transaction, workflow
from tests.api_tools import rows

pytestmark = pytest.mark.postgres
tries: list[int] = []


@step(name="log.charge", retry=Retry(max_attempts=3, delay=0.01))
async def charge(fails: int) -> int:
    tries.append(1)
    if len(tries) <= fails:
        raise ConnectionError("the bank is away")
    return len(tries)


@transaction(name="log.book")
def book(conn: perdure.Connection) -> None:
    raise KeyError("no such account")


@workflow(name="log.pay")
async def pay(fails: int) -> int:
    return await charge(fails)


@workflow(name="log.keep")
def keep() -> None:
    book()


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == name]


def fields(record: logging.LogRecord) -> tuple[Any, ...]:
    names = ("perdure_run", "perdure_workflow", "perdure_step", "perdure_attempt")
    return tuple(getattr(record, name, None) for name in names)


def test_a_step_that_fails_and_is_tried_again_says_so(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failed attempt, with what comes next; and the run that fails of it."""
    tries.clear()
    with sync.Perdure(database_url) as app, caplog.at_level(logging.INFO, "perdure"):
        app.start("log.pay", [2], id="good").result(timeout=30)
        first, second = lines(caplog, "perdure.step")
        assert fields(first) == ("good", "log.pay", "log.charge", 1)
        assert fields(second) == ("good", "log.pay", "log.charge", 2)
        text = first.getMessage()
        assert text.startswith(
            "step log.charge at 1 of run good (log.pay) failed, attempt 1 of 3, again in 0.0"
        )
        assert text.endswith("ConnectionError: the bank is away")
        assert lines(caplog, "perdure.run") == []

        tries.clear()
        caplog.clear()
        with pytest.raises(ConnectionError):
            app.start("log.pay", [9], id="bad").result(timeout=30)
        last = lines(caplog, "perdure.step")[-1]
        assert "attempt 3 of 3, for good: ConnectionError" in last.getMessage()
        assert fields(last)[3] == 3
        [run] = lines(caplog, "perdure.run")
        assert run.getMessage() == "run bad (log.pay) failed: ConnectionError: the bank is away"
        assert fields(run) == ("bad", "log.pay", None, None)


def test_a_transaction_that_fails_says_so(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with sync.Perdure(database_url) as app, caplog.at_level(logging.INFO, "perdure"):
        with pytest.raises(KeyError):
            app.start("log.keep", id="one").result(timeout=30)
        [record] = lines(caplog, "perdure.step")
        assert fields(record) == ("one", "log.keep", "log.book", 1)
        assert "attempt 1 of 1, for good: KeyError" in record.getMessage()


def test_a_run_that_is_taken_over_says_so(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with sync.Perdure(database_url, worker=False) as app:
        app.start("log.pay", [0], id="orphan")
        rows(database_url, "update perdure.live set recoveries = 1")
    tries.clear()
    with sync.Perdure(database_url) as app, caplog.at_level(logging.INFO, "perdure"):
        assert app.handle("orphan").result(timeout=30) == 1
        [record] = lines(caplog, "perdure.producer")
        assert fields(record)[:2] == ("orphan", "log.pay")
        assert "run orphan (log.pay) goes on here, after 1 crashes" in record.getMessage()
        assert lines(caplog, "perdure.step") == []
