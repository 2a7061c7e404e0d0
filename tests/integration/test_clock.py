"""One clock: the database's, through one function; a worker whose own clock is hours off changes nothing.

A test that replaces the function owns the time of timers, leases, deadlines and delays. And nothing in the SQL asks
another clock: what does, is named here with its reason.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

import perdure
from perdure import WorkflowTimeout, step, sync, workflow
from perdure.sync import Perdure
from perdure.testing.clock import Clock
from tests.api_tools import rows, until
from tests.protocol_tools import RawWorker, step_of

door = threading.Event()

LONGER_THAN_ANY_LEAP = 30 * 366 * 24 * 3600.0
"""Seconds of a lease: a worker whose clock leaps beyond its own is declared dead, by whoever looks first."""

OTHER_CLOCKS = re.compile(
    r"\b(?:now\s*\(|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|"
    r"current_timestamp|current_time\b|current_date|localtimestamp|localtime\b)",
    re.IGNORECASE,
)
ALLOWED = {
    ("0001_core.sql", "as 'select pg_catalog.now()';"): "this is the one function",
    (
        "0001_core.sql",
        "if began <> pg_catalog.transaction_timestamp() then",
    ): "tells one transaction from another, and compares no time",
    (
        "transactions.sql",
        "select pg_catalog.transaction_timestamp() as began, set_config('synchronous_commit', 'on', true) from held",
    ): "the same: which transaction this is",
    (
        "transactions.sql",
        "select pg_catalog.transaction_timestamp() as began, set_config('synchronous_commit', 'on', true)",
    ): "the same: which transaction this is",
    (
        "transactions.sql",
        "case when pg_catalog.transaction_timestamp() = %(began)s::timestamptz then %(worker)s::bigint",
    ): "the same: which transaction this is",
    (
        "transactions.sql",
        "select pg_catalog.transaction_timestamp() = %(began)s::timestamptz",
    ): "the same: which transaction this is",
    (
        "0006_from_sql.sql",
        "select (lpad(to_hex(floor(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7'",
    ): "the stamp of a UUIDv7, by which nothing is decided",
    ("schema.sql", "applied timestamptz not null default now()"): "the ledger is older than the function",
    (
        "testing.sql",
        "insert into {schema}.owned_clock values (now());",
    ): "an owned clock starts at the present",
    ("testing.sql", "as 'select pg_catalog.now()';"): "gives the function back",
}


def test_no_other_clock_is_asked_in_the_sql() -> None:
    """Every line of SQL that names another clock is known, with the reason."""
    folder = files("perdure") / "sql"
    found = {
        (file.name, line.strip())
        for place in (folder, folder / "migrations")
        for file in place.iterdir()
        if file.name.endswith(".sql")
        for line in file.read_text("utf-8").splitlines()
        if OTHER_CLOCKS.search(line.partition("--")[0])
    }
    assert {place for place in found if place not in ALLOWED} == set()


def test_no_wall_clock_of_the_process_is_asked_in_the_code() -> None:
    """Only ids (UUIDv7), and the command line for people, read this machine's wall clock; nothing is decided by it."""
    wall = re.compile(r"\btime\.time(?:_ns)?\(|datetime\.(?:now|utcnow|today)\(|date\.today\(")
    found: set[str] = set()
    folders = [files("perdure")]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                folders += [entry] if entry.name != "cli" else []
            elif entry.name.endswith(".py"):
                lines = entry.read_text("utf-8").splitlines()
                found |= {
                    line.strip() for line in lines if wall.search(line) and "raise ValueError" not in line
                }
    assert [line for line in found if not line.startswith("stamp = ")] == []


@step(name="clock.wait_for_door")
def wait_for_door() -> str:
    door.wait(20)
    return "open"


@workflow(name="clock.sleeps")
def sleeps(hours: float) -> str:
    sync.sleep(timedelta(hours=hours))
    return "slept"


@workflow(name="clock.sleeps_until")
def sleeps_until(moment: datetime) -> str:
    sync.sleep_until(moment)
    return "slept"


@workflow(name="clock.works")
def works() -> str:
    return wait_for_door()


@workflow(name="clock.tells")
def tells() -> list[datetime]:
    before = perdure.now()
    sync.sleep(timedelta(days=30))
    return [before, perdure.now()]


def waiting(url: str) -> bool:
    return bool(rows(url, "select 1 from perdure.live where status = 4"))


@pytest.mark.parametrize("kind", ["for", "until"])
def test_a_timer_obeys_the_clock(kind: str, database_url: str) -> None:
    """A sleep of a day is over when the clock says so, and not before."""
    with Perdure(database_url, lease=3600 * 100, grace=0), Clock(database_url) as clock:
        if kind == "for":
            handle = sync.start(sleeps, 24)
        else:
            handle = sync.start(sleeps_until, clock.advance(0) + timedelta(hours=24))
        until(lambda: waiting(database_url))
        clock.advance(timedelta(hours=23, minutes=59))
        with pytest.raises(perdure.WaitTimeout):
            handle.result(1.2)
        clock.advance(timedelta(minutes=1))
        assert handle.result(10) == "slept"


def test_a_delay_obeys_the_clock(database_url: str) -> None:
    """A delayed start stays scheduled until the clock says so."""
    with Perdure(database_url, lease=3600 * 100, grace=0), Clock(database_url) as clock:
        handle = sync.start(sleeps.options(delay=timedelta(hours=2)), 0)
        clock.advance(timedelta(hours=1, minutes=59))
        assert handle.status() == "scheduled"
        clock.advance(timedelta(minutes=1))
        assert handle.result(10) == "slept"


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "unbegun"])
def test_a_deadline_obeys_the_clock(begun: bool, database_url: str) -> None:
    """A run ends with WorkflowTimeout when the clock has passed its deadline, whether or not it began."""
    with Perdure(database_url, lease=3, grace=0), Clock(database_url) as clock:
        options = {"timeout": timedelta(hours=1)}
        flow = sleeps.options(**options) if begun else sleeps.options(**options, queue="nobody")  # type: ignore[arg-type]
        handle = sync.start(flow, 24)
        until(lambda: not begun or waiting(database_url))
        clock.advance(timedelta(minutes=59))
        with pytest.raises(perdure.WaitTimeout):
            handle.result(1.2)
        clock.advance(timedelta(minutes=1))
        with pytest.raises(WorkflowTimeout):
            handle.result(10)


def test_a_lease_obeys_the_clock(database_url: str) -> None:
    """A worker is declared dead when the clock has passed its lease, and not a moment earlier."""
    with RawWorker(database_url, lease=10) as worker, Clock(database_url) as clock:
        rows(database_url, "update perdure.workers set expires = perdure.clock() + lease")
        run = worker.start()
        clock.advance(10)
        assert worker.bury() == []
        worker.write(step_of(run))
        clock.advance(0.001)
        assert worker.bury() == [worker.number]
        assert worker.requeue() == [run]


def test_stamps_obey_the_clock(database_url: str) -> None:
    """Births, records and ends are stamped by it."""
    with Perdure(database_url, lease=LONGER_THAN_ANY_LEAP, grace=0), Clock(database_url) as clock:
        moment = clock.set(datetime(2040, 2, 29, tzinfo=UTC))
        assert sync.start(tells.options(id="x")).created
        until(lambda: waiting(database_url))
        stamps = rows(
            database_url, "select created from perdure.runs union all select recorded from perdure.steps"
        )
        assert {stamp for (stamp,) in stamps} == {moment}


def test_now_of_a_workflow_is_the_databases(database_url: str) -> None:
    """`perdure.now()` before and after a sleep of a month is a month apart."""
    with Perdure(database_url, lease=3600 * 10_000, grace=0), Clock(database_url) as clock:
        handle = sync.start(tells)
        until(lambda: waiting(database_url))
        clock.advance(timedelta(days=30))
        before, after = handle.result(10)
        # Between two answers of the database the worker counts itself, by a clock that does not stand still.
        assert abs(after - before - timedelta(days=30)) < timedelta(seconds=2)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_clock_of_the_worker_changes_nothing(
    hours: int, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its wall clock hours off, a worker sleeps, keeps its lease and tells the time as any other."""
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + hours * 3600 * 10**9)
    door.clear()
    with Perdure(database_url, lease=1, grace=0) as app:
        began = time.monotonic()
        life = app.runtime
        working = sync.start(works)
        assert sync.start(sleeps, 0.3 / 3600).result(10) == "slept"
        assert 0.3 <= time.monotonic() - began < 2
        beats = "select expires - perdure.clock() > interval '0.5 s' from perdure.workers"
        until(lambda: time.monotonic() - began > 1.2)
        assert rows(database_url, beats) == [(True,)]
        assert abs(perdure.now() - rows(database_url, "select now()")[0][0]) < timedelta(seconds=1)
        door.set()
        assert working.result(10) == "open"
        assert app.runtime is life
    assert rows(database_url, "select 1 from perdure.takeovers") == []
