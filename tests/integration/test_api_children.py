"""Children: a workflow called or started inside a workflow is a run of its own, started once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import Perdure, WorkflowConflict, step, workflow
from tests.api_tools import on_loop, until, until_true

bodies: list[str] = []
entered = threading.Event()
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bodies.clear()
    entered.clear()
    door.clear()


class Unlucky(Exception):
    pass


@step
def note(text: str) -> str:
    bodies.append(text)
    return text


@step
def wait_for_door(text: str) -> None:
    bodies.append(text)
    entered.set()
    door.wait(30)


@workflow
async def child(text: str) -> str:
    return await perdure.run_step(note, text)


@workflow
async def unlucky(text: str) -> str:
    raise Unlucky(text)


@workflow
def blocking_child(text: str) -> str:
    return note(text)


@workflow
async def parent(text: str) -> list[str]:
    first = await child(text + "1")
    handle = await child.start(text + "2")
    other = await perdure.start(blocking_child, text + "3")
    return [first, await handle.result(), await other.result(), handle.id]


@workflow
def blocking_parent(text: str) -> list[str]:
    first = blocking_child(text + "1")
    handle = blocking_child.start(text + "2")
    other = perdure.sync.start(child, text + "3")
    return [first, handle.result(), other.result()]


@workflow
async def many(count: int) -> list[str]:
    return await asyncio.gather(*(child(str(number)) for number in range(count)))


@workflow
async def tolerant() -> str:
    try:
        await unlucky("seven")
    except Unlucky as error:
        return f"caught {error}"
    return "nothing"


@workflow
async def named(id: str) -> tuple[bool, str]:
    handle = await child.options(id=id).start("named")
    return handle.created, await handle.result()


@workflow
async def conflicting(id: str) -> str:
    try:
        await unlucky.options(id=id).start("x")
    except WorkflowConflict as error:
        return str(error)
    return "no conflict"


@workflow
async def interrupted() -> list[str]:
    handle = await child.start("child")
    await perdure.run_step(wait_for_door, "parent")
    return [await handle.result(), await child("second")]


@workflow
async def patient() -> str:
    handle = await child.options(queue="elsewhere", parent_close="abandon").start("slow")
    try:
        return await handle.result(timeout=0.2)
    except perdure.WaitTimeout:
        return "too slow"


@workflow
async def grandparent(depth: int) -> int:
    return depth if depth == 0 else 1 + await grandparent(depth - 1)


@workflow
async def sleepy(seconds: float) -> str:
    await perdure.sleep(seconds)
    return "slept"


@workflow
async def patient_parent() -> list[str]:
    await perdure.run_step(note, "before")
    return list(await asyncio.gather(sleepy(2), sleepy.options(queue="elsewhere")(0)))


@workflow
def patient_blocking_parent() -> list[str]:
    note("before")
    handle = perdure.sync.start(sleepy.options(queue="elsewhere"), 0)
    return [perdure.sync.start(sleepy, 2).result(), handle.result()]


@workflow
async def forgetful() -> str:
    return (await child.options(delay=0.3, parent_close="abandon").start("later")).id


@on_loop
async def test_children_return_to_their_parent(database_url: str) -> None:
    """A called child, a started one and one of the other colour all return their results."""
    async with Perdure(database_url) as app:
        assert (await parent("x"))[:3] == ["x1", "x2", "x3"]
        assert await app.runs.count() == 4


def test_blocking_children_return_to_their_parent(database_url: str) -> None:
    """The same from a `def` workflow."""
    with perdure.sync.Perdure(database_url) as app:
        assert blocking_parent("x") == ["x1", "x2", "x3"]
        assert app.runs.count() == 4


@on_loop
async def test_a_child_knows_its_parent(database_url: str) -> None:
    """The child's `parent` is the parent's id, and a filter finds it."""
    async with Perdure(database_url) as app:
        await parent.options(id="p")("x")
        found = await app.runs.list(parent="p")
        assert len(found) == 3
        assert {info.parent for info in found} == {"p"}


@on_loop
async def test_a_hundred_children_at_once(database_url: str) -> None:
    """`gather` over children returns their results in order."""
    async with Perdure(database_url):
        assert await many(100) == [str(number) for number in range(100)]


@on_loop
async def test_the_error_of_a_child_is_raised_in_its_parent(database_url: str) -> None:
    """The parent catches the child's own exception."""
    async with Perdure(database_url) as app:
        assert await tolerant() == "caught seven"
        assert await app.runs.count(status="failed") == 1


@on_loop
async def test_a_child_with_an_id_attaches(database_url: str) -> None:
    """A child started under the id of a run that is there attaches to it, and the replay remembers that."""
    async with Perdure(database_url):
        assert await named("shared") == (True, "named")
        assert await named("shared") == (False, "named")
        assert bodies == ["named"]


@on_loop
async def test_a_childs_conflict_is_raised_in_its_parent(database_url: str) -> None:
    """A child's id that belongs to another workflow raises WorkflowConflict in the parent, who may go on."""
    async with Perdure(database_url):
        await child.options(id="taken")("x")
        assert "taken" in await conflicting("taken")


@on_loop
async def test_a_replay_starts_no_child_twice(database_url: str) -> None:
    """A parent that moves to another worker has one child by each call, not two."""
    async with Perdure(database_url, grace=0):
        await interrupted.options(id="moved").start()
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
        await until_true(lambda: asyncio.to_thread(lambda: "child" in bodies))
    async with Perdure(database_url) as app:
        door.set()
        assert await interrupted.handle("moved").result(timeout=20) == ["child", "second"]
        assert await app.runs.count() == 3
    assert sorted(bodies) == ["child", "parent", "parent", "second"]


@on_loop
async def test_waiting_for_a_child_can_give_up(database_url: str) -> None:
    """`handle.result(timeout=)` inside a workflow raises WaitTimeout there, durably; the child goes on."""
    async with Perdure(database_url) as app:
        assert await patient() == "too slow"
        [found] = await app.runs.list(queue="elsewhere")
        assert found.status == "queued"


@on_loop
async def test_a_parent_may_end_before_its_child(database_url: str) -> None:
    """A child that was started and not awaited is a run of its own; its end is its own."""
    async with Perdure(database_url) as app:
        id = await forgetful()
        assert await app.handle(id).result(timeout=20) == "later"


@on_loop
async def test_children_nest(database_url: str) -> None:
    """Twenty generations deep, each waiting for the next."""
    async with Perdure(database_url):
        assert await grandparent(20) == 20


@pytest.mark.parametrize("target", [patient_parent, patient_blocking_parent])
def test_a_parent_that_waits_long_holds_no_memory(target: Any, database_url: str) -> None:
    """A run whose branches all wait for children is put away, and woken by the end of the last of them."""
    with perdure.sync.Perdure(database_url, name="above") as app, app.bind():
        handle = perdure.sync.start(target)
        until(lambda: handle.status() == "waiting" and app.engine.executor.count == 0)
        with perdure.sync.Perdure(database_url, name="below", listen=["elsewhere"]):
            assert handle.result(timeout=20) == ["slept", "slept"]
    assert bodies == ["before"]
