"""Law 5, as a courtesy: no attempt of a step begins where the worker is not sure of its lease any more."""

from __future__ import annotations

import pytest

from perdure import Retry, step, sync, workflow
from perdure.worker.incarnation import Incarnation
from tests.api_tools import until

pytestmark = pytest.mark.session


class Doubt:
    """Whether the worker doubts its lease."""

    on = False


doubt = Doubt()
attempts: list[bool] = []
"""Of each attempt, whether it began in doubt."""


@step(retry=Retry(max_attempts=3, delay=0.01))
def fails_first() -> int:
    attempts.append(doubt.on)
    if len(attempts) == 1:
        doubt.on = True
        raise ValueError("once")
    return len(attempts)


@workflow
def careful() -> int:
    return fails_first()


def test_no_further_attempt_begins_once_the_lease_is_in_doubt(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The life ends; whoever owns the run next makes the next attempt."""
    attempts.clear()
    real = Incarnation.alive
    monkeypatch.setattr(Incarnation, "alive", lambda self: not doubt.on and real(self))
    with sync.Perdure(database_url, lease=1) as app:
        first = app.engine.incarnation
        handle = sync.start(careful)
        until(lambda: app.engine.incarnation is not first)
        assert attempts == [False]
        doubt.on = False
        assert handle.result(30) == 2
    assert attempts == [False, False]
