"""A run that goes on as new: the same id, no message lost or twice, whoever waits for it follows."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import Perdure, WaitTimeout, WorkflowCancelled, WorkflowTimeout, step, sync, workflow
from tests.api_tools import on_loop, rows, until_true

log: list[str] = []
door = threading.Event()
LIVES = "select count(*) from perdure.runs where id = %s"


@workflow(name="onward.collect")
async def collect(lives: int, each: int, seen: list[int]) -> list[int]:
    """Receives so many messages in each of its lives."""
    seen += [await perdure.receive("t") for _ in range(each)]
    if lives > 1:
        await perdure.continue_as_new(lives - 1, each, seen=seen)
    return seen


@workflow(name="onward.collect_blocking")
def collect_blocking(lives: int, each: int, seen: list[int]) -> list[int]:
    seen += [sync.receive("t") for _ in range(each)]
    if lives > 1:
        sync.continue_as_new(lives - 1, each, seen=seen)
    return seen


flows = pytest.mark.parametrize("flow", [collect, collect_blocking], ids=["async", "blocking"])


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()


async def asked(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    return await asyncio.to_thread(rows, url, statement, *values)


async def lives(url: str, id: str, count: int) -> None:
    """Wait until the run has had so many lives."""

    async def check() -> bool:
        return bool((await asked(url, LIVES, id))[0][0] >= count)

    await until_true(check)


@flows
@on_loop
async def test_no_message_is_lost_or_received_twice(flow: Any, database_url: str) -> None:
    """Ten senders, two hundred messages, twenty lives; each sender's own arrive in its order."""
    async with Perdure(database_url):
        handle = await perdure.start(flow.options(id="loop"), 20, 10, [])

        async def sender(number: int) -> None:
            for message in range(20):
                await handle.send("t", number * 100 + message)

        await asyncio.gather(*(sender(number) for number in range(10)))
        seen = await handle.result(timeout=60)
    assert sorted(seen) == [number * 100 + message for number in range(10) for message in range(20)]
    for number in range(10):
        mine = [value for value in seen if value // 100 == number]
        assert mine == sorted(mine)
    assert rows(database_url, LIVES, "loop") == [(20,)]


@flows
@on_loop
async def test_the_life_that_goes_on_leaves_its_messages_in_order(flow: Any, database_url: str) -> None:
    """What one life did not receive is the next one's, before all that is sent later."""
    async with Perdure(database_url):
        handle = await perdure.start(flow.options(id="loop"), 3, 1, [])
        for value in range(3):
            await handle.send("t", value)
        assert await handle.result(timeout=30) == [0, 1, 2]


@workflow(name="onward.waits")
async def waits(left: int) -> str:
    if left:
        await perdure.continue_as_new(left - 1)
    return str(await perdure.receive("end"))


@workflow(name="onward.steps")
async def steps(left: int) -> str:
    """Each life waits for a word, so that a test can stand between two."""
    word = await perdure.receive("word")
    log.append(f"{left} {word}")
    if left:
        await perdure.continue_as_new(left - 1)
    return f"ended by {word}"


@workflow(name="onward.parent")
async def parent(left: int) -> str:
    return "the child " + await steps.options(id="child")(left)


@workflow(name="onward.parent_blocking")
def parent_blocking(left: int) -> str:
    handle = sync.start(steps.options(id="child"), left)
    return "the child " + handle.result()


@on_loop
async def test_handles_follow(database_url: str) -> None:
    """One that was there before, one that was made by id, one of another process; the id stays, the run is one."""
    async with Perdure(database_url) as app, Perdure(database_url, worker=False) as client:
        first = await _start(app, "one", 2)
        await first.send("word", "a")
        await lives(database_url, "one", 2)
        other = client.handle("one")
        await first.send("word", "b")
        await other.send("word", "c")
        assert await first.result(timeout=30) == "ended by c"
        assert await other.result(timeout=30) == "ended by c"
        assert await app.runs.count(workflow="onward.steps", status="succeeded") == 1
        assert (await first.describe()).id == "one"
        assert await first.status() == "succeeded"


async def _start(app: Perdure, id: str, left: int) -> perdure.Handle[str]:
    with app.bind():
        return await steps.options(id=id).start(left)


@on_loop
async def test_a_bounded_wait_for_a_run_that_went_on_ends_in_a_timeout(database_url: str) -> None:
    """`WaitTimeout`, as for any run that is not done; and nobody is left watching."""
    async with Perdure(database_url) as app:
        handle = await waits.start(3)
        await lives(database_url, handle.id, 4)
        for seconds in (0, 0.5):
            with pytest.raises(WaitTimeout):
                await handle.result(timeout=seconds)
        engine = app._engine
        assert engine is not None
        assert engine.watcher._watched == {}
        await handle.send("end", "well")
        assert await handle.result(timeout=30) == "well"


@pytest.mark.parametrize("flow", [parent, parent_blocking], ids=["async", "blocking"])
@pytest.mark.parametrize("put_away", [False, True], ids=["in memory", "put away"])
@on_loop
async def test_a_waiting_parent_follows(flow: Any, put_away: bool, database_url: str) -> None:
    """Its child goes on as new while it waits, also where it holds no memory; it gets the last life's result."""
    async with Perdure(database_url) as app:
        handle = await perdure.start(flow, 2)
        child = app.handle("child")
        await until_true(lambda: asked(database_url, "select 1 from perdure.runs where id = 'child'"))
        if put_away:
            await until_true(lambda: asked(database_url, WAITS, flow.definition.name))
        for number, word in enumerate("abc"):
            await child.send("word", word)
            await logged(number + 1)
            if put_away and word != "c":
                assert await asked(database_url, WAITS, flow.definition.name), (
                    "the parent was woken for nothing"
                )
        assert await handle.result(timeout=30) == "the child ended by c"


WAITS = "select 1 from perdure.live where workflow = %s and status = 4"


async def logged(count: int) -> None:
    async def check() -> bool:
        return len(log) >= count

    await until_true(check)


PARENT_LIVES = """
select 1 from perdure.runs r join perdure.live child on child.key = r.key join perdure.live parent on parent.key = child.parent
where r.id = %s
"""


@workflow(name="onward.with_children")
async def with_children(left: int) -> str:
    if left == 1:
        await waits.options(id="kept").start(0)
        await perdure.continue_as_new(0)
    return str(await perdure.receive("end"))


@on_loop
async def test_children_are_kept_and_end_with_the_last_life(database_url: str) -> None:
    """A child that is to end with its parent goes on while that goes on as new, and is cancelled at its end."""
    async with Perdure(database_url) as app:
        handle = await with_children.start(1)
        await lives(database_url, handle.id, 2)
        child = app.handle("kept")
        assert (await child.status()) in ("running", "waiting", "queued")
        assert await asked(database_url, PARENT_LIVES, "kept") == [(1,)]
        await handle.send("end", "x")
        assert await handle.result(timeout=30) == "x"
        with pytest.raises(WorkflowCancelled):
            await child.result(timeout=30)


@on_loop
async def test_the_timeout_counts_from_the_first_life(database_url: str) -> None:
    """Going on as new does not begin it anew."""
    async with Perdure(database_url):
        handle = await waits.options(timeout=1.5, id="short").start(2)
        await lives(database_url, "short", 3)
        deadlines = await asked(
            database_url,
            "select r.created + interval '1.5 seconds' - l.deadline from perdure.runs r, "
            "perdure.live l where r.id = 'short' order by r.key limit 1",
        )
        assert abs(deadlines[0][0].total_seconds()) < 0.5
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=30)


@on_loop
async def test_tags_priority_and_queue_are_the_next_lifes(database_url: str) -> None:
    """What was said when it was started holds for all of its lives."""
    async with Perdure(database_url, listen=["special"]):
        handle = await waits.options(queue="special", tags={"shop": "north"}, priority=-3).start(1)
        await lives(database_url, handle.id, 2)
        info = await handle.describe()
        assert (info.queue, info.tags) == ("special", {"shop": "north"})
        assert await asked(database_url, "select priority from perdure.live") == [(-3,)]
        await handle.send("end", "x")
        await handle.result(timeout=30)


@on_loop
async def test_a_cancel_between_two_lives_ends_the_run(database_url: str) -> None:
    """The next life waits in the queue for a worker: it is cancelled without having begun."""
    async with Perdure(database_url, grace=0) as app:
        handle = await _start(app, "one", 1)
        engine = app._engine
        assert engine is not None
        engine.accepting = False
        await handle.send("word", "a")
        await lives(database_url, "one", 2)
        assert await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert log == ["1 a"]
    assert rows(database_url, "select count(*) from perdure.live") == [(0,)]


@workflow(name="onward.told")
async def told() -> str:
    log.append("about to")
    await asyncio.to_thread(door.wait, 30)
    await perdure.continue_as_new()


@workflow(name="onward.told_blocking")
def told_blocking() -> str:
    log.append("about to")
    door.wait(30)
    sync.continue_as_new()


@pytest.mark.parametrize("flow", [told, told_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_cancel_before_the_change_is_recorded_ends_the_run(flow: Any, database_url: str) -> None:
    """It came first: there is no next life."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        await logged(1)
        assert await handle.cancel()
        door.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
    assert rows(database_url, LIVES, handle.id) == [(1,)]


@step(name="onward.count")
async def count() -> int:
    log.append("counted")
    return len(log)


@workflow(name="onward.unmatched")
async def unmatched(n: int) -> str:
    try:
        await perdure.continue_as_new("too", "many")
    except TypeError as error:
        return f"refused: {type(error).__name__}"


@workflow(name="onward.unmatched_blocking")
def unmatched_blocking(n: int) -> str:
    try:
        sync.continue_as_new(m=1)
    except TypeError as error:
        return f"refused: {type(error).__name__}"


@on_loop
async def test_wrong_arguments_raise_in_the_code_that_gives_them(database_url: str) -> None:
    """A `TypeError` at the call; the life goes on."""
    async with Perdure(database_url):
        assert await unmatched(1) == "refused: TypeError"
        assert await (await perdure.start(unmatched_blocking, 1)).result(timeout=30) == "refused: TypeError"
    with pytest.raises(perdure.NotInWorkflow):
        await perdure.continue_as_new(1)


@workflow(name="onward.leaves_a_race")
async def leaves_a_race(left: int) -> str:
    await perdure.race(perdure.sleep(3600), perdure.sleep(0.01))
    await count()
    if left:
        await perdure.continue_as_new(left - 1)
    return "end"


@on_loop
async def test_an_earlier_life_leaves_nothing_to_wait_for(database_url: str) -> None:
    """Its waits go with it; its steps stay, under its own key."""
    async with Perdure(database_url):
        assert await leaves_a_race(3) == "end"
    assert rows(database_url, "select * from perdure.waits") == []
    assert rows(
        database_url, "select count(distinct run), count(*) from perdure.steps where name = 'onward.count'"
    ) == [(4, 4)]
