"""A child is its parent's own: no id of a stranger's, and none of an earlier life of the parent, stands in its way."""

from __future__ import annotations

import asyncio

import pytest

import perdure
from perdure import Perdure, WorkflowConflict, step, workflow
from tests.api_tools import on_loop, rows, until_true
from tests.protocol_tools import stranger, take_id

children: list[str] = []
fails = [True]


@step(name="own.child_body")
async def child_body(who: str) -> str:
    children.append(who)
    return who


@workflow(name="own.child")
async def child(who: str) -> str:
    return await child_body(who)


@workflow(name="own.parent")
async def parent(who: str) -> str:
    result = await child(who)
    if fails.pop() if fails else False:
        raise LookupError(who)
    return result


@workflow(name="own.in_branches")
async def in_branches() -> str:
    answers = await asyncio.gather(
        perdure.start(child.options(id="of-another"), "a"), child_body("b"), return_exceptions=True
    )
    return f"{type(answers[0]).__name__} {answers[1]}"


@on_loop
async def test_restarted_parent_has_children_of_its_own(database_url: str) -> None:
    """A parent started again under its id after it failed: its new child runs, and is not the old one."""
    children.clear()
    fails[:] = [True]
    async with Perdure(database_url, lease=5, grace=0):
        first = await perdure.start(parent.options(id="p"), "first")
        with pytest.raises(LookupError):
            await first.result(5)
        second = await perdure.start(parent.options(id="p", on_conflict="restart_if_failed"), "second")
        assert second.created
        assert await second.result(5) == "second"
    assert children == ["first", "second"]


@on_loop
async def test_stranger_with_the_id_of_a_child_does_not_stop_the_parent(database_url: str) -> None:
    """Every id that looks like the child's is taken: the parent still has its child, and its result."""
    children.clear()
    fails.clear()
    async with Perdure(database_url, lease=5, grace=0):
        await perdure.start(parent.options(id="model"), "model")
        ids = "select id from perdure.runs where parent is not null"
        names = await until_true(lambda: asyncio.to_thread(rows, database_url, ids))
        guessed = names[0][0].replace("model", "q")
        await (await perdure.start(child.options(id=guessed), "stranger")).result(5)
        assert await (await perdure.start(parent.options(id="q"), "own")).result(5) == "own"
    assert "own" in children


@on_loop
async def test_open_transaction_on_a_childs_id_does_not_hold_up_the_core_lane(database_url: str) -> None:
    """A stranger holds an id that looks like a child's: other runs record their steps meanwhile."""
    children.clear()
    fails.clear()
    async with Perdure(database_url, lease=5, grace=0):
        with stranger(database_url) as somebody:
            take_id(somebody, "held/1")
            held = await perdure.start(parent.options(id="held"), "held")
            assert await asyncio.wait_for(parent("free"), 2) == "free"
        assert await held.result(5) == "held"


@on_loop
async def test_conflict_in_a_branch_reaches_the_code(database_url: str) -> None:
    """A child start in `gather` whose id belongs to another workflow raises there; the run goes on."""
    async with Perdure(database_url, lease=5, grace=0):
        await perdure.start(parent.options(id="of-another"), "x")
        handle = await perdure.start(in_branches)
        assert await handle.result(5) == f"{WorkflowConflict.__name__} b"
