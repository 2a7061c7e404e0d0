"""What tests of schedules share: workflows that say which tick they are for, and a time that is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import perdure
from perdure import Schedule, workflow
from perdure.core.registry import schedules as declared
from perdure.testing import Clock
from tests.api_tools import rows, until

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday."""
HOUR = timedelta(hours=1)
LEASE = timedelta(days=365)


@workflow
def note(word: str = "") -> str:
    """Ends at once."""
    at = perdure.info().scheduled_at
    return f"{word}{at:%H:%M}" if at else word


@workflow
def held(word: str = "") -> str:
    """Goes on until it is told to end."""
    perdure.sync.receive("end")
    return word


@contextmanager
def at_noon(url: str, **settings: Any) -> Iterator[tuple[perdure.sync.Perdure, Clock]]:
    """A worker, while it is noon until the test says otherwise; its lease does not end when hours pass at a word."""
    with perdure.sync.Perdure(url, grace=0, lease=LEASE, **settings) as app, Clock(url) as clock:
        clock.set(NOON)
        yield app, clock


@contextmanager
def away_at_noon(url: str) -> Iterator[tuple[perdure.sync.Perdure, Clock]]:
    """A client, while it is noon and no worker is there."""
    with at_noon(url, worker=False) as both:
        yield both


@contextmanager
def forgotten() -> Iterator[None]:
    """What is declared in the block is not after it: the registry is the whole process's."""
    before = dict(declared)
    try:
        yield
    finally:
        declared.clear()
        declared.update(before)


def hourly(workflow: Any = note, name: str = "hourly", **how: Any) -> Schedule:
    """A schedule for every full hour."""
    return Schedule(workflow, "0 * * * *", name=name, **how)


def ticks_of(url: str, name: str = "hourly") -> list[str]:
    """The ticks that have a run, by hour and minute, in order."""
    found = rows(
        url, "select scheduled_at from perdure.runs where schedule = %s and not superseded order by 1", name
    )
    return [f"{at.astimezone(UTC):%H:%M}" for (at,) in found]


def until_ticks(url: str, *ticks: str, name: str = "hourly") -> None:
    """Wait until exactly these ticks have runs."""
    until(lambda: ticks_of(url, name) == list(ticks))


def settled(url: str, name: str = "hourly") -> None:
    """Wait until some worker has decided on everything that is due."""
    until(
        lambda: rows(
            url,
            "select 1 from perdure.schedules where name = %s and (next is null or next > perdure.clock())",
            name,
        )
    )


def end(app: perdure.sync.Perdure, id: str) -> None:
    """Have a held run end, and wait until it has."""
    handle = app.handle(id)
    handle.send("end", None)
    handle.result(timeout=20)


def counts(app: perdure.sync.Perdure, name: str = "hourly") -> tuple[int, int]:
    """How many ticks of a schedule were skipped and missed."""
    info = app.schedules.get(name)
    return info.skipped, info.missed


def statuses(url: str, read: Callable[[tuple[Any, ...]], Any] = lambda row: row[0]) -> list[Any]:
    """The statuses of all runs, by id."""
    return [read(row) for row in rows(url, "select status, id from perdure.run_list order by id")]
