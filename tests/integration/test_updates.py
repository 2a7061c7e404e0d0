"""Updates: asked with an id, answered once, the same answer for whoever asks again; in both colours."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import Perdure, RunEnded, Topic, WaitTimeout, WorkflowNotFound, step, sync, workflow
from tests.api_tools import on_loop, rows, until, until_true
from tests.message_tools import COLOURS, asked, waiting
from tests.process_tools import processes, say

both = pytest.mark.parametrize("colour", COLOURS)


@dataclass
class Change:
    by: int


class TooMuch(Exception):
    """What the run rejects with."""


change = Topic("change", Change)
handled: list[int] = []


@step(name="updates.handle")
def handle_it(by: int) -> int:
    handled.append(by)
    return by


@workflow(name="updates.counter")
async def counter() -> int:
    total = 0
    async for request in perdure.updates(change):
        by = request.payload.by
        if by == 0:
            await request.reply(total)
            break
        if by > 100:
            await request.reject(TooMuch(by, "is too much"))
            continue
        total += await perdure.run_step(handle_it, by)
        await request.reply(total)
    return total


@workflow(name="updates.counter_blocking")
def counter_blocking() -> int:
    total = 0
    for request in sync.updates(change):
        by = request.payload.by
        if by == 0:
            request.reply(total)
            break
        if by > 100:
            request.reject(TooMuch(by, "is too much"))
            continue
        total += handle_it(by)
        request.reply(total)
    return total


@workflow(name="updates.asker")
async def asker(id: str, numbers: list[int]) -> list[Any]:
    seen: list[Any] = []
    for number in numbers:
        try:
            seen.append(await counter.handle(id).update(change, Change(number), type=int))
        except TooMuch as error:
            seen.append(str(error.args))
    return seen


@workflow(name="updates.deaf")
async def deaf() -> str:
    await perdure.receive("end")
    return "never looked"


@workflow(name="updates.mortal")
async def mortal() -> None:
    """Kills its process between receiving and replying, in its first life."""
    async for request in perdure.updates("u", type=int):
        life = await first_life(os.getpid())
        if life == os.getpid():
            say("received", request.payload)
            await perdure.receive("never")
        await request.reply(request.payload * 2)


@step(name="updates.first_life")
async def first_life(pid: int) -> int:
    return pid


COUNTER: dict[str, Any] = {"async": counter, "blocking": counter_blocking}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    handled.clear()


@both
@on_loop
async def test_an_update_is_answered(colour: str, database_url: str) -> None:
    """With the value, or with the user's own exception; the loop goes on until the workflow leaves it."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(COUNTER[colour].options(id="c"))
        assert await handle.update(change, Change(2)) == 2
        with pytest.raises(TooMuch) as rejected:
            await handle.update(change, Change(101))
        assert rejected.value.args == (101, "is too much")
        assert await handle.update(change, Change(3), type=int) == 5
        assert await asker("c", [4, 102, 0]) == [9, "(102, 'is too much')", 9]
        assert await handle.result(20) == 9


@both
@on_loop
async def test_an_update_is_handled_once_for_each_id(colour: str, database_url: str) -> None:
    """Asked five times with one id, at once and later, also after the end: one run of the handler, one answer."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(COUNTER[colour].options(id="c"))
        asking = [handle.update(change, Change(2), id="once") for _ in range(5)]
        assert await asyncio.gather(*asking) == [2] * 5
        for _ in range(2):
            with pytest.raises(TooMuch):
                await handle.update(change, Change(101), id="rejected")
        assert await handle.update(change, Change(3)) == 5
        assert await handle.update(change, Change(2), id="once") == 2
        await handle.update(change, Change(0))
        assert await handle.result(20) == 5
        assert await handle.update(change, Change(2), id="once") == 2
        with pytest.raises(TooMuch):
            await handle.update(change, Change(101), id="rejected")
    assert handled == [2, 3]


@both
@on_loop
async def test_a_run_that_is_put_away_answers(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for updates holds no memory; each wakes it, in order."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.03)
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(COUNTER[colour].options(id="c"))
        for number in (1, 2, 3):
            await waiting(database_url)
            assert await handle.update(change, Change(number)) == sum(range(number + 1))
    assert handled == [1, 2, 3]


@on_loop
async def test_an_update_of_the_wrong_type_is_rejected_and_the_loop_goes_on(database_url: str) -> None:
    """The asker is told what was wrong; so is nobody who writes to the topic by hand."""
    async with Perdure(database_url, grace=0):
        handle = await counter.options(id="c").start()
        with pytest.raises(perdure.SerializationError):
            await handle.update("change", {"by": "much"})
        await asked(database_url, "select perdure.send_encoded('c', '!update/change', '[]', null)")
        assert await handle.update(change, Change(1)) == 1


@on_loop
async def test_updates_without_an_answer_say_why(database_url: str) -> None:
    """Not in time, ended without, unknown run."""
    async with Perdure(database_url, grace=0):
        handle = await deaf.options(id="d").start()
        with pytest.raises(WaitTimeout):
            await handle.update("u", 1, timeout=0.05)
        pending = asyncio.create_task(handle.update("u", 2))
        await until_true(lambda: asked(database_url, "select 1 from perdure.messages having count(*) = 2"))
        await handle.send("end", 1)
        with pytest.raises(RunEnded, match="run d ended as succeeded without answering"):
            await pending
        with pytest.raises(RunEnded, match="without answering"):
            await handle.update("u", 3)
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await deaf.handle("nobody").update("u", 1)


@on_loop
async def test_answers_are_no_events_of_the_user(database_url: str) -> None:
    """They stay out of the list of events, and cannot be set or asked for by name."""
    async with Perdure(database_url, grace=0):
        handle = await counter.options(id="c").start()
        await handle.update(change, Change(1), id="u")
        assert await handle.events() == ()
        with pytest.raises(ValueError, match="name"):
            await handle.get_event("!answer/u")


async def serve(url: str) -> None:
    """A worker, until it is killed."""
    async with Perdure(url, lease=1, grace=0):
        say("serving")
        await asyncio.Event().wait()


def test_an_update_whose_worker_dies_before_it_replies_is_answered_by_the_next(database_url: str) -> None:
    """Received and recorded, the worker killed: the next owner replies, once, to whoever still waits."""
    with processes() as family, sync.Perdure(database_url, worker=False) as client:
        first = family.start(__name__, "serve", database_url)
        first.wait_for("serving")
        with client.bind():
            sync.start(mortal.options(id="m"))
            with pytest.raises(WaitTimeout):
                mortal_handle(client).update("u", 21, id="once", timeout=0.01)
            first.wait_for("received 21")
            until(lambda: rows(database_url, "select 1 from perdure.steps where name = 'updates.first_life'"))
            first.kill()
            family.start(__name__, "serve", database_url).wait_for("serving")
            sync.send("m", "never", 1)
            assert mortal_handle(client).update("u", 21, id="once", timeout=30) == 42
        assert rows(database_url, "select count(*) from perdure.messages where topic like '!update%'") == [
            (1,)
        ]
        received = "select count(*) from perdure.steps where name like '!update%' and message is not null"
        assert rows(database_url, received) == [(1,)]


def mortal_handle(client: sync.Perdure) -> Any:
    """A blocking handle of the run."""
    return client.handle("m")
