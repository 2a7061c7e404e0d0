"""Going on as new, while somebody looks for the run, waits for it, or cancels it at that very moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import perdure
from perdure import Perdure, WorkflowCancelled, sync, workflow
from perdure.models import CancelReason
from perdure.store.operations import Note
from perdure.worker.engine import Engine
from tests.api_tools import on_loop, rows, until, until_true

door = threading.Event()
LIVES = "select 1 from perdure.runs where id = %s having count(*) = %s"
PUT_AWAY = "select 1 from perdure.live where workflow = %s and status = 4"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    door.clear()


@workflow(name="race.onward")
async def onward(left: int) -> str:
    if left:
        await asyncio.to_thread(door.wait, 30)
        await perdure.continue_as_new(left - 1)
    return str(await perdure.receive("end"))


@workflow(name="race.parent")
async def parent(left: int) -> str:
    return "the child: " + await onward.options(id="child")(left)


@workflow(name="race.parent_blocking")
def parent_blocking(left: int) -> str:
    return "the child: " + sync.start(onward.options(id="child"), left).result()


@on_loop
async def test_a_cancel_that_meets_the_change_cancels_the_next_life(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was found by its id, and has gone on before it was asked: the cancel is not "too late"."""
    plainly = Engine.cancel
    calls: list[Sequence[int]] = []

    def cancel(self: Engine, keys: Sequence[int], reason: CancelReason, note: Note | None) -> list[int]:
        calls.append(keys)
        if len(calls) == 1:
            door.set()
            until(lambda: rows(database_url, LIVES, "one", 2))
        return plainly(self, keys, reason, note)

    monkeypatch.setattr(Engine, "cancel", cancel)
    async with Perdure(database_url):
        handle = await onward.options(id="one").start(1)
        assert await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert len(calls) == 2


@pytest.mark.parametrize("flow", [parent, parent_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_parent_leaves_memory_though_its_child_has_gone_on_before(
    flow: Any, database_url: str
) -> None:
    """It waits for the life that is there now, and is woken by that one's end."""
    door.set()
    async with Perdure(database_url) as app:
        handle = await perdure.start(flow, 3)
        await until_true(lambda: asyncio.to_thread(rows, database_url, PUT_AWAY, flow.definition.name))
        assert rows(database_url, LIVES, "child", 4)
        await app.handle("child").send("end", "well")
        assert await handle.result(timeout=30) == "the child: well"
