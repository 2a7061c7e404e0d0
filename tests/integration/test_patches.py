"""Patches: a run keeps the path on which it began, at whatever point it was left; new runs take the new one.

Old and new code are one function here, which asks for the patch only in the code of tomorrow; a worker that closes and
another that opens stand for the deploy.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import Perdure, WorkflowParked, step, sync, workflow
from tests.api_tools import on_loop, rows, until_true

log: list[str] = []
door = threading.Event()
today = {"patched": False, "deprecated": False}


@step(name="patch.mark")
async def mark(what: str) -> str:
    log.append(what)
    return what


@step(name="patch.mark_blocking")
def mark_blocking(what: str) -> str:
    log.append(what)
    return what


@step(name="patch.hold")
def hold(what: str) -> str:
    log.append(what)
    assert door.wait(30)
    return what


def forget(result: Any, what: str) -> None:
    """Nothing to undo: with it, `hold_undoable` notes that its body begins."""


@step(name="patch.hold_undoable", compensate=forget)
def hold_undoable(what: str) -> str:
    log.append(what)
    assert door.wait(30)
    return what


def is_new() -> bool:
    if today["deprecated"]:
        perdure.deprecate_patch("fraud check")
        return True
    return today["patched"] and perdure.patched("fraud check")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()
    today.update(patched=False, deprecated=False)


@workflow(name="patch.left_in")
async def left_in(where: str) -> list[str]:
    """Asks first of all, and is then left at one of several points."""
    path = ["new" if is_new() else "old"]
    if where == "clock":
        perdure.now()
        path.append(await perdure.run_step(hold, "held"))
    elif where == "step":
        path.append(await mark("done"))
        path.append(await perdure.run_step(hold, "held"))
    elif where == "intent":
        path.append(await perdure.run_step(hold_undoable, "held"))
    elif where == "sleep":
        await perdure.sleep(3600 if not door.is_set() else 0)
    elif where == "message":
        path.append(await perdure.receive("go on"))
    elif where == "branches":
        path += await asyncio.gather(mark("done"), perdure.run_step(hold, "held"))
    elif where == "heartbeat":
        path.append(await perdure.run_step(beat, "held"))
    return path


@step(name="patch.beat")
def beat(what: str) -> str:
    sync.heartbeat(what)
    log.append(what)
    assert door.wait(30)
    return what


@workflow(name="patch.left_in_blocking")
def left_in_blocking(where: str) -> list[str]:
    path = ["new" if is_new() else "old"]
    if where == "step":
        path.append(mark_blocking("done"))
        path.append(hold("held"))
    elif where == "message":
        path.append(sync.receive("go on"))
    return path


LEFT = {
    "clock": "select 1 from perdure.steps where kind = 6",
    "step": "select 1 from perdure.steps where name like 'patch.mark%'",
    "intent": "select 1 from perdure.intents",
    "sleep": "select 1 from perdure.live where status = 4",
    "message": "select 1 from perdure.live where status = 4",
    "branches": "select 1 from perdure.steps where name = 'patch.mark'",
    "heartbeat": "select 1 from perdure.intents where detail is not null",
}
"""What tells that a run has come to the point where it is to be left."""
CASES = [(left_in, where) for where in LEFT] + [(left_in_blocking, where) for where in ("step", "message")]


@pytest.mark.parametrize(("flow", "where"), CASES, ids=[f"{flow.__name__}-{where}" for flow, where in CASES])
@on_loop
async def test_a_run_that_began_before_the_patch_takes_the_old_path_for_ever(
    flow: Any, where: str, database_url: str
) -> None:
    """Whatever it has recorded beyond the point where the new code asks; and after a second restart too."""
    async with deployed(database_url):
        handle = await perdure.start(flow, where)
        await until_true(lambda: asyncio.to_thread(rows, database_url, LEFT[where]))
        if where not in ("sleep", "message"):
            await held()
    today["patched"] = True
    for last in (False, True):
        log.clear()
        async with deployed(database_url) as app:
            if where in ("sleep", "message"):
                claims = await asyncio.to_thread(rows, database_url, "select claims from perdure.live")
                await asyncio.to_thread(rows, database_url, WAKE)
                await put_away_again(database_url, claims[0][0])
            else:
                await held()
            if last:
                door.set()
                if where == "sleep":
                    await asyncio.to_thread(
                        rows, database_url, "update perdure.waits set due = perdure.clock()"
                    )
                    await asyncio.to_thread(rows, database_url, WAKE)
                if where == "message":
                    await app.handle(handle.id).send("go on", "now")
                found = await app.handle(handle.id).result(timeout=30)
                assert found[0] == "old"
                assert (await (await perdure.start(flow, "nowhere")).result(timeout=30)) == ["new"]


WAKE = "update perdure.live set status = 2, ready = null where status = 4"
CLAIMED = "select 1 from perdure.live where claims > %s and status = 4"


def deployed(url: str) -> Perdure:
    """A worker that leaves its runs where they are."""
    return Perdure(url, grace=0)


async def put_away_again(url: str, claims: int) -> None:
    await until_true(lambda: asyncio.to_thread(rows, url, CLAIMED, claims))


async def held() -> None:
    async def check() -> bool:
        return "held" in log

    await until_true(check)


@workflow(name="patch.new_life")
async def new_life() -> list[str]:
    path = ["new" if is_new() else "old"]
    path.append(await mark("done"))
    await perdure.receive("go on")
    path.append("new" if is_new() else "old")
    return path


@on_loop
async def test_a_run_that_began_after_the_patch_takes_the_new_path_for_ever(database_url: str) -> None:
    """Also when it is taken up again, with more recorded than at the point where it asked."""
    today["patched"] = True
    async with deployed(database_url) as app:
        handle = await new_life.start()
        await until_true(lambda: asyncio.to_thread(rows, database_url, LEFT["message"]))
    async with deployed(database_url) as app:
        await app.handle(handle.id).send("go on", 1)
        assert await app.handle(handle.id).result(timeout=30) == ["new", "done", "new"]


@workflow(name="patch.asks_later")
async def asks_later() -> list[str]:
    path = [await mark("first")]
    path.append("new" if is_new() else "old")
    path.append(await perdure.run_step(hold, "held"))
    return path


@on_loop
async def test_a_run_that_has_not_come_to_the_patch_takes_the_new_path(database_url: str) -> None:
    """It began with the old code, but nothing is recorded beyond the point where the new one asks."""
    async with deployed(database_url):
        handle = await asks_later.start()
        await held()
    today["patched"] = True
    door.set()
    async with deployed(database_url) as app:
        assert await app.handle(handle.id).result(timeout=30) == ["first", "new", "held"]


@on_loop
async def test_asking_moves_no_other_call(database_url: str) -> None:
    """Positions are what they were without the question, so that it can be taken out again."""
    today["patched"] = True
    async with deployed(database_url):
        handle = await new_life.start()
        await until_true(lambda: asyncio.to_thread(rows, database_url, LEFT["message"]))
    today["patched"] = False
    async with deployed(database_url) as app:
        await app.handle(handle.id).send("go on", 1)
        assert await app.handle(handle.id).result(timeout=30) == ["old", "done", "old"]


@on_loop
async def test_a_deprecated_patch_parks_a_run_from_before_it(database_url: str) -> None:
    """With a text that names it; resumed on the code that still asks, the run goes on as it began."""
    async with deployed(database_url):
        handle = await new_life.start()
        await until_true(lambda: asyncio.to_thread(rows, database_url, LEFT["message"]))
    today["deprecated"] = True
    async with deployed(database_url) as app:
        await app.handle(handle.id).send("go on", 1)
        with pytest.raises(
            WorkflowParked, match=r"before the patch 'fraud check'.*perdure\.patched\('fraud check'\)"
        ):
            await app.handle(handle.id).result(timeout=30)
    today.update(patched=True, deprecated=False)
    async with deployed(database_url) as app:
        assert await app.runs.resume(handle.id) == 1
        assert await app.handle(handle.id).result(timeout=30) == ["old", "done", "old"]


@pytest.mark.parametrize("began_with", ["patched", "deprecated"])
@on_loop
async def test_a_deprecated_patch_parks_no_run_from_after_it(began_with: str, database_url: str) -> None:
    """Neither one that was asked, nor one that began with code that only says it is gone, however often they restart."""
    today[began_with] = True
    async with deployed(database_url):
        handle = await new_life.start()
        await until_true(lambda: asyncio.to_thread(rows, database_url, LEFT["message"]))
    today.update(patched=False, deprecated=True)
    async with deployed(database_url) as app:
        await app.handle(handle.id).send("go on", 1)
        assert await app.handle(handle.id).result(timeout=30) == ["new", "done", "new"]


def test_patches_are_asked_for_by_workflow_code_only() -> None:
    """Outside there is no run whose path it could be."""
    with pytest.raises(perdure.NotInWorkflow):
        perdure.patched("x")
    with pytest.raises(perdure.NotInWorkflow):
        perdure.deprecate_patch("x")
