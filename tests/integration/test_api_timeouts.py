"""Run timeouts and parking: how a run ends that takes too long, and one that perdure gave up."""

from __future__ import annotations

import asyncio
import threading

import pytest

import perdure
from perdure import Perdure, WorkflowParked, WorkflowTimeout, step, workflow
from tests.api_tools import on_loop, until, until_true

events: list[str] = []
entered = threading.Event()
door = threading.Event()
second_life = False


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global second_life
    second_life = False
    events.clear()
    entered.clear()
    door.clear()


@step
async def long_step() -> None:
    entered.set()
    await asyncio.sleep(60)


@step
def def_step() -> None:
    entered.set()
    door.wait(30)


@workflow(timeout=0.3)
async def in_a_step() -> None:
    try:
        await long_step()
    except asyncio.CancelledError:
        events.append("told")
        raise


@workflow
async def sleeping(seconds: float) -> str:
    await perdure.sleep(seconds)
    return "slept"


@workflow
def def_sleeping(seconds: float) -> str:
    perdure.sync.sleep(seconds)
    return "slept"


@workflow(timeout=60)
async def own_timeout() -> str:
    await perdure.sleep(60)
    return "slept"


@workflow
async def parent() -> str:
    try:
        await own_timeout.options(timeout=0.3)()
    except WorkflowTimeout as error:
        return type(error).__name__
    return "nothing"


@on_loop
async def test_a_run_is_stopped_at_its_timeout(database_url: str) -> None:
    """The code is told to stop, and the run fails with WorkflowTimeout, which is a TimeoutError."""
    async with Perdure(database_url, lease=1):
        handle = await in_a_step.start()
        with pytest.raises(WorkflowTimeout, match=handle.id):
            await handle.result(timeout=20)
        assert await handle.status() == "failed"
        with pytest.raises(TimeoutError):
            await handle.result(timeout=20)
    assert events == ["told"]


@pytest.mark.parametrize("target", [sleeping, def_sleeping])
def test_a_sleeping_run_is_stopped_at_its_timeout(
    target: perdure.AsyncWorkflow[[float], str], database_url: str
) -> None:
    """`.options(timeout=)` ends a run that sleeps, in both colours; one that is in time is left alone."""
    with perdure.sync.Perdure(database_url, lease=1):
        late = perdure.sync.start(target.options(timeout=0.3), 60)
        early = perdure.sync.start(target.options(timeout=60), 0.1)
        with pytest.raises(WorkflowTimeout):
            late.result(timeout=20)
        assert early.result(timeout=20) == "slept"


@on_loop
async def test_the_options_timeout_beats_the_declared_one(database_url: str) -> None:
    """A child with a shorter timeout than its workflow declares is stopped by it, in the parent's eyes too."""
    async with Perdure(database_url, lease=1):
        assert await parent() == "WorkflowTimeout"


@on_loop
async def test_a_queued_run_times_out_too(database_url: str) -> None:
    """The timeout is from start to finish: waiting in a queue counts."""
    async with Perdure(database_url, lease=1):
        handle = await sleeping.options(queue="nobody listens", timeout=0.2).start(1)
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=20)
        assert await handle.status() == "failed"


@step
async def left() -> str:
    return "left"


@step
async def right() -> str:
    return "right"


@workflow
async def turns() -> str:
    went = await (right() if second_life else left())
    await perdure.run_step(def_step)
    return went


@workflow
async def awaits_turns() -> str:
    try:
        return await turns.options(id="turned")()
    except WorkflowParked as error:
        return str(error)


@on_loop
async def test_a_parked_run_raises_its_reason_and_can_be_resumed(database_url: str) -> None:
    """Waiting for it raises WorkflowParked with expected step, met step and advice; with the old code it resumes."""
    global second_life
    async with Perdure(database_url, grace=0):
        await turns.options(id="turned").start()
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
        second_life = True
    async with Perdure(database_url) as app:
        handle = turns.handle("turned")
        with pytest.raises(WorkflowParked, match=r"right[\s\S]*left[\s\S]*resume"):
            await handle.result(timeout=20)
        assert await handle.status() == "parked"
        assert "left" in ((await handle.describe()).reason or "")
        assert [info.id for info in await app.runs.list(status="parked", error="right")] == ["turned"]
        assert "left" in await awaits_turns()
        second_life = False
        door.set()
        assert await app.runs.resume("turned") == 1
        assert await handle.result(timeout=20) == "left"


def test_a_parked_run_can_be_cancelled(database_url: str) -> None:
    """Nobody has to resume a parked run: cancelling ends it."""
    global second_life
    with perdure.sync.Perdure(database_url, grace=0):
        perdure.sync.start(turns.options(id="turned"))
        assert entered.wait(20)
        second_life = True
    with perdure.sync.Perdure(database_url) as app:
        until(lambda: app.handle("turned").status() == "parked")
        assert app.handle("turned").cancel() is True
        with pytest.raises(perdure.WorkflowCancelled):
            app.handle("turned").result(timeout=20)
