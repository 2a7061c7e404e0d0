"""Handles: id, created, result, status, describe, steps, cancel; typed by the workflow, bare by the app."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import Perdure, WaitTimeout, WorkflowNotFound, step, transaction, workflow
from tests.api_tools import on_loop

door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    door.clear()


@dataclass
class Receipt:
    number: int
    at: datetime


@step
def wait_for_door() -> None:
    door.wait(30)


@step
async def count(number: int) -> int:
    return number + 1


@transaction
async def ask(conn: perdure.AsyncConnection, number: int) -> int:
    cursor = await conn.execute("select %s::int", (number,))
    row = await cursor.fetchone()
    assert row
    return int(row[0])


@workflow
async def receipt(number: int) -> Receipt:
    number = await ask(await count(number))
    return Receipt(number, datetime(2024, 1, 2, tzinfo=UTC))


@workflow
async def held(number: int) -> int:
    await perdure.run_step(wait_for_door)
    return number


@workflow
def held_blocking(number: int) -> int:
    wait_for_door()
    return number


@on_loop
async def test_a_wait_that_takes_too_long_says_so(database_url: str) -> None:
    """`result(timeout=)` raises WaitTimeout, which is a TimeoutError; the run goes on."""
    async with Perdure(database_url):
        handle = await held.start(3)
        for timeout in (0.05, timedelta(seconds=0.05), 0):
            with pytest.raises(WaitTimeout, match=handle.id):
                await handle.result(timeout=timeout)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        door.set()
        assert await handle.result(timeout=20) == 3


def test_a_blocking_wait_that_takes_too_long_says_so(database_url: str) -> None:
    """The blocking `result(timeout=)` raises WaitTimeout too."""
    with perdure.sync.Perdure(database_url):
        handle = held_blocking.start(3)
        with pytest.raises(WaitTimeout, match=handle.id):
            handle.result(timeout=0.05)
        assert handle.status() == "running"
        door.set()
        assert handle.result(timeout=20) == 3


@on_loop
async def test_a_result_is_there_for_everyone_any_time(database_url: str) -> None:
    """Several may wait at once, and who asks later, by another handle, gets the same result."""
    async with Perdure(database_url):
        handle = await held.start(3)
        waiting = [asyncio.create_task(held.handle(handle.id).result()) for _ in range(5)]
        await asyncio.sleep(0)
        door.set()
        assert await asyncio.gather(*waiting) == [3] * 5
        assert await handle.result(timeout=0) == 3
        assert await held.handle(handle.id).result(timeout=5) == 3


@on_loop
async def test_a_workflows_handle_is_typed_and_an_apps_is_plain(database_url: str) -> None:
    """`workflow.handle(id)` gives the declared type back, `app.handle(id)` what the JSON is."""
    async with Perdure(database_url) as app:
        await receipt.options(id="r")(4)
        assert await receipt.handle("r").result(timeout=5) == Receipt(5, datetime(2024, 1, 2, tzinfo=UTC))
        plain = await app.handle("r").result(timeout=5)
        assert plain["number"] == 5


@on_loop
async def test_a_handle_of_nothing_says_so(database_url: str) -> None:
    """Every operation on the handle of an id that no run has raises WorkflowNotFound with the id."""
    async with Perdure(database_url) as app:
        for handle in (app.handle("nobody"), receipt.handle("nobody")):
            for operation in (handle.result, handle.status, handle.describe, handle.steps, handle.cancel):
                with pytest.raises(WorkflowNotFound, match="nobody"):
                    await operation()


def test_a_blocking_handle_of_nothing_says_so(database_url: str) -> None:
    """The same for the blocking handle."""
    with perdure.sync.Perdure(database_url) as app:
        for handle in (app.handle("nobody"), held_blocking.handle("nobody")):
            for operation in (handle.result, handle.status, handle.describe, handle.steps, handle.cancel):
                with pytest.raises(WorkflowNotFound, match="nobody"):
                    operation()


@on_loop
async def test_describe_says_what_the_run_is(database_url: str) -> None:
    """`describe` has workflow, status, times and worker of the run."""
    before = datetime.now(UTC) - timedelta(minutes=5)
    async with Perdure(database_url, name="here"):
        handle = await receipt.start(1)
        await handle.result(timeout=20)
        info = await handle.describe()
    assert (info.id, info.workflow, info.status) == (handle.id, f"{__name__}.receipt", "succeeded")
    assert info.finished is not None
    assert before < info.created <= info.finished
    assert info.worker is not None
    assert (info.recoveries, info.parent, info.reason) == (0, None, None)


@on_loop
async def test_steps_says_what_the_code_was_told(database_url: str) -> None:
    """`steps` lists the recorded steps in order, with kind, name, value and attempts."""
    async with Perdure(database_url):
        handle = await receipt.start(1)
        await handle.result(timeout=20)
        first, second = await handle.steps()
    assert (first.kind, first.name, first.failed, first.attempts) == ("step", f"{__name__}.count", False, 1)
    assert (second.kind, second.name, second.json()) == ("transaction", f"{__name__}.ask", "2")
    assert first.recorded <= second.recorded


def test_a_blocking_handle_looks_the_same(database_url: str) -> None:
    """Status, describe and steps of a blocking handle need no loop."""
    with perdure.sync.Perdure(database_url):
        handle = held_blocking.start(1)
        door.set()
        handle.result(timeout=20)
        assert handle.status() == "succeeded"
        assert handle.describe().id == handle.id
        assert [found.name for found in handle.steps()] == [f"{__name__}.wait_for_door"]


@on_loop
async def test_a_handle_outlives_the_app_that_made_it(database_url: str) -> None:
    """After its app has closed a handle raises an error that names the app, and does not hang."""
    async with Perdure(database_url, name="gone"):
        handle = await receipt.start(1)
        await handle.result(timeout=20)
    with pytest.raises(perdure.PerdureError, match="gone"):
        await handle.status()
    with pytest.raises(perdure.PerdureError, match="gone"):
        await handle.result(timeout=5)


@on_loop
async def test_closing_the_app_ends_a_wait(database_url: str) -> None:
    """Who waits for a result while the app closes gets an error that names the app, and does not hang."""
    app = Perdure(database_url, name="closing", grace=0)
    await app.open()
    waiting = asyncio.create_task((await held.start(1)).result())
    await asyncio.sleep(0)
    await app.close()
    door.set()
    with pytest.raises(perdure.PerdureError, match="closing"):
        await asyncio.wait_for(waiting, 10)
