"""What the end of a parent means for its children: they are cancelled, go on, or are waited for, as was said."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import Perdure, Status, WorkflowCancelled, workflow
from perdure.models import ParentClose
from perdure.worker.hints import Hints
from tests.api_tools import on_loop, rows, until_true

ended: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    ended.clear()


@workflow
async def sleeper(seconds: float) -> str:
    await perdure.sleep(seconds)
    ended.append("child")
    return "slept"


@workflow
async def parent(policy: ParentClose, seconds: float, fails: bool) -> str:
    await sleeper.options(parent_close=policy, id="child").start(seconds)
    if fails:
        raise LookupError("the parent failed")
    return "left"


@workflow
def blocking_parent(policy: ParentClose, seconds: float, fails: bool) -> str:
    perdure.sync.start(sleeper.options(parent_close=policy, id="child"), seconds)
    if fails:
        raise LookupError("the parent failed")
    return "left"


@workflow
async def generations(left: int) -> None:
    if left:
        await generations.options(id=f"generation {left}").start(left - 1)
    await perdure.sleep(600)


async def end_of(target: Any, *arguments: object) -> None:
    try:
        await (await perdure.start(target, *arguments)).result(timeout=30)
    except LookupError:
        assert arguments[-1]


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize("target", [parent, blocking_parent], ids=["async", "blocking"])
@on_loop
async def test_a_child_is_cancelled_with_its_parent(target: Any, fails: bool, database_url: str) -> None:
    """By default nothing outlives the workflow that started it, however that ends."""
    async with Perdure(database_url):
        await end_of(target, "cancel", 600, fails)
        with pytest.raises(WorkflowCancelled):
            await sleeper.handle("child").result(timeout=20)


@pytest.mark.parametrize("target", [parent, blocking_parent], ids=["async", "blocking"])
@on_loop
async def test_an_abandoned_child_goes_on(target: Any, database_url: str) -> None:
    """`parent_close="abandon"`: its end is its own."""
    async with Perdure(database_url):
        await end_of(target, "abandon", 0.5, True)
        assert await sleeper.handle("child").result(timeout=20) == "slept"


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize("target", [parent, blocking_parent], ids=["async", "blocking"])
@on_loop
async def test_a_parent_waits_for_its_child(target: Any, fails: bool, database_url: str) -> None:
    """`parent_close="wait"`: when the parent has ended, the child has."""
    async with Perdure(database_url):
        await end_of(target, "wait", 0.3, fails)
        assert ended == ["child"]
        assert await sleeper.handle("child").status() is Status.SUCCEEDED


@on_loop
async def test_a_cancelled_parent_cancels_the_child_that_it_waits_for(database_url: str) -> None:
    """Waiting is no way to survive a cancel of the parent."""
    async with Perdure(database_url):
        handle = await parent.start("wait", 600, False)
        await until_true(lambda: rows_exist(database_url))
        await handle.cancel()
        for each in (handle, sleeper.handle("child")):
            with pytest.raises(WorkflowCancelled):
                await each.result(timeout=20)


async def rows_exist(url: str) -> bool:
    return bool(rows(url, "select 1 from perdure.waits where target is not null or due is not null"))


@pytest.mark.parametrize("hints", [True, False], ids=["told", "swept"])
@on_loop
async def test_a_cancel_goes_down_the_tree(
    hints: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four generations end with the first; also where the process that ended each could tell nobody."""
    if not hints:
        monkeypatch.setattr(Hints, "tick", lambda _: None)
    async with Perdure(database_url, lease=1.5, grace=0) as app:
        handle = await generations.start(3)

        async def all_wait() -> bool:
            return await app.runs.count(status=["waiting", "running"]) == 4

        await until_true(all_wait)
        await handle.cancel()

        async def all_ended() -> bool:
            return await app.runs.count(status="cancelled") == 4

        await until_true(all_ended)


@on_loop
async def test_a_refused_policy_says_what_there_is(database_url: str) -> None:
    """A policy that does not exist is refused where it is written."""
    with pytest.raises(ValueError, match=r"'cancel', 'abandon' or 'wait', not 'terminate'"):
        sleeper.options(parent_close="terminate")  # type: ignore[arg-type]
