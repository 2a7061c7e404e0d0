"""Colours: a call of the wrong colour raises WrongColour, shows its own line, and says what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import perdure
from perdure import AsyncConnection, Connection, Perdure, WrongColour, step, transaction, workflow
from tests.api_tools import on_loop


@step
async def async_step() -> str:
    return "async step"


@step
def def_step() -> str:
    return "def step"


@transaction
async def async_transaction(conn: AsyncConnection) -> str:
    return "async transaction"


@transaction
def def_transaction(conn: Connection) -> str:
    return "def transaction"


@workflow
async def async_child() -> str:
    return "async child"


@workflow
def def_child() -> str:
    return "def child"


@workflow
async def wrong_in_async(what: str) -> str:
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: [def_step()],  # the line of def_step
        "transaction": lambda: [def_transaction()],  # the line of def_transaction
        "call": lambda: [def_child()],  # the line of def_child
        "start": lambda: [def_child.start()],  # the line of def_child.start
        "sleep": lambda: perdure.sync.sleep(1),  # the line of sleep
        "run_step": lambda: [perdure.sync.run_step(async_step)],  # the line of run_step
        "sync_start": lambda: [perdure.sync.start(def_child)],  # the line of sync.start
        "gather": lambda: [perdure.sync.gather(lambda: 1)],  # the line of gather
        "handle": lambda: [def_child.handle("x").result()],  # the line of result
        "status": lambda: [def_child.handle("x").status()],  # the line of status
    }
    try:
        calls[what]()
    except WrongColour as error:
        return str(error)
    return "nothing was wrong"


@workflow
def wrong_in_blocking(what: str) -> str:
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: [async_step()],  # the line of async_step
        "transaction": lambda: [async_transaction()],  # the line of async_transaction
        "call": lambda: [async_child()],  # the line of async_child
        "sleep": lambda: [perdure.sleep(1)],  # the line of sleep
        "sleep_until": lambda: [perdure.sleep_until(perdure.now())],  # the line of sleep_until
        "start": lambda: [async_child.start()],  # the line of start
        "run_step": lambda: [perdure.run_step(def_step)],  # the line of run_step
        "handle": lambda: [async_child.handle("x").result()],  # the line of result
    }
    try:
        calls[what]()
    except WrongColour as error:
        return str(error)
    return "nothing was wrong"


@workflow
async def right_in_async() -> list[str]:
    handle = await perdure.start(def_child)
    return [
        await async_step(),
        await perdure.run_step(def_step),
        await async_transaction(),
        await perdure.run_step(def_transaction),
        await async_child(),
        await handle.result(),
    ]


@workflow
def right_in_blocking() -> list[str]:
    return [
        perdure.sync.run_step(async_step),
        def_step(),
        perdure.sync.run_step(async_transaction),
        def_transaction(),
        perdure.sync.start(async_child).result(),
        def_child(),
    ]


@step
async def calls_def_step() -> str:
    return def_step()


@workflow
async def step_in_step() -> str:
    return await calls_def_step()


SHOWN_IN_ASYNC = {
    "step": ("the line of def_step", "perdure.run_step"),
    "transaction": ("the line of def_transaction", "perdure.run_step"),
    "call": ("the line of def_child", "perdure.start"),
    "start": ("the line of def_child.start", "perdure.start"),
    "sleep": ("the line of sleep", "perdure.sleep"),
    "run_step": ("the line of run_step", "perdure.run_step"),
    "sync_start": ("the line of sync.start", "perdure.start"),
    "gather": ("the line of gather", "asyncio.gather"),
    "handle": ("the line of result", "app.handle"),
    "status": ("the line of status", "app.handle"),
}
SHOWN_IN_BLOCKING = {
    "step": ("the line of async_step", "perdure.sync.run_step"),
    "transaction": ("the line of async_transaction", "perdure.sync.run_step"),
    "call": ("the line of async_child", "perdure.sync.start"),
    "sleep": ("the line of sleep", "perdure.sync.sleep"),
    "sleep_until": ("the line of sleep_until", "perdure.sync.sleep_until"),
    "start": ("the line of start", "perdure.sync.start"),
    "run_step": ("the line of run_step", "perdure.sync.run_step"),
    "handle": ("the line of result", "perdure.sync"),
}


@pytest.mark.parametrize("what", SHOWN_IN_ASYNC)
def test_a_blocking_call_in_an_async_workflow_shows_its_line(what: str, database_url: str) -> None:
    """The error has the text of the line that called; and it does not block the loop to say so."""

    async def main() -> str:
        async with Perdure(database_url):
            return await wrong_in_async(what)

    shown, _ = SHOWN_IN_ASYNC[what]
    assert shown in asyncio.run(main())


@pytest.mark.parametrize("what", SHOWN_IN_BLOCKING)
def test_an_async_call_in_a_blocking_workflow_shows_its_line(what: str, database_url: str) -> None:
    """The error has the text of the line that called."""
    shown, _ = SHOWN_IN_BLOCKING[what]
    with perdure.sync.Perdure(database_url):
        assert shown in wrong_in_blocking(what)


def test_every_wrong_colour_says_what_to_write_instead(database_url: str) -> None:
    """Each text names the call that would be right."""
    with perdure.sync.Perdure(database_url):
        unhelpful = {
            what: text
            for what, (_, instead) in SHOWN_IN_ASYNC.items()
            if instead not in (text := perdure.sync.start(wrong_in_async, what).result())
        }
        unhelpful |= {
            what: text
            for what, (_, instead) in SHOWN_IN_BLOCKING.items()
            if instead not in (text := wrong_in_blocking(what))
        }
    assert unhelpful == {}


RIGHT = ["async step", "def step", "async transaction", "def transaction", "async child", "def child"]


@on_loop
async def test_there_is_a_right_way_across_every_colour(database_url: str) -> None:
    """From an async workflow everything blocking can be reached, by `run_step` and `start`."""
    async with Perdure(database_url):
        assert await right_in_async() == RIGHT


def test_there_is_a_right_way_across_every_colour_in_blocking_code(database_url: str) -> None:
    """From a blocking workflow everything async can be reached, on a loop thread of the app's."""
    with perdure.sync.Perdure(database_url):
        assert right_in_blocking() == RIGHT
        assert perdure.sync.start(right_in_async).result(timeout=20) == RIGHT


@on_loop
async def test_an_async_app_runs_blocking_workflows(database_url: str) -> None:
    """A `def` workflow that uses every colour runs in a thread beside the user's loop."""
    async with Perdure(database_url):
        assert await (await perdure.start(right_in_blocking)).result(timeout=20) == RIGHT


@on_loop
async def test_a_step_inside_a_step_is_a_plain_call(database_url: str) -> None:
    """The body of an async step may call a `def` step: there it is a function like others."""
    async with Perdure(database_url):
        handle = await step_in_step.start()
        assert await handle.result(timeout=20) == "def step"
        assert len(await handle.steps()) == 1


@on_loop
async def test_blocking_calls_on_the_loop_outside_of_workflows(database_url: str) -> None:
    """A blocking workflow called on the app's own loop works or raises; it does not hang."""
    async with Perdure(database_url):
        try:
            assert await asyncio.wait_for(asyncio.to_thread(def_child), 20) == "def child"
            assert def_child() == "def child"
        except WrongColour:
            pass
