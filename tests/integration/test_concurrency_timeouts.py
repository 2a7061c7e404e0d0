"""`perdure.timeout`: the block ends in time, durably, and the run goes on after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import NotInWorkflow, WaitTimeout, WorkflowCancelled, step, sync, workflow
from tests.api_tools import rows, until

events: list[str] = []
entered = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    events.clear()
    entered.clear()


@step
async def note(text: str) -> str:
    events.append(text)
    return text


@step
async def endless() -> None:
    entered.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append("body cancelled")
        raise


@workflow
async def sleeper() -> str:
    await perdure.sleep(60)
    return "slept"


@workflow
async def in_turn(number: int) -> None:
    await perdure.sleep(60)


async def gathered() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(endless())
        group.create_task(perdure.sleep(60))


BLOCKS: dict[str, Callable[[], Any]] = {
    "step": endless,
    "sleep": lambda: perdure.sleep(60),
    "child": sleeper.options(id="the child"),
    "message": lambda: perdure.receive("news"),
    "race": lambda: perdure.race(perdure.sleep(60), endless()),
    "map": lambda: perdure.map_steps(in_turn, range(5), limit=2),
    "gather": gathered,
    "quick": lambda: note("quick"),
    "nothing": lambda: asyncio.sleep(0),
}


@workflow
async def bounded(block: str, seconds: float) -> str:
    began = perdure.now()
    try:
        async with perdure.timeout(seconds):
            await BLOCKS[block]()
    except WaitTimeout as error:
        assert perdure.now() - began >= timedelta(seconds=seconds)
        return await note(str(error))
    return "in time"


@workflow
async def goes_on(block: str) -> str:
    said = await bounded.definition.function(block, 0.1)
    await note("goes on")
    await perdure.sleep(60)
    return str(said)


@pytest.mark.parametrize("block", ["step", "sleep", "child", "message", "race", "map", "gather"])
def test_what_takes_longer_is_cancelled(block: str, database_url: str) -> None:
    """Whatever the block waits for, it ends with WaitTimeout; a body, and a child that was called, are cancelled."""
    with sync.Perdure(database_url) as app:
        result = sync.start(bounded, block, 0.3).result(timeout=20)
        assert result == "the block took longer than 0.3 s"
        if block in ("step", "race", "gather"):
            until(lambda: "body cancelled" in events)
        if block == "child":
            with pytest.raises(WorkflowCancelled):
                app.handle("the child").result(timeout=20)
        if block == "map":
            until(lambda: app.runs.count(status=["running", "waiting", "queued"]) == 0)
            assert app.runs.count(workflow=in_turn.definition.name) == 2


@pytest.mark.parametrize("block", ["quick", "nothing"])
def test_what_is_in_time_is_left_alone(block: str, database_url: str) -> None:
    """A block that ends leaves nothing behind: no wait, no timer, no cancel."""
    with sync.Perdure(database_url):
        handle = sync.start(bounded, block, 60)
        assert handle.result(timeout=20) == "in time"
        assert rows(database_url, "select * from perdure.waits") == []
        assert [line.name for line in handle.steps() if line.name == "sleep"] == []


def test_no_time_at_all_is_over_at_once(database_url: str) -> None:
    """`timeout(0)` bounds a block by nothing; one that does not wait still ends by itself."""
    with sync.Perdure(database_url):
        assert sync.start(bounded, "sleep", 0).result(timeout=20).startswith("the block took longer")
        assert sync.start(bounded, "nothing", 0).result(timeout=20) == "in time"


@pytest.mark.parametrize("block", ["step", "sleep", "child", "race", "gather"])
def test_a_later_cancel_still_works(block: str, database_url: str) -> None:
    """After a WaitTimeout that was caught the run goes on, and a cancel ends it as cancelled."""
    with sync.Perdure(database_url):
        handle = sync.start(goes_on, block)
        until(lambda: "goes on" in events)
        assert handle.status() in ("running", "waiting")
        assert handle.cancel() is True
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=10)
        assert handle.status() == "cancelled"


@workflow
async def uncaught() -> None:
    async with perdure.timeout(0.1):
        await perdure.sleep(60)


def test_a_timeout_that_nobody_catches_fails_the_run(database_url: str) -> None:
    """The cancel by which the block was ended is not taken for an interruption, or a cancel, of the run."""
    with sync.Perdure(database_url):
        handle = sync.start(uncaught)
        with pytest.raises(WaitTimeout, match=r"longer than 0\.1 s"):
            handle.result(timeout=20)
        assert handle.status() == "failed"


@workflow
async def twice() -> str:
    limit = perdure.timeout(0.1)
    async with limit:
        pass
    async with limit:
        pass
    return "twice"


def test_one_timeout_bounds_one_block(database_url: str) -> None:
    """A second use is refused: whether the first one's time is over would count for it."""
    with sync.Perdure(database_url), pytest.raises(RuntimeError, match="one block"):
        sync.start(twice).result(timeout=20)


@step
async def bounds_inside() -> None:
    perdure.timeout(1)


@workflow
async def step_that_bounds() -> None:
    await bounds_inside()


def test_outside_of_a_workflow_it_is_refused(database_url: str) -> None:
    """A time that nobody records is `asyncio.timeout`'s business; a wrong one is a ValueError."""
    for call in (lambda: perdure.timeout(1), perdure.shield().__enter__):
        with pytest.raises(NotInWorkflow, match="workflow"):
            call()
    with pytest.raises(ValueError, match="timeout"):
        perdure.timeout(-1)
    with sync.Perdure(database_url), pytest.raises(NotInWorkflow):
        sync.start(step_that_bounds).result(timeout=20)


@workflow
async def short_and_long() -> list[str]:
    said = []
    for _ in range(2):
        try:
            async with perdure.timeout(2):
                await note("begins")
                await perdure.sleep(60)
        except WaitTimeout:
            said.append("out of time")
    return said


def test_the_time_counts_on_while_nobody_has_the_run(database_url: str) -> None:
    """It began when the block was entered first: a worker that takes the run over gives it what is left."""
    ends = "select max(due)::text from perdure.waits where due < now() + interval '10 s'"
    with sync.Perdure(database_url, grace=0):
        sync.start(short_and_long.options(id="moved"))
        until(lambda: rows(database_url, ends) != [(None,)])
        [(due,)] = rows(database_url, ends)
    until(lambda: rows(database_url, "select clock_timestamp() > %s", due) == [(True,)])
    [(taken_over,)] = rows(database_url, "select clock_timestamp()")
    with sync.Perdure(database_url) as app:
        assert app.handle("moved").result(timeout=20) == ["out of time", "out of time"]
        first, second = [line.recorded for line in app.handle("moved").steps() if line.name == "sleep"]
    assert first - taken_over < timedelta(seconds=2)
    assert second - first > timedelta(seconds=2)
    assert events == ["begins", "begins"]
