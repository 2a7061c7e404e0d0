"""A cancel of the whole run, in both colours, while its branches wait, work, race or are bounded by a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import Cancelled, WorkflowCancelled, WorkflowTimeout, step, sync, workflow
from tests.api_tools import rows, until

PROMPTLY = 10.0
"""Seconds in which a run that is told to stop has ended; what it waits for takes a minute and more."""

events: list[str] = []
entered = threading.Event()
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    events.clear()
    entered.clear()
    door.clear()


@step
async def note(text: str) -> None:
    events.append(text)


@step
async def endless() -> None:
    entered.set()
    await asyncio.sleep(120)


@step
def held() -> None:
    entered.set()
    door.wait(30)


@step
def after_entered() -> None:
    entered.wait(20)


@workflow
async def child() -> None:
    await perdure.sleep(120)


@workflow
def child_blocking() -> None:
    sync.sleep(120)


async def clean(waiting: Any) -> None:
    """Wait, and note with a step that the word to stop has come."""
    try:
        await waiting
    except asyncio.CancelledError:
        await note("told")
        raise


def clean_blocking(waiting: Callable[[], Any]) -> None:
    """Wait, and note with a step that the word to stop has come."""
    try:
        waiting()
    except Cancelled:
        sync.run_step(note, "told")
        raise


async def bounded(waiting: Any) -> None:
    """Wait, for so long."""
    async with perdure.timeout(3600):
        await waiting


async def item(number: int) -> None:
    """A branch of a map."""
    await clean(perdure.sleep(120))


def item_blocking(number: int) -> None:
    """A branch of a map."""
    clean_blocking(lambda: sync.sleep(120))


ASYNC: dict[str, Callable[[], Any]] = {
    "gather": lambda: asyncio.gather(*(clean(perdure.sleep(120)) for _ in range(3))),
    "race": lambda: perdure.race(*(clean(perdure.sleep(120)) for _ in range(3))),
    "timeout": lambda: bounded(bounded(clean(perdure.sleep(120)))),
    "map": lambda: perdure.map_steps(item, range(5), limit=3),
    "race in a gather": lambda: asyncio.gather(
        perdure.race(clean(perdure.sleep(120)), clean(perdure.receive("news"))), clean(child())
    ),
    "wait_any": lambda: clean(perdure.wait_any([child.handle("another"), child.handle("a third")])),
    "shield beside": lambda: asyncio.gather(shielded_for_a_moment(), clean(perdure.sleep(120))),
    "body": lambda: perdure.race(clean(endless()), bounded(clean(perdure.sleep(120)))),
}
BLOCKING: dict[str, Callable[[], Any]] = {
    "gather": lambda: sync.gather(*(lambda: clean_blocking(lambda: sync.sleep(120)) for _ in range(3))),
    "race": lambda: sync.race(*(lambda: clean_blocking(lambda: sync.sleep(120)) for _ in range(3))),
    "map": lambda: sync.map_steps(item_blocking, range(5), limit=3),
    "race in a gather": lambda: sync.gather(
        lambda: sync.race(
            lambda: clean_blocking(lambda: sync.sleep(120)),
            lambda: clean_blocking(lambda: sync.receive("news")),
        ),
        lambda: clean_blocking(child_blocking),
    ),
    "wait_any": lambda: clean_blocking(
        lambda: sync.wait_any([child_blocking.handle("another"), child_blocking.handle("a third")])
    ),
}
TOLD = {"timeout": 1, "race in a gather": 3, "wait_any": 1, "shield beside": 1, "body": 2}


async def shielded_for_a_moment() -> None:
    """A cancel is held back by a shield, and comes when that is lifted."""
    async with perdure.shield():
        await perdure.sleep(0.3)


@workflow
async def waits(what: str) -> None:
    entered.set()
    await ASYNC[what]()


@workflow
def waits_blocking(what: str) -> None:
    entered.set()
    BLOCKING[what]()


def start_others(target: Any) -> None:
    """The runs that `wait_any` waits for, and that do not end."""
    for id in ("another", "a third"):
        sync.start((child if target is waits else child_blocking).options(id=id, delay=3600))


def stopped(handle: Any) -> None:
    """It ends as cancelled, promptly."""
    began = time.monotonic()
    assert handle.cancel() is True
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=PROMPTLY)
    assert time.monotonic() - began < PROMPTLY
    assert handle.status() == "cancelled"


CASES = [(waits, what) for what in ASYNC] + [(waits_blocking, what) for what in BLOCKING]
cases = pytest.mark.parametrize(
    ("target", "what"), CASES, ids=[f"{target.definition.function.__name__}-{what}" for target, what in CASES]
)


@cases
@pytest.mark.parametrize("put_away", [False, True], ids=["in memory", "put away"])
def test_a_cancel_comes_promptly(
    target: Any, what: str, put_away: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every branch is told once, may clean up with steps, and the run ends as cancelled."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05 if put_away else 60)
    monkeypatch.setattr("perdure.policy.LONG_WAIT", 1e9)
    with sync.Perdure(database_url):
        start_others(target)
        handle = sync.start(target, what)
        assert entered.wait(20)
        if put_away and what != "body":
            until(lambda: handle.status() == "waiting")
        stopped(handle)
        assert events == ["told"] * TOLD.get(what, 3)


@cases
def test_a_cancel_that_comes_at_once_comes_promptly(target: Any, what: str, database_url: str) -> None:
    """Also where the run is only about to wait, and its waits are not committed yet."""
    with sync.Perdure(database_url):
        start_others(target)
        for _ in range(5):
            handle = sync.start(target, what)
            stopped(handle)


@cases
def test_a_cancel_reaches_the_worker_that_took_over(target: Any, what: str, database_url: str) -> None:
    """A run that was cancelled while nobody had it is told by the next one, who replays it first."""
    with sync.Perdure(database_url, grace=0):
        start_others(target)
        sync.start(target.options(id="moved"), what)
        assert entered.wait(20)
        until(lambda: rows(database_url, "select 1 from perdure.waits"))
    with sync.Perdure(database_url, worker=False) as client:
        client.handle("moved").cancel()
    with sync.Perdure(database_url) as app, pytest.raises(WorkflowCancelled):
        app.handle("moved").result(timeout=PROMPTLY)
    assert set(events) <= {"told"}


@workflow
def swallows() -> None:
    def deaf() -> None:
        try:
            sync.sleep(120)
        except Cancelled:
            sync.run_step(note, "swallowed")

    sync.gather(deaf, deaf)
    sync.run_step(note, "went on")
    sync.sleep(120)


@workflow
def decided() -> None:
    sync.race(after_entered, held)
    sync.run_step(note, "went on")
    sync.sleep(120)


def test_branches_that_swallow_a_cancel_do_not_keep_the_run(database_url: str) -> None:
    """Whoever gathered them is told itself."""
    with sync.Perdure(database_url):
        handle = swallows.start()
        until(lambda: len(rows(database_url, "select 1 from perdure.waits")) == 2)
        stopped(handle)
    assert events == ["swallowed", "swallowed"]


def test_a_cancel_during_the_end_of_a_race_is_not_lost(database_url: str) -> None:
    """The winner has ended, the loser's body is waited for: the cancel comes right after it."""
    with sync.Perdure(database_url):
        handle = decided.start()
        assert entered.wait(20)
        assert handle.cancel() is True
        until(lambda: handle.describe().cancel_requested)
        threading.Timer(0.5, door.set).start()
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=PROMPTLY)
    assert events == []


@pytest.mark.parametrize("target", [waits, waits_blocking], ids=["async", "blocking"])
@pytest.mark.parametrize("what", ["race", "map"])
def test_the_runs_own_time_limit_ends_it_too(target: Any, what: str, database_url: str) -> None:
    """A run that is out of time is told to stop in the same way, and fails."""
    with sync.Perdure(database_url):
        handle = sync.start(target.options(timeout=0.5), what)
        with pytest.raises(WorkflowTimeout):
            handle.result(timeout=PROMPTLY)
        assert handle.status() == "failed"
    assert events == ["told"] * 3


@workflow
async def shielded() -> str:
    events.append("begins")
    with perdure.shield():
        await perdure.run_step(held)
        await perdure.sleep(0.05)
        await note("inside")
    events.append("outside")
    await note("never")
    return "never"


@workflow
def shielded_blocking() -> str:
    events.append("begins")
    with sync.shield():
        held()
        sync.sleep(0.05)
        sync.run_step(note, "inside")
    events.append("outside")
    sync.run_step(note, "never")
    return "never"


@pytest.mark.parametrize("target", [shielded, shielded_blocking], ids=["async", "blocking"])
def test_a_shielded_block_is_not_told(target: Any, database_url: str) -> None:
    """A cancel that comes meanwhile arrives at the first durable call after the block."""
    with sync.Perdure(database_url):
        handle = sync.start(target)
        assert entered.wait(20)
        assert handle.cancel() is True
        until(lambda: handle.describe().cancel_requested)
        door.set()
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=PROMPTLY)
    assert events == ["begins", "inside", "outside"]


@pytest.mark.parametrize("target", [shielded, shielded_blocking], ids=["async", "blocking"])
def test_a_shield_holds_for_whoever_takes_over(target: Any, database_url: str) -> None:
    """A run that is cancelled in its shielded block, and moves, is shielded there as well."""
    with sync.Perdure(database_url, grace=0):
        sync.start(target.options(id="moved"))
        assert entered.wait(20)
    with sync.Perdure(database_url, worker=False) as client:
        client.handle("moved").cancel()
        door.set()
    with sync.Perdure(database_url) as app, pytest.raises(WorkflowCancelled):
        app.handle("moved").result(timeout=PROMPTLY)
    assert events == ["begins", "begins", "inside", "outside"]
