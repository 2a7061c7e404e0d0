"""A run that meets other code than the one that began it is parked, visibly, and goes on with the old code."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from perdure import Status, step, sync, workflow
from tests.api_tools import on_loop, rows, until, until_true

changed: list[bool] = []
calls: list[str] = []
held: list[bool] = []


@pytest.fixture(autouse=True)
def old_code() -> None:
    """Every test begins with the code as it was, and holds the run in its second step."""
    changed.clear()
    calls.clear()
    held[:] = [True]


@step
async def first(name: str) -> str:
    calls.append(name)
    return name


@step
async def second(name: str) -> str:
    calls.append(name)
    await until_true(lambda: asyncio.sleep(0, not held))
    return name


@workflow
async def shop() -> list[str]:
    if changed:
        return [await second("new")]
    return [await first("a"), await first("b"), await second("c")]


@step
def first_blocking(name: str) -> str:
    calls.append(name)
    return name


@step
def second_blocking(name: str) -> str:
    calls.append(name)
    until(lambda: not held)
    return name


@workflow
def shop_blocking() -> list[str]:
    if changed:
        return [second_blocking("new")]
    return [first_blocking("a"), first_blocking("b"), second_blocking("c")]


@on_loop
async def test_an_async_run_is_parked_and_resumed(database_url: str) -> None:
    """Taken over with changed code it is parked with both steps named; resumed with the old code it ends."""
    async with perdure.Perdure(database_url, grace=0):
        run = await shop.options(id="it").start()
        await until_true(lambda: asyncio.sleep(0, "c" in calls))
    changed.append(True)
    async with perdure.Perdure(database_url) as app:
        parked = app.handle("it")

        async def status() -> bool:
            return (await parked.describe()).status is Status.PARKED

        await until_true(status)
        reason = (await parked.describe()).reason or ""
        assert "second' at position 1" in reason
        assert "first' at position 1" in reason
        assert len(await parked.steps()) == 2
        assert "new" not in calls
        changed.clear()
        held.clear()
        assert await app.runs.resume("it") == 1
        assert await app.handle("it").result() == ["a", "b", "c"]
    assert (calls.count("a"), calls.count("b")) == (1, 1)
    assert run.id == "it"


def test_a_blocking_run_is_parked_and_resumed(database_url: str) -> None:
    """The same for a run in threads."""
    with sync.Perdure(database_url, grace=0):
        shop_blocking.options(id="it").start()
        until(lambda: "c" in calls)
        changed.append(True)
    with sync.Perdure(database_url) as app:
        parked = app.handle("it")
        until(lambda: parked.describe().status is Status.PARKED)
        reason = parked.describe().reason or ""
        assert "second_blocking' at position 1" in reason
        assert "first_blocking' at position 1" in reason
        changed.clear()
        held.clear()
        assert app.runs.resume("it") == 1
        assert parked.result() == ["a", "b", "c"]
    assert (calls.count("a"), calls.count("b")) == (1, 1)
    assert rows(database_url, "select count(*) from perdure.ends") == [(1,)]
