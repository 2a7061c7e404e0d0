"""Runs that are undone, and one that goes on as new, for workers that crash at each durable effect; see `crash_walk`.

What undoes returns the name of what it undid, and leaves a row in `calls` like every body.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Final

import psycopg

import perdure
from perdure import step, sync, transaction, workflow
from tests import crash_walk
from tests.crash_walk import LEASE, called, own, say

ID: Final = "the walk"
LIVES: Final = 3


@step(name="undo-walk.undo")
async def undo(result: str, name: str) -> str:
    return called(f"undo {result}")


@transaction(name="undo-walk.give_back")
async def give_back(conn: perdure.AsyncConnection, result: str, name: str) -> str:
    called(f"undo {result}")
    await conn.execute("insert into ledger values (%s)", (result,))
    return f"undo {result}"


@step(name="undo-walk.do", compensate=undo)
async def do(name: str) -> str:
    return called(name)


@step(name="undo-walk.pay", compensate=give_back)
async def pay(name: str) -> str:
    return called(name)


@step(name="undo-walk.ask")
def ask_to_stop() -> None:
    """Cancel the run, from inside one of its steps."""
    own[0].execute("update perdure.live set cancel = 1 where cancel = 0")


@workflow(name="undo-walk.walk")
async def walk(how: str) -> None:
    await do("first")
    await asyncio.gather(do("left"), do("right"))
    await pay("paid")
    if how == "cancelled":
        await perdure.run_step(ask_to_stop)
        await perdure.sleep(3600)
    raise LookupError("in the end")


@step(name="undo-walk.reserve")
async def reserve(name: str) -> str:
    return called(name)


@workflow(name="undo-walk.saga")
async def in_a_saga() -> None:
    async with perdure.saga() as outer:
        outer(undo, await reserve("first"), "first")
        async with perdure.saga() as inner:
            inner(give_back, await reserve("paid"), "paid")
            inner(undo, await reserve("last"), "last")
            raise LookupError("in the end")


@step(name="undo-walk.undo-blocking")
def undo_blocking(result: str, name: str) -> str:
    return called(f"undo {result}")


@transaction(name="undo-walk.give_back-blocking")
def give_back_blocking(conn: perdure.Connection, result: str, name: str) -> str:
    called(f"undo {result}")
    conn.execute("insert into ledger values (%s)", (result,))
    return f"undo {result}"


@step(name="undo-walk.do-blocking", compensate=undo_blocking)
def do_blocking(name: str) -> str:
    return called(name)


@step(name="undo-walk.pay-blocking", compensate=give_back_blocking)
def pay_blocking(name: str) -> str:
    return called(name)


@workflow(name="undo-walk.walk-blocking")
def walk_blocking(how: str) -> None:
    do_blocking("first")
    sync.gather(lambda: do_blocking("left"), lambda: do_blocking("right"))
    pay_blocking("paid")
    if how == "cancelled":
        ask_to_stop()
        sync.sleep(3600)
    raise LookupError("in the end")


@step(name="undo-walk.reserve-blocking")
def reserve_blocking(name: str) -> str:
    return called(name)


@workflow(name="undo-walk.saga-blocking")
def in_a_saga_blocking() -> None:
    with sync.saga() as outer:
        outer(undo_blocking, reserve_blocking("first"), "first")
        with sync.saga() as inner:
            inner(give_back_blocking, reserve_blocking("paid"), "paid")
            inner(undo_blocking, reserve_blocking("last"), "last")
            raise LookupError("in the end")


@step(name="undo-walk.count")
async def count(life: int) -> str:
    return called(f"life {life}")


@workflow(name="undo-walk.onward")
async def onward(life: int, seen: list[str]) -> list[str]:
    seen.append(await count(life))
    if life < LIVES:
        await perdure.continue_as_new(life + 1, seen)
    return seen


@workflow(name="undo-walk.onward-blocking")
def onward_blocking(life: int, seen: list[str]) -> list[str]:
    seen.append(sync.run_step(count, life))
    if life < LIVES:
        sync.continue_as_new(life + 1, seen)
    return seen


async def work(url: str, how: str) -> Any:
    """Run an async one, or go on with it."""
    async with perdure.Perdure(url, lease=LEASE, migrate=False):
        if how == "onward":
            return await (await onward.options(id=ID).start(1, [])).result()
        try:
            if how == "saga":
                return await (await in_a_saga.options(id=ID).start()).result()
            await (await walk.options(id=ID).start(how)).result()
        except Exception as error:
            return repr(error)
    return "it succeeded"


def work_blocking(url: str, how: str) -> Any:
    """Run a blocking one, or go on with it."""
    with sync.Perdure(url, lease=LEASE, migrate=False):
        if how == "onward":
            return onward_blocking.options(id=ID).start(1, []).result()
        try:
            if how == "saga":
                return in_a_saga_blocking.options(id=ID).start().result()
            walk_blocking.options(id=ID).start(how).result()
        except Exception as error:
            return repr(error)
    return "it succeeded"


def run_worker(order: dict[str, str]) -> None:
    """Be one worker."""
    colour, _, how = order["colour"].partition(" ")
    try:
        own.append(psycopg.connect(order["own"], autocommit=True))
        result = (
            asyncio.run(work(order["url"], how)) if colour == "async" else work_blocking(order["url"], how)
        )
    except BaseException as error:
        say(os.getpid(), {"error": repr(error)})
        os._exit(1)
    say(os.getpid(), {"result": result})
    os._exit(0)


if __name__ == "__main__":
    sys.modules["tests.undo_walk"] = sys.modules["__main__"]
    crash_walk.__dict__.update(run_worker=run_worker)
    crash_walk.main()
