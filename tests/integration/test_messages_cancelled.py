"""A receive that is given up loses no message, and several receivers of one topic share its messages, each once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import Perdure, WaitTimeout, WorkflowCancelled, step, sync, workflow
from perdure.models import CancelReason
from tests.api_tools import on_loop, rows, until, until_true
from tests.message_tools import asked, collect, holding, sent

marks: list[str] = []
app: Perdure
CONSUMED = "select count(*), count(distinct message) from perdure.steps where message is not null"


@step(name="cancelled.mark")
async def mark(what: str) -> str:
    marks.append(what)
    return what


@step(name="cancelled.until_served")
async def until_served() -> None:
    """Stand in the loop's way until a receiver of the run has its message, so that both are ready together."""
    (run,) = app.engine.executor._runs.values()
    for _ in range(20):
        await asyncio.sleep(0)  # the receiver begins to wait
    until(lambda: any(wait.signal.done for wait in run.waiting.values()), 10)


@workflow(name="cancelled.gives_up_first")
async def gives_up_first() -> list[Any]:
    """A branch waits and is cancelled by another, as it is given a message; what it was given in time counts."""
    task = asyncio.create_task(perdure.receive("t"))
    await until_served()
    task.cancel()
    got = [value for value in await asyncio.gather(task, return_exceptions=True) if isinstance(value, int)]
    while len(got) < 2:
        got.append(await perdure.receive("t"))
    return got


@workflow(name="cancelled.two_receivers")
async def two_receivers(count: int) -> list[list[int]]:
    async def receiver() -> list[int]:
        got = []
        while (value := await perdure.receive("t")) is not None:
            got.append(value)
        return got

    return list(await asyncio.gather(*(receiver() for _ in range(count))))


@workflow(name="cancelled.two_receivers_blocking")
def two_receivers_blocking(count: int) -> list[list[int]]:
    def receiver() -> list[int]:
        got = []
        while (value := sync.receive("t")) is not None:
            got.append(value)
        return got

    return list(sync.gather(*(receiver for _ in range(count))))


@workflow(name="cancelled.race")
async def race() -> list[Any]:
    """Two topics race, whose messages are in memory already; what the loser had is received afterwards."""
    assert await perdure.receive("a") == await perdure.receive("b") == 0
    which, value = await perdure.race(perdure.receive("a"), perdure.receive("b"))
    return [value, await perdure.receive("a" if which else "b", timeout=5, default="lost")]


@workflow(name="cancelled.in_time")
async def in_time() -> Any:
    """A block with a time limit that is over at the moment when the message comes."""
    try:
        async with perdure.timeout(0.3):
            await perdure.receive("begin")
            return await perdure.receive("t")
    except WaitTimeout:
        return await perdure.receive("t", timeout=5, default="lost")


@workflow(name="cancelled.cleans_up")
async def cleans_up() -> str:
    try:
        await perdure.receive("t")
    except asyncio.CancelledError:
        with perdure.shield():
            await mark(await perdure.receive("t"))
        raise
    return "received"


@workflow(name="cancelled.sender")
async def sender(id: str) -> str:
    """Told to stop in the middle of a send, it cleans up, in two steps."""
    try:
        await perdure.send(id, "t", 1)
    except asyncio.CancelledError:
        with perdure.shield():
            await mark("cleaned up")
            await perdure.receive("go on", timeout=60, default=None)
            await mark("completely")
        raise
    await mark("went on")
    return "sent"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    marks.clear()


@on_loop
async def test_a_cancelled_receiver_leaves_the_message_to_the_next(database_url: str) -> None:
    """Cancelled in the moment in which it is given the message, which goes back to its place."""
    global app
    async with Perdure(database_url, grace=0) as app:
        handle = await gives_up_first.options(id="c", delay=0.1).start()
        await perdure.send_many([("c", "t", 1), ("c", "t", 2)])
        assert await handle.result(20) == [1, 2]


@on_loop
async def test_a_message_that_comes_with_the_cancel_of_the_run_is_not_lost(database_url: str) -> None:
    """Given to the receiver that is told to stop in the same moment, it goes to the next, in the cleaning up."""
    async with Perdure(database_url, grace=0) as here:
        handle = await cleans_up.options(id="c").start()
        await until_true(lambda: asyncio.to_thread(lambda: bool(here.engine.executor._runs)))
        (run,) = here.engine.executor._runs.values()
        await until_true(lambda: asyncio.to_thread(lambda: bool(run.waiting)))
        (wait,) = run.waiting.values()
        # From here on this thread, which is the loop's, is busy: the code cannot go on.
        rows(database_url, "select perdure.send('c', 't', '\"in time\"')")
        here.engine.mail.wake()
        until(lambda: wait.signal.done, 10)
        run.host.cancel(CancelReason.ASKED)
        with pytest.raises(WorkflowCancelled):
            await handle.result(20)
    assert marks == ["in time"]


@pytest.mark.parametrize("receivers", [two_receivers, two_receivers_blocking])
@on_loop
async def test_receivers_of_one_topic_share_its_messages(receivers: Any, database_url: str) -> None:
    """Each message goes to one of three branches, in order for each of them; no two steps name the same message."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(receivers.options(id="c"), 3)
        for value in range(60):
            await perdure.send("c", "t", value)
        for _ in range(3):
            await perdure.send("c", "t", None)
        shares = await handle.result(30)
    assert all(share == sorted(share) for share in shares)
    assert sorted(value for share in shares for value in share) == list(range(60))
    assert await asked(database_url, CONSUMED) == [(63, 63)]


@on_loop
async def test_the_loser_of_a_race_keeps_its_message_in_the_line(database_url: str) -> None:
    """Both messages are there when the race begins: one wins, and the other is still to be received."""
    async with Perdure(database_url, grace=0):
        handle = await race.options(id="c", delay=0.1).start()
        await perdure.send_many([("c", "a", 0), ("c", "b", 0), ("c", "a", 1), ("c", "b", 2)])
        assert sorted(map(str, await handle.result(20))) == ["1", "2"]


@on_loop
async def test_a_time_limit_that_ends_with_the_message_does_not_lose_it(database_url: str) -> None:
    """The block is cancelled while the message is on its way: it is received in the block or behind it."""
    async with Perdure(database_url, grace=0):
        handles = []
        for number in range(30):
            handle = await in_time.options(id=f"c{number}").start()
            await handle.send("begin", 0)
            handles.append(handle)
        names = [handle.id for handle in handles]
        statement = "select 1 from perdure.waits where due <= now() + interval '20 ms'"
        await until_true(lambda: asked(database_url, statement))
        for id in names:
            await perdure.send(id, "t", id)
        assert [await handle.result(20) for handle in handles] == names


@on_loop
async def test_a_cancelled_run_can_still_receive_in_its_cleaning_up(database_url: str) -> None:
    """Told to stop in its wait, it receives under a shield what came meanwhile."""
    async with Perdure(database_url, grace=0):
        handle = await cleans_up.options(id="c").start()
        await until_true(lambda: asked(database_url, "select 1 from perdure.live where status in (3, 4)"))
        assert await handle.cancel()
        await handle.send("t", "late")
        with pytest.raises(WorkflowCancelled):
            await handle.result(20)
    assert marks == ["late"]


@on_loop
async def test_a_cancel_in_the_middle_of_a_send_is_replayed_as_it_was(database_url: str) -> None:
    """The send commits after the code was told to stop there: another worker cleans up where the first one was."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="target").start(1, "never")
        handle = await sender.options(id="s").start("target")
        with holding(database_url, "target"):
            handle = await sender.options(id="s2").start("target")
            waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            await until_true(lambda: asked(database_url, waits))
            assert await handle.cancel()
            await until_true(lambda: asked(database_url, "select 1 from perdure.live where cancel > 0"))
        await until_true(lambda: asked(database_url, "select 1 from perdure.steps where kind = 9 offset 1"))
        said = list(marks)
    assert sent(database_url) == ["1", "1"]
    async with Perdure(database_url, grace=0):
        handle = sender.handle("s2")
        if "cleaned up" in said:
            await handle.send("go on", 1)
        with pytest.raises(WorkflowCancelled):
            await handle.result(20)
    assert marks.count("completely") == marks.count("cleaned up")
