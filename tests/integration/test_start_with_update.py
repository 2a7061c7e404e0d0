"""A run that is started and asked for an update in one commit; from outside and as a child, in both colours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

import perdure
from perdure import (
    Perdure,
    PerdureError,
    RunEnded,
    SerializationError,
    Topic,
    WaitTimeout,
    WorkflowConflict,
    WrongColour,
    step,
    sync,
    workflow,
)
from tests.api_tools import on_loop, rows, until, until_true
from tests.message_tools import COLOURS, asked, waiting
from tests.process_tools import processes, say
from tests.protocol_tools import Proxy
from tests.servers import TestServer

both = pytest.mark.parametrize("colour", COLOURS)
UPDATES = "select count(*) from perdure.messages where topic like '!update/%'"


@dataclass
class Change:
    by: int


class TooMuch(Exception):
    """What the run rejects with."""


change = Topic("change", Change)
handled: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    handled.clear()


@pytest.fixture
def proxy(server: TestServer, database_url: str) -> Iterator[Proxy]:
    with Proxy(server, database_url) as made:
        yield made


@step(name="begun.handle")
def handle_it(by: int) -> None:
    handled.append(by)


@workflow(name="begun.counter")
async def counter(total: int, *, last: int = 0) -> int:
    async for request in perdure.updates(change):
        by = request.payload.by
        if by > 100:
            await request.reject(TooMuch(by, "is too much"))
            continue
        await perdure.run_step(handle_it, by)
        total += by
        await request.reply(total)
        if by == last:
            break
    return total


@workflow(name="begun.counter_blocking")
def counter_blocking(total: int, *, last: int = 0) -> int:
    for request in sync.updates(change):
        by = request.payload.by
        if by > 100:
            request.reject(TooMuch(by, "is too much"))
            continue
        handle_it(by)
        total += by
        request.reply(total)
        if by == last:
            break
    return total


COUNTER: dict[str, Any] = {"async": counter, "blocking": counter_blocking}


async def begin(target: Any, update: Any, *args: Any, **kwargs: Any) -> Any:
    """Start with an update, a blocking workflow by a thread and in its own colour."""
    if isinstance(target, type(counter) | type(counter.options())):
        return await target.start_with_update(change, Change(update), **kwargs)(*args)
    return await asyncio.to_thread(target.start_with_update(change, Change(update), **kwargs), *args)


async def answer(handle: Any, *args: Any, **kwargs: Any) -> Any:
    """The answer that a handle of either colour has."""
    if isinstance(handle, perdure.Handle):
        return await handle.answer(*args, **kwargs)
    return await asyncio.to_thread(handle.answer, *args, **kwargs)


# -- from outside --------------------------------------------------------------------------------------


@both
@on_loop
async def test_a_run_that_is_started_with_an_update_answers_it(colour: str, database_url: str) -> None:
    """With a value of the type that is asked for, or with the user's own exception; asked for twice it is the same."""
    async with Perdure(database_url, grace=0):
        handle = await begin(COUNTER[colour], 5, 10)
        assert handle.created
        assert [await answer(handle), await answer(handle, Decimal, timeout=20)] == [15, Decimal(15)]
        refused = await begin(COUNTER[colour].options(id="c"), 101, 10)
        for _ in range(2):
            with pytest.raises(TooMuch) as rejected:
                await answer(refused)
            assert rejected.value.args == (101, "is too much")
        assert await counter.handle("c").update(change, Change(1)) == 11
    assert handled == [5, 1]


@both
@on_loop
async def test_the_run_and_the_update_are_one_commit(colour: str, database_url: str) -> None:
    """Both rows are of one transaction."""
    async with Perdure(database_url, worker=False):
        handle = await begin(COUNTER[colour].options(id="c", queue="nobody"), 5, 10, update_id="u")
        with pytest.raises(WaitTimeout):
            await answer(handle, timeout=0)
    together = (
        "select m.topic, m.key, r.xmin = m.xmin from perdure.runs r join perdure.messages m on m.run = r.key"
    )
    assert await asked(database_url, together) == [("!update/change", "u", True)]


@both
@on_loop
async def test_a_run_that_is_there_is_asked_once_for_each_update_id(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once and later, put away or not; without an id each call asks anew."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.03)
    chosen = COUNTER[colour].options(id="c")
    async with Perdure(database_url, grace=0):
        handles = await asyncio.gather(*(begin(chosen, 5, 10, update_id="once") for _ in range(5)))
        assert [handle.created for handle in handles].count(True) == 1
        assert [await answer(handle) for handle in handles] == [15] * 5
        await waiting(database_url)
        for expected in (16, 17):
            assert await answer(await begin(chosen, 1, 10)) == expected
        again = await begin(chosen, 5, 10, update_id="once")
        assert (again.created, await answer(again)) == (False, 15)
        assert await counter.handle("c").update(change, Change(5), id="once") == 15
    assert handled == [5, 1, 1]


@both
@on_loop
async def test_a_run_that_has_ended_answers_what_it_had_answered(colour: str, database_url: str) -> None:
    """Any other update has no answer, and the wait for it says so; the handle is that of the run all the same."""
    chosen = COUNTER[colour].options(id="c")
    async with Perdure(database_url, grace=0):
        handle = await asyncio.to_thread(
            lambda: sync.start(chosen.start_with_update(change, Change(5), update_id="first"), 10, last=5)
        )
        assert await asyncio.to_thread(handle.result, 20) == 15
        for update, last in ((5, "first"), (6, "other"), (6, "other")):
            late = await begin(chosen, update, 10, update_id=last)
            assert not late.created
            if last == "first":
                assert await answer(late) == 15
                continue
            with pytest.raises(RunEnded, match="run c ended as succeeded without answering"):
                await answer(late)
    assert handled == [5]
    assert await asked(database_url, UPDATES) == [(1,)]


@on_loop
async def test_a_refused_start_asks_nobody(database_url: str) -> None:
    """Against `on_conflict="reject"`, and against an id of another workflow."""
    async with Perdure(database_url, grace=0):
        await counter.options(id="c").start(10)
        with pytest.raises(WorkflowConflict):
            await begin(counter.options(id="c", on_conflict="reject"), 5, 10)
        with pytest.raises(WorkflowConflict):
            await begin(goes_on.options(id="c"), 5, 1)
    assert await asked(database_url, UPDATES) == [(0,)]


@workflow(name="begun.fails")
async def fails(value: int) -> None:
    async for request in perdure.updates(change):
        await request.reply(value)
        raise TooMuch("at all")


@on_loop
async def test_a_run_that_is_made_anew_is_asked_anew(database_url: str) -> None:
    """`restart_if_failed`: the same update id, another run, another answer."""
    chosen = fails.options(id="f", on_conflict="restart_if_failed")
    async with Perdure(database_url, grace=0):
        for value in (1, 2):
            handle = await chosen.start_with_update(change, Change(0), update_id="u")(value)
            assert (handle.created, await handle.answer(int)) == (True, value)
            with pytest.raises(TooMuch):
                await handle.result(20)


@workflow(name="begun.goes_on")
async def goes_on(lives: int) -> int:
    if lives:
        async for request in perdure.updates(change):
            await request.reply(request.payload.by + lives)
            break
        await perdure.continue_as_new(lives - 1)
    await perdure.receive("end")
    return lives


async def two_lives(url: str) -> bool:
    return await asked(url, "select count(*) from perdure.runs") == [(2,)]


@on_loop
async def test_a_run_that_has_gone_on_as_new_still_gives_its_answer(database_url: str) -> None:
    """The handle knows the life that it asked."""
    async with Perdure(database_url, grace=0):
        handle = await goes_on.options(id="g").start_with_update(change, Change(5))(1)
        await until_true(lambda: two_lives(database_url))
        assert await handle.answer(int, timeout=20) == 6
        await handle.send("end", 1)
        assert await handle.result(20) == 0


@on_loop
async def test_either_colour_starts_the_other(database_url: str) -> None:
    """By `perdure.start` and `perdure.sync.start`; on the app's loop a blocking call is refused."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(counter_blocking.start_with_update(change, Change(5)), 10)
        assert await handle.answer(int) == 15
        other = await asyncio.to_thread(
            lambda: sync.start(counter.start_with_update(change, Change(5)), 10).answer(int)
        )
        assert other == 15
        with pytest.raises(WrongColour, match="start_with_update"):
            counter_blocking.start_with_update(change, Change(5))(10)


class Shop:
    """Has a workflow as a method."""

    @workflow(name="begun.shop")
    async def open(self, total: int) -> int:
        async for request in perdure.updates(change):
            await request.reply(total + request.payload.by)
            break
        return total


@on_loop
async def test_a_method_is_started_with_an_update(database_url: str) -> None:
    """On its instance."""
    shop = Shop()
    async with Perdure(database_url, grace=0, instances={"here": shop}):
        handle = await shop.open.options(id="s").start_with_update(change, Change(5))(10)
        assert (await handle.answer(int), await handle.result(20)) == (15, 10)


@on_loop
async def test_a_lost_answer_to_the_commit_asks_once(proxy: Proxy, database_url: str) -> None:
    """The start is recognised, and so is the update."""
    async with Perdure(database_url, grace=0), Perdure(proxy.url, worker=False) as client:
        loss = proxy.lose_answer("perdure journal-2")
        with client.bind():
            handle = await counter.options(id="c", queue="default").start_with_update(change, Change(5))(10)
            assert await handle.answer(int, timeout=30) == 15
        assert loss.happened.is_set()
    assert handled == [5]


# -- bad input -------------------------------------------------------------------------------------------


@both
@on_loop
async def test_bad_input_is_refused_in_the_caller(colour: str, database_url: str) -> None:
    """Before anything is started."""
    target = COUNTER[colour]
    async with Perdure(database_url, grace=0):
        with pytest.raises(
            ValueError, match=r"start_with_update.* and options\(send=...\) exclude each other"
        ):
            target.options(send=("t", 1)).start_with_update(change, Change(5))
        with pytest.raises(SerializationError):
            target.start_with_update(change, "five")
        for name, id in (("!update/x", None), ("", None), ("u", ""), ("u", "x" * 513), ("u", "a\0b")):
            with pytest.raises(ValueError, match=r"name|update_id="):
                target.start_with_update(name, 1, update_id=id)
        with pytest.raises(TypeError, match="update_id= must be a str"):
            target.start_with_update("u", 1, update_id=5)
        with pytest.raises(TypeError, match="total"):
            target.start_with_update("u", 1)()
        with pytest.raises(TypeError, match=r"takes a workflow"):
            await perdure.start("begun.counter")  # type: ignore[arg-type]
    assert await asked(database_url, "select count(*) from perdure.runs") == [(0,)]


@both
@on_loop
async def test_other_handles_have_no_answer_to_wait_for(colour: str, database_url: str) -> None:
    """Neither that of a plain start nor that of an id."""
    async with Perdure(database_url, grace=0):
        await begin(COUNTER[colour].options(id="c"), 5, 10)
        plain = await perdure.start(COUNTER[colour].options(id="c"), 10)
        for handle in (plain, COUNTER[colour].handle("c")):
            with pytest.raises(PerdureError, match=r"run c was not started by start_with_update"):
                await answer(handle)


# -- as a child ------------------------------------------------------------------------------------------


@workflow(name="begun.mother")
async def mother(id: str | None, numbers: list[int]) -> list[Any]:
    """Asks its children, and waits in between, so that what follows is seen by a replay."""
    starts = [counter.options(id=id and f"{id}{n}").start_with_update(change, Change(n))(10) for n in numbers]
    children = await asyncio.gather(*starts)
    await perdure.receive("go on")
    seen: list[Any] = []
    for child in children:
        try:
            seen.append(await child.answer(int))
        except (TooMuch, RunEnded) as error:
            seen.append(type(error).__name__)
    return seen


@workflow(name="begun.mother_blocking")
def mother_blocking(id: str | None, numbers: list[int]) -> list[Any]:
    children = [
        counter_blocking.options(id=id and f"{id}{n}").start_with_update(change, Change(n))(10)
        for n in numbers
    ]
    sync.receive("go on")
    seen: list[Any] = []
    for child in children:
        try:
            seen.append(child.answer(int))
        except (TooMuch, RunEnded) as error:
            seen.append(type(error).__name__)
    return seen


MOTHER: dict[str, Any] = {"async": mother, "blocking": mother_blocking}


@pytest.mark.parametrize("id", [None, "child-"])
@both
@on_loop
async def test_a_child_is_started_with_an_update_and_a_replay_waits_for_the_same(
    colour: str, id: str | None, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mother is put away between start and answer, and taken up by another app, which replays."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.03)
    async with Perdure(database_url, grace=0):
        await perdure.start(MOTHER[colour].options(id="m"), id, [1, 2, 101])
        await waiting(database_url, 4)
    async with Perdure(database_url, grace=0) as app:
        with app.bind():
            await perdure.send("m", "go on", 1)
            assert await app.handle("m").result(20) == [11, 12, "TooMuch"]
    assert await asked(database_url, UPDATES) == [(3,)]


@both
@on_loop
async def test_a_child_that_was_there_is_asked_and_one_that_has_ended_is_no_answer(
    colour: str, database_url: str
) -> None:
    """The mother hears of it where she waits for the answer."""
    async with Perdure(database_url, grace=0):
        await perdure.start(COUNTER[colour].options(id="child-1"), 20)
        ended = await perdure.start(COUNTER[colour].options(id="child-2"), 20, last=7)
        await ended.update(change, Change(7))
        assert await ended.result(20) == 27
        handle = await perdure.start(MOTHER[colour].options(id="m"), "child-", [1, 2])
        await handle.send("go on", 1)
        assert await handle.result(20) == [21, "RunEnded"]


@workflow(name="begun.late")
async def late() -> list[Any]:
    child = await goes_on.options(id="g").start_with_update(change, Change(5))(1)
    await perdure.receive("go on")
    answers = [await child.answer(int, timeout=20)]
    try:
        await (await goes_on.options(queue="nobody").start_with_update(change, Change(5))(1)).answer(
            timeout=0
        )
    except WaitTimeout:
        answers.append(-1)
    return answers


@on_loop
async def test_a_child_that_has_gone_on_as_new_still_gives_its_answer(database_url: str) -> None:
    """Inside a workflow as outside; a wait for one that does not come ends in time."""
    async with Perdure(database_url, grace=0):
        handle = await late.options(id="l").start()
        await until_true(
            lambda: asked(
                database_url,
                "select 1 from perdure.runs where workflow = 'begun.goes_on' having count(*) = 2",
            )
        )
        await handle.send("go on", 1)
        assert await handle.result(20) == [6, -1]


# -- kill -9 ---------------------------------------------------------------------------------------------


@step(name="begun.first_life")
async def first_life(pid: int) -> int:
    return pid


@workflow(name="begun.mortal")
async def mortal() -> str:
    """Says so, and stands still, between receiving and replying, in its first process."""
    async for request in perdure.updates("u", type=int):
        if await first_life(os.getpid()) == os.getpid():
            say("received", request.payload)
            await perdure.receive("never")
        await request.reply(request.payload * 2)
        break
    return "ended"


@workflow(name="begun.mortal_mother")
async def mortal_mother() -> list[Any]:
    child = await mortal.options(id="mortal").start_with_update("u", 21)()
    return [await child.answer(int), await child.result()]


async def begin_and_die(url: str, who: str) -> None:
    """A worker that starts, and is killed."""
    async with Perdure(url, lease=1, grace=0):
        if who == "child":
            await mortal_mother.options(id="mother").start()
        else:
            await mortal.options(id="mortal").start_with_update("u", 21, update_id="once")()
        await asyncio.Event().wait()


async def serve(url: str) -> None:
    """A worker, until it is killed."""
    async with Perdure(url, lease=1, grace=0):
        say("serving")
        await asyncio.Event().wait()


@pytest.mark.parametrize("who", ["outside", "child"])
def test_starter_and_run_are_killed_between_start_and_answer(who: str, database_url: str) -> None:
    """One process has all of it, and is killed. The next owner answers; who asks again with the id, asks nothing new."""
    with processes() as family, sync.Perdure(database_url, worker=False) as client, client.bind():
        first = family.start(__name__, "begin_and_die", database_url, who)
        first.wait_for("received 21")
        until(lambda: rows(database_url, "select 1 from perdure.steps where name = 'begun.first_life'"))
        first.kill()
        family.start(__name__, "serve", database_url).wait_for("serving")
        sync.send("mortal", "never", 1)
        if who == "child":
            assert client.handle("mother").result(30) == [42, "ended"]
        else:
            for _ in range(2):
                again = sync.start(mortal.options(id="mortal").start_with_update("u", 21, update_id="once"))
                assert (again.created, again.answer(int, timeout=30)) == (False, 42)
                assert again.result(30) == "ended"
    assert rows(database_url, UPDATES) == [(1,)]
    received = "select count(*) from perdure.steps where name like '!update%' and message is not null"
    assert rows(database_url, received) == [(1,)]
    assert rows(database_url, "select count(*) from perdure.events where key like '!answer/%'") == [(1,)]
