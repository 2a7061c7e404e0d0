"""A run that was started from SQL has a negative key, and lives like any other: replayed, fenced, listed, going on as new."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import Connection, Perdure, step, sync, transaction, workflow
from perdure.store import claims
from tests.api_tools import on_loop, rows, until, until_true
from tests.message_tools import asked
from tests.outbox_tools import started_from_sql

calls: list[str] = []


@step
def note(text: str) -> str:
    calls.append(text)
    return text


@step
async def note_async(text: str) -> str:
    calls.append(text)
    return text


@transaction
def locks_its_fence(conn: Connection, url: str) -> int:
    calls.append("locks")
    ((free,),) = rows(
        url,
        "select count(*) from (select 1 from perdure.fences where slot >= 4 for update skip locked) f",
    )
    ((all,),) = rows(url, "select count(*) from perdure.fences where slot >= 4")
    return int(all - free)


@workflow(name="keys.child")
async def child(text: str) -> str:
    return await note_async(text)


@workflow(name="keys.flow")
async def flow(url: str) -> list[Any]:
    seen: list[Any] = [perdure.random().random(), str(perdure.uuid4()), perdure.now().isoformat()]
    seen += [await note_async("first"), await perdure.run_step(locks_its_fence, url), await child("child")]
    await perdure.set_event("so far", 1)
    await perdure.write_stream("log", "one")
    handle = await child.options(id=f"own-{perdure.info().run_id}").start("own")
    seen += [await handle.result(), await perdure.receive("go")]
    await perdure.write_stream("log", "two")
    seen += [perdure.random().random(), perdure.info().idempotency_key]
    return seen


@workflow(name="keys.loop")
async def loop(life: int) -> int:
    await note_async(f"life {life}")
    if life < 3:
        await perdure.continue_as_new(life + 1)
    return life


@workflow(name="keys.parent")
async def parent(ids: list[str]) -> list[Any]:
    return [await perdure.get_event(id, "e") for id in ids]


@workflow(name="keys.sets")
async def sets(value: int) -> int:
    await perdure.set_event("e", value)
    return value


def test_its_history_is_replayed_and_its_transactions_are_fenced(database_url: str) -> None:
    """Put away by one worker and finished by another: what was done is not done again, what was seen is seen again."""
    calls.clear()
    with sync.Perdure(database_url, grace=0) as app:
        id = started_from_sql(database_url, "keys.flow", [database_url])
        until(lambda: rows(database_url, "select 1 from perdure.waits where topic = 'go'"))
        key = app.runs.get(id).info.key
        assert key < 0
    done = list(calls)
    assert sorted(done) == ["child", "first", "locks", "own"]
    with sync.Perdure(database_url, grace=0) as app:
        handle = app.handle(id)
        handle.send("go", "on")
        seen = handle.result(30)
        assert calls == done
        assert seen[3:8] == ["first", 1, "child", "own", "on"]
        assert handle.get_event("so far") == 1
        assert [item.value for item in handle.stream("log") if hasattr(item, "value")] == ["one", "two"]
        assert {run.id.split("/")[0] for run in app.runs.list(parent=id)} == {id, f"own-{id}"}


@on_loop
async def test_a_page_of_a_list_goes_on_behind_it(database_url: str) -> None:
    """The cursor of a run with a negative key is a place like any other."""
    async with Perdure(database_url, worker=False) as app:
        await app.start("none", id="p0")
        await asked(database_url, "select perdure.start('none') from generate_series(1, 4)")
        await app.start("none", id="p1")
        seen: list[str] = []
        cursor = None
        while page := await app.runs.list(limit=1, cursor=cursor):
            seen.append(page[0].id)
            cursor = page[0].cursor
        assert len(seen) == len(set(seen)) == 6


@on_loop
async def test_it_goes_on_as_new(database_url: str) -> None:
    """Its next life has a key of the worker's, and waiters follow."""
    calls.clear()
    async with Perdure(database_url, grace=0) as app:
        id = await asyncio.to_thread(started_from_sql, database_url, "keys.loop", [1])
        handle = app.handle(id)

        async def ended() -> bool:
            return (await handle.status()).final

        await until_true(ended)
        assert await handle.result(30) == 3
        assert calls == ["life 1", "life 2", "life 3"]


@on_loop
async def test_another_run_waits_for_its_event(database_url: str) -> None:
    """Looked up by id, and followed by key."""
    async with Perdure(database_url, grace=0):
        ids = [await asyncio.to_thread(started_from_sql, database_url, "keys.sets", [n]) for n in range(3)]
        assert await parent(ids) == [0, 1, 2]


def test_long_histories_come_in_pages(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pages of a few rows, of several runs claimed at once, none misses a step."""
    monkeypatch.setattr(claims, "PAGE_ROWS", 2)
    calls.clear()
    with sync.Perdure(database_url, grace=0):
        ids = [started_from_sql(database_url, "keys.long", [str(n)]) for n in range(3)]
        until(lambda: rows(database_url, "select 1 from perdure.waits having count(*) = %s", 3))
    done = sorted(calls)
    with sync.Perdure(database_url, grace=0) as app:
        for id in ids:
            app.handle(id).send("go", 1)
        assert [app.handle(id).result(30) for id in ids] == [10] * 3
        assert sorted(calls) == done


@workflow(name="keys.long")
def long(name: str) -> int:
    for number in range(10):
        note(f"{name}.{number}")
    sync.receive("go")
    return 10
