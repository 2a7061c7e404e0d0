"""What a body says of its progress is what its next attempt finds, and saying it can harm nobody."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import NotInWorkflow, Perdure, Retry, step, sync, workflow
from perdure.worker.incarnation import Incarnation
from tests.api_tools import on_loop, rows, until_true

log: list[Any] = []
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()


@step(name="beat.imports", retry=Retry(max_attempts=3, delay=0))
async def imports(lines: int) -> int:
    begin: int = (perdure.info().heartbeat or {"line": 0})["line"]
    log.append(begin)
    for line in range(begin, lines):
        await perdure.heartbeat({"line": line + 1})
        if line in (4, 7):
            raise ConnectionError(f"at line {line}")
    return begin


@step(name="beat.imports_blocking", retry=Retry(max_attempts=3, delay=0))
def imports_blocking(lines: int) -> int:
    begin: int = (perdure.info().heartbeat or {"line": 0})["line"]
    log.append(begin)
    for line in range(begin, lines):
        sync.heartbeat({"line": line + 1})
        if line in (4, 7):
            raise ConnectionError(f"at line {line}")
    return begin


@workflow(name="beat.run")
async def run() -> int:
    return await imports(10)


@workflow(name="beat.run_blocking")
def run_blocking() -> int:
    return imports_blocking(10)


@pytest.mark.parametrize("flow", [run, run_blocking], ids=["async", "blocking"])
@on_loop
async def test_the_next_attempt_finds_what_the_last_one_said_last(flow: Any, database_url: str) -> None:
    """In the same process: exactly the last word, however quickly they were said."""
    async with Perdure(database_url):
        assert await (await perdure.start(flow)).result(timeout=30) == 8
    assert log == [0, 5, 8]


@step(name="beat.holds")
def holds() -> Any:
    log.append(perdure.info().heartbeat)
    for number in range(50):
        sync.heartbeat([number])
    log.append("said")
    assert door.wait(30)
    return perdure.info().heartbeat


@workflow(name="beat.handed_over")
async def handed_over() -> Any:
    return await perdure.run_step(holds)


@on_loop
async def test_the_next_worker_finds_it_too(database_url: str) -> None:
    """After a hand-over the new attempt reads the last word from the record."""
    async with Perdure(database_url, grace=0):
        handle = await handed_over.start()
        await until_true(
            lambda: asyncio.to_thread(
                rows, database_url, "select 1 from perdure.intents where detail = '[49]'"
            )
        )
    door.set()
    async with Perdure(database_url) as app:
        assert await app.handle(handle.id).result(timeout=30) == [49]
    assert log == [None, "said", [49], "said"]


@step(name="beat.other", retry=Retry(max_attempts=2, delay=0))
async def other(name: str) -> Any:
    seen = perdure.info().heartbeat
    if seen is None:
        await perdure.heartbeat(name)
        raise ConnectionError("again")
    return seen


@workflow(name="beat.apart")
async def apart() -> list[Any]:
    return [await other("first"), *await asyncio.gather(other("left"), other("right"))]


@on_loop
async def test_each_call_has_its_own(database_url: str) -> None:
    """The same step called again begins without."""
    async with deployed(database_url):
        assert await apart() == ["first", "left", "right"]


@step(name="beat.dies")
async def dies() -> str:
    await perdure.heartbeat(1)
    await perdure.heartbeat(2)  # it waits for the answer to the first
    log.append("said")

    async def check() -> bool:
        return door.is_set()

    await until_true(check)
    return "well"


@workflow(name="beat.lives_on")
async def lives_on() -> str:
    return await dies()


@workflow(name="beat.nothing")
async def nothing() -> str:
    return str(await other("x"))


@on_loop
async def test_a_note_that_comes_when_the_lease_is_over_stops_no_journal(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to one note sends the next; where the worker is no longer sure of its lease that one is left out."""
    alive = Incarnation.alive
    monkeypatch.setattr(Incarnation, "alive", lambda self: alive(self) and "said" not in log)
    async with deployed(database_url):
        handle = await lives_on.start()
        await until_true(
            lambda: asyncio.to_thread(
                rows, database_url, "select 1 from perdure.intents where detail is not null"
            )
        )
        journals = [thread for thread in threading.enumerate() if thread.name == "perdure-journal"]
        monkeypatch.setattr(Incarnation, "alive", alive)
        door.set()
        assert await handle.result(timeout=20) == "well"
        assert await nothing() == "x"
        assert journals
        assert all(thread.is_alive() for thread in journals)


def deployed(url: str) -> Perdure:
    return Perdure(url, grace=0)


@on_loop
async def test_it_is_said_by_the_body_of_a_step(database_url: str) -> None:
    """Neither outside, nor by workflow code, which has no attempt."""
    async with Perdure(database_url):
        with pytest.raises(NotInWorkflow):
            await perdure.heartbeat(1)
        with pytest.raises(NotInWorkflow):
            await wrongly()


@workflow(name="beat.wrongly")
async def wrongly() -> None:
    await perdure.heartbeat(1)
