"""A saga undoes its block when that is left by an error or a cancel: newest first, each once, in both colours."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import (
    Perdure,
    Retry,
    WaitTimeout,
    WorkflowCancelled,
    WrongColour,
    step,
    sync,
    transaction,
    workflow,
)
from tests.api_tools import on_loop, rows, until_true

log: list[str] = []
door = threading.Event()


@step(name="saga.cancel")
async def cancel(what: str) -> None:
    log.append(f"cancel {what}")


@step(name="saga.cancel_blocking")
def cancel_blocking(what: str) -> None:
    log.append(f"cancel {what}")


@step(name="saga.hold")
def hold() -> None:
    log.append("hold")
    assert door.wait(30)


@step(name="saga.cancel_at_the_door")
def cancel_at_the_door(what: str) -> None:
    log.append(f"cancelling {what}")
    assert door.wait(30)
    log.append(f"cancel {what}")


@step(name="saga.stubborn", retry=Retry(max_attempts=2, delay=0))
async def stubborn(what: str) -> None:
    log.append(f"tried {what}")
    raise ConnectionError(f"{what} cannot be undone")


@transaction(name="saga.withdraw")
def withdraw(conn: perdure.Connection, what: str) -> None:
    conn.execute("insert into withdrawn values (%s)", (what,))
    log.append(f"cancel {what}")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()


async def logged(line: str) -> None:
    async def check() -> bool:
        return line in log

    await until_true(check)


@workflow(name="saga.nested")
async def nested(fail_at: str) -> str:
    def check(place: str) -> None:
        if place == fail_at:
            raise LookupError(place)

    async with perdure.saga() as outer:
        outer(cancel, "o1")
        async with perdure.saga() as inner:
            inner(cancel, "i1")
            inner(cancel, what="i2")
            check("inside")
        outer(cancel, "o2")
        check("outside")
    check("after")
    return "well"


@workflow(name="saga.nested_blocking")
def nested_blocking(fail_at: str) -> str:
    def check(place: str) -> None:
        if place == fail_at:
            raise LookupError(place)

    with sync.saga() as outer:
        outer(cancel_blocking, "o1")
        with sync.saga() as inner:
            inner(cancel_blocking, "i1")
            inner(cancel, "i2")
            check("inside")
        outer(cancel_blocking, "o2")
        check("outside")
    check("after")
    return "well"


@pytest.mark.parametrize("flow", [nested, nested_blocking], ids=["async", "blocking"])
@pytest.mark.parametrize(
    ("fail_at", "undone"),
    [("inside", ["i2", "i1", "o1"]), ("outside", ["o2", "o1"]), ("after", []), ("nowhere", [])],
)
@on_loop
async def test_a_block_left_by_an_error_is_undone_and_one_left_in_order_is_not(
    flow: Any, fail_at: str, undone: list[str], database_url: str
) -> None:
    """Inner blocks first; what a block that ended well has registered is forgotten."""
    async with Perdure(database_url):
        handle = await perdure.start(flow, fail_at)
        if fail_at == "nowhere":
            assert await handle.result(timeout=30) == "well"
        else:
            with pytest.raises(LookupError, match=fail_at):
                await handle.result(timeout=30)
    assert log == [f"cancel {what}" for what in undone]


@workflow(name="saga.waits")
async def waits(how: str) -> str:
    async with perdure.saga() as undo:
        undo(cancel, "1")
        undo(withdraw, "2")
        if how == "bounded":
            async with perdure.timeout(0.3):
                await perdure.sleep(3600)
        if how == "race":
            await perdure.race(perdure.sleep(0.1), waits("inside"))
            raise LookupError("after the race")
        await perdure.sleep(3600)
    return "well"


@workflow(name="saga.waits_blocking")
def waits_blocking(how: str) -> str:
    with sync.saga() as undo:
        undo(cancel_blocking, "1")
        undo(withdraw, "2")
        sync.sleep(3600)
    return "well"


@pytest.mark.parametrize("flow", [waits, waits_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_block_left_by_a_cancel_is_undone(flow: Any, database_url: str) -> None:
    """The run ends as cancelled; a cancel that is repeated meanwhile interrupts nothing."""
    rows(database_url, "create table withdrawn (what text)")
    async with Perdure(database_url):
        handle = await perdure.start(flow, "alone")
        await until_true(lambda: asyncio.to_thread(rows, database_url, "select 1 from perdure.waits"))
        await handle.cancel()
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["cancel 2", "cancel 1"]
    assert rows(database_url, "select what from withdrawn") == [("2",)]


@on_loop
async def test_a_block_left_by_a_time_limit_is_undone(database_url: str) -> None:
    """`perdure.timeout` inside it raises `WaitTimeout`, an error like others."""
    rows(database_url, "create table withdrawn (what text)")
    async with Perdure(database_url):
        with pytest.raises(WaitTimeout):
            await waits("bounded")
    assert log == ["cancel 2", "cancel 1"]


@workflow(name="saga.stubborn_block")
async def stubborn_block() -> None:
    async with perdure.saga() as undo:
        undo(cancel, "1")
        undo(stubborn, "2")
        undo(cancel, "3")
        raise LookupError("in the block")


@on_loop
async def test_one_that_cannot_be_undone_keeps_no_other_from_it(database_url: str) -> None:
    """The others are undone, the block's own error goes on, and has a note."""
    async with Perdure(database_url):
        with pytest.raises(LookupError, match="in the block") as caught:
            await stubborn_block()
    assert log == ["cancel 3", "tried 2", "tried 2", "cancel 1"]
    assert any("2 cannot be undone" in note for note in caught.value.__notes__)


@workflow(name="saga.by_hand")
async def by_hand(fails: bool) -> str:
    async with perdure.saga() as undo:
        undo(cancel, "1")
        undo(stubborn if fails else cancel, "2")
        undo(cancel, "3")
        await undo.all()
        log.append("all undone")
        undo(cancel, "4")
        raise LookupError("later")
    return "never"


@workflow(name="saga.by_hand_blocking")
def by_hand_blocking(fails: bool) -> str:
    with sync.saga() as undo:
        undo(cancel_blocking, "1")
        undo(stubborn if fails else cancel, "2")
        undo(cancel_blocking, "3")
        undo.all()
        log.append("all undone")
        undo(cancel_blocking, "4")
        raise LookupError("later")
    return "never"


@pytest.mark.parametrize("flow", [by_hand, by_hand_blocking], ids=["async", "blocking"])
@on_loop
async def test_all_undoes_by_hand_each_once(flow: Any, database_url: str) -> None:
    """What `undo.all()` has undone is not undone again when the block is left; its own error comes after all."""
    async with Perdure(database_url):
        with pytest.raises(LookupError):
            await (await perdure.start(flow, False)).result(timeout=30)
        assert log == ["cancel 3", "cancel 2", "cancel 1", "all undone", "cancel 4"]
        log.clear()
        with pytest.raises(ConnectionError):
            await (await perdure.start(flow, True)).result(timeout=30)
        assert log == ["cancel 3", "tried 2", "tried 2", "cancel 1"]


@workflow(name="saga.stopped_by_hand")
async def stopped_by_hand() -> None:
    async with perdure.saga() as undo:
        undo(cancel, "1")
        undo(cancel_at_the_door, "2")
        undo(cancel, "3")
        await undo.all()


@workflow(name="saga.stopped_by_hand_blocking")
def stopped_by_hand_blocking() -> None:
    with sync.saga() as undo:
        undo(cancel_blocking, "1")
        undo(cancel_blocking, "2")
        hold()
        undo.all()


@on_loop
async def test_a_cancel_in_the_middle_of_all_leaves_nothing_out(database_url: str) -> None:
    """What was interrupted, or about to be called, is undone when the block is left."""
    async with Perdure(database_url):
        handle: perdure.Handle[Any] = await perdure.start(stopped_by_hand_blocking)
        await logged("hold")
        await handle.cancel()
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
        assert log == ["hold", "cancel 2", "cancel 1"]
        log.clear()
        door.clear()
        handle = await perdure.start(stopped_by_hand)
        await logged("cancelling 2")
        await handle.cancel()
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert sorted(set(log)) == ["cancel 1", "cancel 2", "cancel 3", "cancelling 2"]
    assert log[-1] == "cancel 1"


@workflow(name="saga.siblings")
async def siblings() -> None:
    async def undoes() -> None:
        async with perdure.saga() as undo:
            undo(cancel, "1")
            undo(cancel_at_the_door_twice, "2")
            raise LookupError("a branch fails")

    async def fails() -> None:
        await perdure.run_step(hold)
        raise PermissionError("another one fails")

    await asyncio.gather(undoes(), fails())


@step(name="saga.cancel_at_the_door_twice")
async def cancel_at_the_door_twice(what: str) -> None:
    log.append(f"cancelling {what}")
    if log.count(f"cancelling {what}") == 1:
        await asyncio.sleep(60)
    log.append(f"cancel {what}")


@on_loop
async def test_a_branch_that_is_undoing_when_its_run_fails_goes_on_with_it(database_url: str) -> None:
    """The run's end stops its branches, but not before what they undo is undone."""
    async with Perdure(database_url):
        handle = await siblings.start()
        await logged("cancelling 2")
        await logged("hold")
        door.set()
        with pytest.raises(PermissionError):
            await handle.result(timeout=30)
    assert [line for line in log if line.startswith("cancel ")] == ["cancel 2", "cancel 1"]


@workflow(name="saga.wrong_colour")
async def wrong_colour() -> None:
    with perdure.saga():
        pass


@workflow(name="saga.no_step")
async def no_step() -> None:
    async with perdure.saga() as undo:
        undo(print, "x")  # type: ignore[arg-type]


@workflow(name="saga.no_arguments")
async def no_arguments() -> None:
    async with perdure.saga() as undo:
        undo(cancel)  # type: ignore[call-arg]


@on_loop
async def test_mistakes_raise_where_they_are_made(database_url: str) -> None:
    """`with` in async code, something that is no step, arguments that do not fit: at once, not when it is undone."""
    async with Perdure(database_url):
        with pytest.raises(WrongColour, match="async with"):
            await wrong_colour()
        with pytest.raises(TypeError, match="@step"):
            await no_step()
        with pytest.raises(TypeError, match="what"):
            await no_arguments()
    with pytest.raises(perdure.NotInWorkflow):
        perdure.saga()
