"""Cancelling runs: what the code sees, in which colour, where; and that a cancelled run ends cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

import perdure
from perdure import Cancelled, Perdure, WorkflowCancelled, step, workflow
from tests.api_tools import on_loop, until, until_true

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
async def long_step() -> None:
    entered.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append("step cancelled")
        raise


@step
def def_step() -> None:
    entered.set()
    door.wait(30)
    events.append("def step ended")


@workflow
async def in_a_step() -> None:
    try:
        await long_step()
    except asyncio.CancelledError:
        events.append("workflow told")
        raise


@workflow
def in_a_def_step() -> None:
    try:
        def_step()
        events.append("went on")
        perdure.sync.run_step(note, "never")
    except Cancelled:
        events.append("workflow told")
        raise


@workflow
async def sleeping(seconds: float) -> None:
    entered.set()
    try:
        await perdure.sleep(seconds)
    except asyncio.CancelledError:
        events.append("told while asleep")
        raise


@workflow
def def_sleeping(seconds: float) -> None:
    entered.set()
    try:
        perdure.sync.sleep(seconds)
    except Cancelled:
        events.append("told while asleep")
        raise


@workflow
async def stubborn() -> str:
    try:
        await long_step()
    except asyncio.CancelledError:
        return "caught it"
    return "not cancelled"


@workflow
def def_stubborn() -> str:
    try:
        perdure.sync.sleep(60)
    except Cancelled:
        return "caught it"
    return "not cancelled"


@workflow
async def angry() -> None:
    try:
        await long_step()
    except asyncio.CancelledError:
        raise ValueError("an error of its own") from None


@workflow
async def parent_in_branch() -> str:
    branch = asyncio.create_task(sleeping.options(id="the child")(60))
    await note("branch begun")
    await perdure.sleep(0.1)
    branch.cancel()
    try:
        await branch
    except asyncio.CancelledError:
        return "branch cancelled"
    return "branch went on"


@workflow
async def parent() -> None:
    await sleeping.options(id="the child")(60)


@workflow
async def parent_of_the_doomed() -> str:
    handle = await sleeping.options(id="doomed").start(60)
    try:
        await handle.result()
    except WorkflowCancelled as error:
        return f"{type(error).__name__} doomed" if "doomed" in str(error) else str(error)
    return "nothing"


@workflow
async def cancels_another(id: str) -> bool:
    return await sleeping.handle(id).cancel()


@workflow
async def gathering() -> None:
    try:
        await asyncio.gather(long_step(), perdure.sleep(60), in_a_step())
    except asyncio.CancelledError:
        events.append("root told")
        raise


async def begun() -> None:
    await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))


async def ends_cancelled(handle: perdure.Handle[object]) -> None:
    with pytest.raises(WorkflowCancelled, match=handle.id):
        await handle.result(timeout=20)
    assert await handle.status() == "cancelled"


@on_loop
async def test_an_async_step_is_interrupted_at_once(database_url: str) -> None:
    """CancelledError arrives in the body of an `async def` step, then in the workflow, then the run is cancelled."""
    async with Perdure(database_url):
        handle = await in_a_step.start()
        await begun()
        assert await handle.cancel() is True
        await ends_cancelled(handle)
    assert events == ["step cancelled", "workflow told"]


@on_loop
async def test_a_blocking_workflow_is_told_at_its_next_durable_call(database_url: str) -> None:
    """A `def` step ends by itself; the next durable call of the `def` workflow raises Cancelled."""
    async with Perdure(database_url):
        handle = await perdure.start(in_a_def_step)
        await begun()
        assert await handle.cancel() is True
        assert await handle.status() in ("running", "cancelling")
        door.set()
        await ends_cancelled(handle)
    assert events in (
        ["def step ended", "workflow told"],
        ["def step ended", "went on", "workflow told"],
    )


@pytest.mark.parametrize("target", [sleeping, def_sleeping])
@pytest.mark.parametrize("put_away", [False, True], ids=["in memory", "put away"])
def test_a_sleeping_run_is_told(
    target: perdure.AsyncWorkflow[[float], None], put_away: bool, database_url: str
) -> None:
    """A run that sleeps is woken to be told, whether it is in memory or was put away."""
    with perdure.sync.Perdure(database_url):
        handle = perdure.sync.start(target, 60)
        assert entered.wait(20)
        until(lambda: handle.status() == ("waiting" if put_away else "running") or not put_away)
        assert handle.cancel() is True
        with pytest.raises(WorkflowCancelled, match=handle.id):
            handle.result(timeout=20)
        assert handle.status() == "cancelled"
    assert events == ["told while asleep"]


@pytest.mark.parametrize("options", [{"queue": "nobody listens"}, {"delay": 3600}], ids=["queued", "delayed"])
def test_a_run_that_has_not_begun_ends_at_once(options: dict[str, object], database_url: str) -> None:
    """A queued or delayed run is cancelled without running any code."""

    async def main() -> None:
        async with Perdure(database_url):
            handle = await sleeping.options(**options).start(1)  # type: ignore[arg-type]
            assert await handle.cancel() is True
            assert await handle.status() == "cancelled"
            await ends_cancelled(handle)

    asyncio.run(main())
    assert events == []


@on_loop
async def test_catching_the_cancel_still_ends_cancelled(database_url: str) -> None:
    """Code that swallows the cancel, or answers it with an error, does not change how the run ends."""
    async with Perdure(database_url):
        for target in (stubborn, angry):
            entered.clear()
            handle = await target.start()
            await begun()
            await handle.cancel()
            await ends_cancelled(handle)


def test_catching_the_cancel_in_blocking_code_still_ends_cancelled(database_url: str) -> None:
    """The same for a `def` workflow that catches Cancelled."""
    with perdure.sync.Perdure(database_url):
        handle = def_stubborn.start()
        until(lambda: handle.describe().status in ("running", "waiting"))
        assert handle.cancel() is True
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=20)
        assert handle.status() == "cancelled"


@on_loop
async def test_cancelling_an_ended_run_is_too_late(database_url: str) -> None:
    """`cancel` says False for a run that has ended, which stays as it was, and for one cancelled already."""
    async with Perdure(database_url):
        handle = await sleeping.start(0)
        await handle.result(timeout=20)
        assert await handle.cancel() is False
        assert await handle.status() == "succeeded"
        queued = await sleeping.options(queue="nobody listens").start(1)
        assert [await queued.cancel(), await queued.cancel()] == [True, False]


@on_loop
async def test_cancelling_a_branch_cancels_the_child_it_awaits(database_url: str) -> None:
    """Inside a workflow, a branch that is cancelled takes the child with it; the parent goes on."""
    async with Perdure(database_url) as app:
        handle = await parent_in_branch.start()
        assert await handle.result(timeout=20) == "branch cancelled"
        await ends_cancelled(app.handle("the child"))


@on_loop
async def test_cancelling_a_parent_cancels_the_child_it_awaits(database_url: str) -> None:
    """The cancel goes down to the child that the parent waits for."""
    async with Perdure(database_url) as app:
        handle = await parent.start()
        await begun()
        assert await handle.cancel() is True
        await ends_cancelled(handle)
        await ends_cancelled(app.handle("the child"))


@on_loop
async def test_awaiting_a_cancelled_child_raises_workflow_cancelled(database_url: str) -> None:
    """A parent whose child is cancelled by somebody else gets an ordinary exception, not a CancelledError."""
    async with Perdure(database_url) as app:
        handle = await parent_of_the_doomed.start()
        await begun()
        await app.handle("doomed").cancel()
        assert await handle.result(timeout=20) == "WorkflowCancelled doomed"


@on_loop
async def test_a_workflow_can_cancel_another(database_url: str) -> None:
    """`handle.cancel()` inside a workflow is a durable call."""
    async with Perdure(database_url):
        other = await sleeping.options(id="other").start(60)
        await begun()
        assert await cancels_another("other") is True
        await ends_cancelled(other)


@on_loop
async def test_every_branch_is_told(database_url: str) -> None:
    """A run in a `gather` of steps, sleeps and children is cancelled as a whole."""
    async with Perdure(database_url) as app:
        handle = await gathering.start()
        await begun()
        await handle.cancel()
        await ends_cancelled(handle)

        async def all_ended() -> bool:
            return await app.runs.count(status=["running", "waiting", "queued"]) == 0

        await until_true(all_ended)
    assert "root told" in events


@on_loop
async def test_cancelling_from_another_app_reaches_the_worker(database_url: str) -> None:
    """A client in another app cancels a run that runs here; nobody has to poll for long."""
    async with Perdure(database_url, name="worker") as worker:
        with worker.bind():
            handle = await in_a_step.start()
        await begun()
        async with Perdure(database_url, name="client", worker=False) as client:
            assert await client.handle(handle.id).cancel() is True
            await ends_cancelled(client.handle(handle.id))


def test_a_cancelled_run_that_moves_is_told_again(database_url: str) -> None:
    """A run cancelled while no worker has it is told when the next one takes it."""
    with perdure.sync.Perdure(database_url, grace=0):
        perdure.sync.start(sleeping.options(id="moved"), 60)
        assert entered.wait(20)
    with perdure.sync.Perdure(database_url, worker=False) as client:
        assert client.handle("moved").status() == "queued"
        assert client.handle("moved").cancel() is True
        assert events == []
    with perdure.sync.Perdure(database_url) as app, pytest.raises(WorkflowCancelled):
        app.handle("moved").result(timeout=20)
    assert events == ["told while asleep"]
