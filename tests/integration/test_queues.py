"""Queues with limits: kept exactly, in fair turns, changed live."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

import perdure
from perdure import Deduplicated, Perdure, Queue, QueueFull, Rate, WorkflowExpired, workflow
from perdure.testing import Clock
from tests.api_tools import on_loop, rows, until_true

inside: Counter[str] = Counter()
most: Counter[str] = Counter()
order: list[str] = []
gate: asyncio.Event


@perdure.step(name="queues.hold")
async def hold(key: str) -> None:
    inside[key] += 1
    inside["*"] += 1
    for name in (key, "*"):
        most[name] = max(most[name], inside[name])
    await asyncio.sleep(0)
    for name in (key, "*"):
        inside[name] -= 1


@workflow(name="queues.job")
async def job(key: str) -> str:
    order.append(key)
    await hold(key)
    return key


@workflow(name="queues.stuck")
async def stuck(key: str) -> str:
    order.append(key)
    await gate.wait()
    return key


@workflow(name="queues.asleep")
async def asleep(key: str) -> str:
    order.append(key)
    await perdure.sleep(3600)
    return key


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    gate = asyncio.Event()
    for each in (inside, most):
        each.clear()
    order.clear()


def begun(count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many runs have begun."""

    async def check() -> bool:
        return len(order) >= count

    return check


async def is_waiting(handle: perdure.Handle[str]) -> bool:
    return await handle.status() == "waiting"


async def finish(handles: list[perdure.Handle[str]]) -> list[str]:
    return [await handle.result(timeout=60) for handle in handles]


@on_loop
async def test_concurrency_holds(database_url: str) -> None:
    """Of a queue with room for two never three run; all end."""
    async with Perdure(database_url, queues=[Queue("two", concurrency=2)]):
        await finish([await job.options(queue="two").start("a") for _ in range(30)])
    assert most["*"] <= 2


@on_loop
async def test_keys_take_turns_and_keep_their_order(database_url: str) -> None:
    """A key with room for one begins its runs in the order of their starts; another key is not held up by it."""
    async with Perdure(database_url, queues=[Queue("keys", key_concurrency=1)]):
        first = [await stuck.options(queue="keys", key="a").start(f"a{n}") for n in range(3)]
        other = await stuck.options(queue="keys", key="b").start("b")
        await until_true(begun(2))
        assert sorted(order) == ["a0", "b"]
        gate.set()
        await finish([*first, other])
    assert [name for name in order if name[0] == "a"] == ["a0", "a1", "a2"]


@on_loop
async def test_who_waits_holds_no_slot(database_url: str) -> None:
    """A run that sleeps leaves its slot to the next."""
    async with Perdure(database_url, queues=[Queue("one", concurrency=1)]) as app:
        await asleep.options(queue="one").start("first")
        second = await job.options(queue="one").start("second")
        assert await second.result(timeout=30) == "second"
        info = await app.queues.get("one")
        assert info is not None
        assert (info.waiting, info.running, info.queued) == (1, 0, 0)


@on_loop
async def test_rate_holds_by_the_clock_of_the_database(database_url: str) -> None:
    """Of five that may begin a minute the sixth begins in the next one, whatever the process thinks."""
    async with Perdure(database_url, queues=[Queue("rate", rate=Rate(5, timedelta(minutes=1)))]):
        with Clock(database_url) as clock:
            handles = [await job.options(queue="rate").start(str(n)) for n in range(8)]
            await finish(handles[:5])
            clock.advance(59)
            (queued,) = rows(database_url, "select count(*) from perdure.live where status = 2")
            assert (queued, len(order)) == ((3,), 5)
            clock.advance(2)
            await finish(handles)


@on_loop
async def test_many_of_one_key_do_not_starve_three_of_another(database_url: str) -> None:
    """With room for one at a time, a tenant's three runs are done while most of the other's three hundred wait."""
    async with Perdure(database_url, queues=[Queue("fair", concurrency=1)]) as app:
        await app.queues.pause("fair")
        many = await app.start_many(job.options(queue="fair", key="big").bind("big") for _ in range(300))
        few = [await job.options(queue="fair", key="small").start("small") for _ in range(3)]
        await app.queues.resume("fair")
        await finish(few)
        assert order.count("big") < 20
        await app.runs.cancel(queue="fair")
        assert len(many) == 300


@on_loop
async def test_weights_share_what_there_is(database_url: str) -> None:
    """A key of weight 3 begins three runs for each one of another, though there is room for one at a time."""
    queue = Queue("weights", concurrency=1, weights={"gold": 3})
    async with Perdure(database_url, queues=[queue]) as app:
        await app.queues.pause("weights")
        for key in ("gold", "tin"):
            await app.start_many(job.options(queue="weights", key=key).bind(key) for _ in range(40))
        await app.queues.resume("weights")
        await until_true(begun(40))
        await app.queues.pause("weights")
        assert 27 <= order[:40].count("gold") <= 33


@on_loop
async def test_priority_comes_first(database_url: str) -> None:
    """Lower numbers are first, whatever came first."""
    async with Perdure(database_url, queues=[Queue("urgent", concurrency=1)]) as app:
        await app.queues.pause("urgent")
        handles = [await job.options(queue="urgent", priority=n).start(str(n)) for n in (3, 1, 2)]
        await app.queues.resume("urgent")
        await finish(handles)
    assert order == ["1", "2", "3"]


@on_loop
async def test_paused_queue_begins_nothing_and_goes_on_with_what_has_begun(database_url: str) -> None:
    """A run that slept when its queue was paused goes on; a new one waits for `resume`."""
    async with Perdure(database_url) as app:
        with Clock(database_url) as clock:
            sleeper = await asleep.options(queue="default").start("sleeper")
            await until_true(lambda: is_waiting(sleeper))
            await app.queues.pause("default")
            new = await job.options(queue="default").start("new")
            clock.advance(3600)
            assert await sleeper.result(timeout=30) == "sleeper"
            assert await new.status() == "queued"
            await app.queues.resume("default")
            assert await new.result(timeout=30) == "new"


@on_loop
async def test_dedup_is_unique_among_the_unfinished(database_url: str) -> None:
    """A second start is refused and names the first; after its end the key is free; one of many at once wins."""
    async with Perdure(database_url) as app:
        first = await stuck.options(queue="default", dedup="report").start("a")
        with pytest.raises(Deduplicated, match=first.id):
            await stuck.options(queue="default", dedup="report").start("b")
        gate.set()
        await first.result(timeout=30)
        gate.clear()
        answers = await asyncio.gather(
            *(stuck.options(queue="default", dedup="report").start("c") for _ in range(10)),
            return_exceptions=True,
        )
        assert Counter(type(answer).__name__ for answer in answers) == {"Handle": 1, "Deduplicated": 9}
        gate.set()
        await finish([answer for answer in answers if not isinstance(answer, BaseException)])
        await app.queues.drain("default", timeout=30)
    assert rows(database_url, "select count(*) from perdure.live") == [(0,)]


@on_loop
async def test_full_queue_refuses(database_url: str) -> None:
    """A queue takes as many as its size, of many at once; each that is refused is told; room comes back."""
    async with Perdure(database_url, queues=[Queue("small", size=3, concurrency=1)]) as app:
        await app.queues.pause("small")
        answers = await asyncio.gather(
            *(job.options(queue="small").start("x") for _ in range(10)), return_exceptions=True
        )
        assert Counter(type(answer).__name__ for answer in answers) == {"Handle": 3, "QueueFull": 7}
        await app.queues.resume("small")
        await finish([answer for answer in answers if not isinstance(answer, BaseException)])
        assert await (await job.options(queue="small").start("y")).result(timeout=30) == "y"
        await app.queues.pause("small")
        await app.queues.set("small", size=1)
        await job.options(queue="small").start("z")
        with pytest.raises(QueueFull, match="small"):
            await job.options(queue="small").start("z")


@on_loop
async def test_what_expires_is_given_up(database_url: str) -> None:
    """A run that has not begun by then fails; one that has goes on."""
    async with Perdure(database_url) as app:
        with Clock(database_url) as clock:
            await app.queues.pause("default")
            run = await job.options(queue="default", expires=60).start("late")
            clock.advance(61)
            with pytest.raises(WorkflowExpired):
                await run.result(timeout=60)


@on_loop
async def test_declaration_overrides_only_when_it_changes(database_url: str) -> None:
    """What was changed by hand survives a restart of the same code, and not a new declaration."""
    for declared, by_hand, expected in ((5, 7, 5), (5, None, 7), (6, None, 6)):
        async with Perdure(database_url, queues=[Queue("q", concurrency=declared)]) as app:
            info = await app.queues.get("q")
            assert info is not None
            assert info.concurrency == expected
            if by_hand is not None:
                await app.queues.set("q", concurrency=by_hand)


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"size": "x"}, {"weights": {"a": -1}}, {"rate": 5}, {"colour": 1}]
)
@on_loop
async def test_wrong_limits_are_refused(database_url: str, wrong: dict[str, object]) -> None:
    """In the caller, naming what is wrong; nothing changes."""
    async with Perdure(database_url) as app:
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            await app.queues.set("default", **wrong)
        assert rows(database_url, "select count(*) from perdure.queues") == [(0,)]


@on_loop
async def test_a_run_says_which_limit_holds_it_back(database_url: str) -> None:
    """In one line, as `show` has it: a slot, a key's slot, a rate, a pause."""
    queue = Queue("why", concurrency=2, key_concurrency=1, rate=Rate(3, 3600))
    async with Perdure(database_url, queues=[queue]) as app:
        handles = [await stuck.options(queue="why", key=key).start(key) for key in "aabc"]
        await until_true(begun(2))

        async def why(handle: perdure.Handle[str]) -> str:
            return (await handle.describe()).why or ""

        assert await why(handles[3]) == "waits for a slot of queue 'why': 2 of 2 are taken"
        await app.queues.set("why", concurrency=None)
        await until_true(begun(3))
        assert await why(handles[1]) == "waits for a slot of queue 'why' for key 'a': 1 of 1 are taken"
        await app.queues.set("why", key_concurrency=None)
        assert "waits for the rate of queue 'why': 3 runs began in the last 3600 s" in await why(handles[1])
        await app.queues.pause("why")
        assert await why(handles[1]) == "waits for queue 'why' to be resumed: it is paused"
        gate.set()
        await finish([handles[0], handles[2], handles[3]])
