"""Undoing where it is hard: bodies that nobody knows the end of, cancels that come late, ends that are no errors."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

import perdure
from perdure import Perdure, StepTimeout, WorkflowCancelled, WorkflowTimeout, step, sync, workflow
from tests.api_tools import on_loop, rows, until, until_true

log: list[str] = []
door = threading.Event()


def undo(result: Any, name: str) -> None:
    log.append(f"undo {type(result).__name__} {name}")


def undo_at_the_door(result: Any, name: str) -> None:
    log.append(f"undoing {name}")
    assert door.wait(30)
    log.append(f"undo {type(result).__name__} {name}")


@step(name="doubt.done", compensate=undo)
async def done(name: str) -> str:
    return name


@step(name="doubt.done_blocking", compensate=undo)
def done_blocking(name: str) -> str:
    return name


@step(name="doubt.done_slowly_undone", compensate=undo_at_the_door)
def done_slowly_undone(name: str) -> str:
    return name


@step(name="doubt.interrupted", compensate=undo)
async def interrupted(name: str) -> str:
    log.append(f"began {name}")
    try:
        await asyncio.sleep(60)
    finally:
        log.append(f"left {name}")
    return name


@step(name="doubt.stubborn", compensate=undo)
def stubborn(name: str) -> str:
    log.append(f"began {name}")
    assert door.wait(30)
    log.append(f"effect {name}")
    return name


@step(name="doubt.late", compensate=undo, timeout=0.2)
def late(name: str) -> str:
    log.append(f"began {name}")
    assert door.wait(30)
    log.append(f"effect {name}")
    return name


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()


async def logged(line: str) -> None:
    async def check() -> bool:
        return line in log

    await until_true(check)


@workflow(name="doubt.straight")
async def straight() -> None:
    await done("a")
    await interrupted("b")


@workflow(name="doubt.beside")
async def beside() -> None:
    await done("a")
    await asyncio.gather(interrupted("b"), perdure.sleep(3600))


@pytest.mark.parametrize("flow", [straight, beside], ids=["alone", "branches"])
@on_loop
async def test_an_interrupted_step_is_undone_as_of_unknown_outcome(flow: Any, database_url: str) -> None:
    """Its body has begun, so its undoing is called with `OutcomeUnknown`, after the body has left."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        await logged("began b")
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["began b", "left b", "undo OutcomeUnknown b", "undo str a"]


@workflow(name="doubt.lost_sibling")
async def lost_sibling() -> None:
    async def fails() -> None:
        await done("first")
        await perdure.run_step(wait_at_the_door)
        raise LookupError("a sibling fails")

    await asyncio.gather(interrupted("b"), fails())


@step(name="doubt.wait_at_the_door")
def wait_at_the_door() -> None:
    assert door.wait(30)


@on_loop
async def test_a_step_that_a_failing_run_leaves_behind_is_undone_too(database_url: str) -> None:
    """Its branch is stopped first, its body has left by then, and what it did is in doubt."""
    async with Perdure(database_url):
        handle = await lost_sibling.start()
        await logged("began b")
        door.set()
        with pytest.raises(LookupError):
            await handle.result(timeout=30)
    assert log == ["began b", "left b", "undo OutcomeUnknown b", "undo str first"]


@workflow(name="doubt.out_of_time")
async def out_of_time() -> None:
    await perdure.run_step(late, "x")


@workflow(name="doubt.out_of_time_blocking")
def out_of_time_blocking() -> None:
    late("x")


@pytest.mark.parametrize("flow", [out_of_time, out_of_time_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_body_that_ran_out_of_time_is_undone_after_its_thread_has_ended(
    flow: Any, database_url: str
) -> None:
    """Else the thread could do what has just been undone."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        await until_true(
            lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.live where cancel = 4")
        )
        door.set()
        with pytest.raises(StepTimeout):
            await handle.result(timeout=30)
    assert log == ["began x", "effect x", "undo OutcomeUnknown x"]


@workflow(name="doubt.in_a_thread")
async def in_a_thread() -> None:
    await perdure.run_step(stubborn, "x")


@on_loop
async def test_a_cancelled_body_in_a_thread_is_undone_after_it_has_ended(database_url: str) -> None:
    """A thread cannot be interrupted: the undoing waits for it."""
    async with Perdure(database_url):
        handle = await in_a_thread.start()
        await logged("began x")
        await handle.cancel()
        await until_true(
            lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.live where cancel > 0")
        )
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["began x", "effect x", "undo OutcomeUnknown x"]


@workflow(name="doubt.returns")
async def returns() -> str:
    await done("a")
    await done("b")
    log.append("last line")
    await asyncio.to_thread(door.wait, 30)
    return "well"


@workflow(name="doubt.returns_blocking")
def returns_blocking() -> str:
    done_blocking("a")
    done_blocking("b")
    log.append("last line")
    door.wait(30)
    return "well"


@pytest.mark.parametrize("flow", [returns, returns_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_cancel_that_comes_before_the_end_is_recorded_undoes_all(
    flow: Any, database_url: str
) -> None:
    """The code has returned, and yet the cancel was first: the run is cancelled, and undone."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        await logged("last line")
        assert await handle.cancel()
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["last line", "undo str b", "undo str a"]


@workflow(name="doubt.fails")
async def fails() -> None:
    await done("a")
    await perdure.run_step(done_slowly_undone, "b")
    raise LookupError("in the end")


@workflow(name="doubt.fails_blocking")
def fails_blocking() -> None:
    done_blocking("a")
    done_slowly_undone("b")
    raise LookupError("in the end")


@pytest.mark.parametrize("flow", [fails, fails_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_cancel_while_a_failed_run_is_undone_is_too_late(flow: Any, database_url: str) -> None:
    """It changes nothing: the undoing goes on, and the run fails with its own error."""
    async with Perdure(database_url) as app:
        handle = await perdure.start(flow)
        await logged("undoing b")
        assert await handle.status() == "cancelling"
        assert await app.runs.count(status="cancelling") == 1
        assert not await handle.cancel()
        door.set()
        with pytest.raises(LookupError):
            await handle.result(timeout=30)
        assert await handle.status() == "failed"
    assert log == ["undoing b", "undo str b", "undo str a"]


@workflow(name="doubt.waits")
async def waits() -> None:
    await done("a")
    await perdure.run_step(done_slowly_undone, "b")
    await perdure.sleep(3600)


@on_loop
async def test_a_second_cancel_does_not_interrupt_the_undoing(database_url: str) -> None:
    """The first one is the run's end; the second finds it under way."""
    async with Perdure(database_url):
        handle = await waits.start()
        await until_true(
            lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.steps having count(*) = 2")
        )
        await handle.cancel()
        await logged("undoing b")
        await handle.cancel()
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["undoing b", "undo str b", "undo str a"]


@workflow(name="doubt.exits")
async def exits() -> None:
    await done("a")
    sys.exit(3)


@workflow(name="doubt.exits_blocking")
def exits_blocking() -> None:
    done_blocking("a")
    sys.exit(3)


@workflow(name="doubt.cancels_itself")
async def cancels_itself() -> None:
    await done("a")
    task = asyncio.create_task(perdure.sleep(60))
    task.cancel()
    await task


@pytest.mark.parametrize("flow", [exits, exits_blocking, cancels_itself])
@on_loop
async def test_a_run_that_fails_with_what_is_no_exception_is_undone_too(flow: Any, database_url: str) -> None:
    """`sys.exit`, or a `CancelledError` of the code's own making: however it fails, it is undone."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)

        async def failed() -> bool:
            return await handle.status() == "failed"

        await until_true(failed)
    assert log == ["undo str a"]


@workflow(name="doubt.two_calls")
async def two_calls() -> None:
    await done("a")
    await perdure.sleep(3600)


@on_loop
async def test_an_undone_run_cannot_be_resumed(database_url: str) -> None:
    """What its code would go on from is undone: `resume` leaves it as it is, also one that was out of time."""
    async with Perdure(database_url) as app:
        handle = await two_calls.options(timeout=1).start()
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=30)
        assert log == ["undo str a"]
        assert await app.runs.resume(handle.id) == 0
        assert await handle.status() == "failed"
        door.set()
        failing = await fails.start()
        with pytest.raises(LookupError):
            await failing.result(timeout=30)
        assert await app.runs.resume(failing.id) == 0
    assert log.count("undo str b") == 1


def test_undoing_that_a_closing_app_interrupts_goes_on_elsewhere(database_url: str) -> None:
    """A cancel came before the end, the app closes while that is undone: nothing is left in memory, nothing twice."""
    patience.clear()
    first = sync.Perdure(database_url, grace=0).open()
    engine = first._engine
    assert engine is not None
    with first.bind():
        handle = sync.start(late_cancel)
        until(lambda: "last line" in log)
        handle.cancel()
        door.set()
        until(lambda: "undoing with patience" in log)
    first.close()
    assert engine.executor.count == 0
    patience.set()
    with sync.Perdure(database_url) as second, pytest.raises(WorkflowCancelled):
        second.handle(handle.id).result(timeout=30)
    assert log[-1] == "undone"
    assert log.count("undone") == 1


patience = threading.Event()


async def undo_with_patience(result: Any) -> None:
    log.append("undoing with patience")

    async def check() -> bool:
        return patience.is_set()

    await until_true(check)
    log.append("undone")


@step(name="doubt.with_patience", compensate=undo_with_patience)
async def with_patience() -> str:
    return "done"


@workflow(name="doubt.late_cancel")
async def late_cancel() -> str:
    await with_patience()
    log.append("last line")
    await asyncio.to_thread(door.wait, 30)
    return "well"
