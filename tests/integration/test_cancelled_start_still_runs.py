"""A start that became durable runs, also if whoever asked for it was cancelled before the answer came."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import Perdure, workflow
from tests.api_tools import on_loop, rows, until_true
from tests.protocol_tools import stranger, take_id

BLOCKED = "select 1 from pg_locks where not granted"


@workflow(name="cancelled.flow")
async def flow(number: int) -> int:
    return number


async def cancel_at(doing: asyncio.Future[Any], url: str, id: str) -> None:
    """Cancel a start while a stranger holds its id back, so that it becomes durable afterwards."""
    with pytest.raises(asyncio.CancelledError):
        await doing
    born = "select 1 from perdure.runs where id = %s"
    await until_true(lambda: asyncio.to_thread(rows, url, born, id))


@on_loop
async def test_cancelled_start_runs_all_the_same(database_url: str) -> None:
    """Cancelled while it waits for its commit: the run is durable then, and ends; starting again attaches to it."""
    async with Perdure(database_url, lease=5, grace=0):
        with stranger(database_url) as somebody:
            take_id(somebody, "wanted")
            starting = asyncio.ensure_future(perdure.start(flow.options(id="wanted"), 1))
            await until_true(lambda: asyncio.to_thread(rows, database_url, BLOCKED))
            starting.cancel()
        await cancel_at(starting, database_url, "wanted")
        again = await perdure.start(flow.options(id="wanted"), 1)
        assert not again.created
        assert await again.result(5) == 1


@on_loop
async def test_cancelled_direct_call_runs_all_the_same(database_url: str) -> None:
    """The same for a workflow that is called like a function."""
    async with Perdure(database_url, lease=5, grace=0):
        with stranger(database_url) as somebody:
            take_id(somebody, "called")
            calling = asyncio.ensure_future(flow.options(id="called")(1))
            await until_true(lambda: asyncio.to_thread(rows, database_url, BLOCKED))
            calling.cancel()
        await cancel_at(calling, database_url, "called")
        assert await flow.handle("called").result(5) == 1
