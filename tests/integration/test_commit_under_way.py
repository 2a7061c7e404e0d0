"""While a transaction step's COMMIT is under way, the code of its run learns nothing else: its place in the order is taken."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import perdure
from perdure import AsyncConnection, Perdure, step, transaction, workflow
from tests.api_tools import on_loop, until_true

pytestmark = pytest.mark.postgres

TABLE = """
create table entries (text text not null);
create function wait_for_leave() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7);
    return null;
end $$;
create constraint trigger waits after insert on entries deferrable initially deferred
    for each row execute function wait_for_leave();
"""
AT_COMMIT = "select 1 from pg_locks where locktype = 'advisory' and objid = 7 and not granted"
TURNS = 100
"""Of the loop, in which an answer that waits at the gate would have been handed out, had it been let."""


class Rival:
    """A step that ends when the test says so."""

    def __init__(self) -> None:
        self.go, self.gone = asyncio.Event(), asyncio.Event()


rivals: dict[str, Rival] = {}


@transaction
async def write(connection: AsyncConnection, text: str) -> str:
    await connection.execute("insert into entries values (%s)", (text,))
    return text


@step
async def rival(name: str) -> str:
    await rivals[name].go.wait()
    rivals[name].gone.set()
    return "rival"


@step
async def note(text: str) -> str:
    return text


@workflow
async def raced(name: str) -> str:
    _, first = await perdure.race(write(name), rival(name))
    return await note(first)


async def bounded_by_rival(name: str) -> str:
    """`perdure.timeout`, but for who ends it: a branch whose answer cancels the block."""
    block = asyncio.create_task(write(name))
    other = asyncio.create_task(rival(name))
    other.add_done_callback(lambda _: block.cancel())
    try:
        return await block
    except asyncio.CancelledError:
        return "cancelled"
    finally:
        await other


@workflow
async def cancelled(name: str) -> str:
    return await note(await bounded_by_rival(name))


@pytest.mark.parametrize("target", [raced, cancelled], ids=["race", "cancel"])
@on_loop
async def test_what_is_ready_meanwhile_comes_after_it(target: Any, database_url: str) -> None:
    """The record stands, so the code sees it; a replay finds the same."""
    here = rivals["a"] = Rival()
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
        Perdure(database_url) as app,
    ):
        await connection.execute(TABLE)
        await connection.execute("select pg_advisory_lock(7)")
        handle = await target.options(id="a").start("a")
        await until_true(lambda: found(connection, AT_COMMIT))
        here.go.set()
        await here.gone.wait()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await connection.execute("select pg_advisory_unlock(7)")
        assert await handle.result() == "a"
        (replayed,) = await app.runs.replay("a")
        assert replayed.agrees, replayed.text
        assert await found(connection, "select text from entries") == [("a",)]


async def found(connection: psycopg.AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode())).fetchall()
