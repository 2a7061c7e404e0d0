"""What code can say while it runs: sleep, now, random, uuid4, info, run_step; the same on every replay."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

import perdure
from perdure import NotInWorkflow, Perdure, step, workflow
from tests.api_tools import on_loop, rows, until_true

told: list[list[object]] = []
infos: list[perdure.Info] = []
entered = threading.Event()
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    told.clear()
    infos.clear()
    entered.clear()
    door.clear()


@step
def wait_for_door() -> None:
    entered.set()
    door.wait(30)


@step
async def look(times: int) -> str:
    infos.append(perdure.info())
    return perdure.info().idempotency_key


@step(retry=perdure.Retry(max_attempts=3, delay=0.01))
async def look_twice() -> str:
    infos.append(perdure.info())
    if len(infos) == 1:
        raise LookupError
    return perdure.info().idempotency_key


@step
def plain(left: int, right: int) -> int:
    return left * right


@step
async def plain_async(left: int, right: int) -> int:
    return left * right


@workflow
async def chances() -> list[object]:
    seen: list[object] = [perdure.uuid4(), perdure.random().random(), perdure.random().choice("abcdef")]

    async def branch() -> uuid.UUID:
        return perdure.uuid4()

    seen += await asyncio.gather(branch(), branch())
    seen += [perdure.now(), perdure.now()]
    told.append(seen)
    await perdure.run_step(wait_for_door)
    return [str(value) for value in seen]


@workflow
def blocking_chances() -> list[object]:
    seen: list[object] = [perdure.sync.uuid4(), perdure.sync.random().random(), perdure.sync.now()]
    told.append(seen)
    wait_for_door()
    return [str(value) for value in seen]


@workflow
async def sleeper(seconds: float) -> timedelta:
    began = perdure.now()
    await perdure.sleep(seconds)
    return perdure.now() - began


@workflow
def blocking_sleeper(seconds: float) -> timedelta:
    began = perdure.sync.now()
    perdure.sync.sleep(timedelta(seconds=seconds))
    return perdure.sync.now() - began


@workflow
async def sleeps_until(moment: datetime) -> datetime:
    await perdure.sleep_until(moment)
    return perdure.now()


@workflow
async def who() -> perdure.Info:
    infos.append(perdure.info())
    await look(1)
    await look(2)
    return perdure.info()


@workflow
async def keys() -> list[str]:
    return [await look_twice(), await look(1)]


@workflow
async def both_colours() -> list[int]:
    return [await perdure.run_step(plain, 2, right=3), await perdure.run_step(plain_async, 4, 5)]


@workflow
def both_colours_blocking() -> list[int]:
    return [perdure.sync.run_step(plain, 2, right=3), perdure.sync.run_step(plain_async, 4, 5)]


@on_loop
async def test_chance_and_time_are_the_same_on_a_replay(database_url: str) -> None:
    """uuid4, random and now give a replay what they gave at first, in concurrent branches too; now never goes back."""
    async with Perdure(database_url, grace=0):
        await chances.options(id="c").start()
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
    async with Perdure(database_url):
        door.set()
        await chances.handle("c").result(timeout=20)
    first, second = told
    assert first == second
    assert len({str(value) for value in first[:5]}) == 5
    assert first[5] <= first[6]  # type: ignore[operator]


def test_chance_and_time_are_the_same_on_a_blocking_replay(database_url: str) -> None:
    """The same for a `def` workflow."""
    with perdure.sync.Perdure(database_url, grace=0):
        blocking_chances.options(id="c").start()
        assert entered.wait(20)
    with perdure.sync.Perdure(database_url):
        door.set()
        blocking_chances.handle("c").result(timeout=20)
    assert told[0] == told[1]


@on_loop
async def test_chance_differs_between_runs(database_url: str) -> None:
    """Two runs of one workflow see different uuids and numbers."""
    door.set()
    async with Perdure(database_url):
        first, second = await chances(), await chances()
    assert not set(map(str, first[:2])) & set(map(str, second[:2]))


@on_loop
async def test_a_short_sleep_takes_its_time(database_url: str) -> None:
    """`sleep` takes seconds or a timedelta, no less than it says."""
    async with Perdure(database_url):
        assert timedelta(seconds=0.2) <= await sleeper(0.2) < timedelta(seconds=10)
        assert await sleeper(0) < timedelta(seconds=10)


def test_a_short_blocking_sleep_takes_its_time(database_url: str) -> None:
    """`perdure.sync.sleep` too."""
    with perdure.sync.Perdure(database_url):
        assert timedelta(seconds=0.2) <= blocking_sleeper(0.2) < timedelta(seconds=10)


@pytest.mark.parametrize("colour", ["async", "blocking"])
def test_a_long_sleep_holds_no_memory(colour: str, database_url: str) -> None:
    """A run that sleeps long is `waiting`, with the time it wakes; another process may wake it."""
    with perdure.sync.Perdure(database_url) as app:
        target = sleeper if colour == "async" else blocking_sleeper
        handle = perdure.sync.start(target, 2.5)
        deadline = time.monotonic() + 20
        while handle.status() != "waiting":
            assert time.monotonic() < deadline
        info = handle.describe()
        assert info.wakes is not None
        assert info.wakes > info.created
        while app.engine.executor.count:  # `waiting` is committed a moment before the code has left the stack
            assert time.monotonic() < deadline
        assert timedelta(seconds=2.5) <= handle.result(timeout=20) < timedelta(seconds=12)


@on_loop
async def test_sleep_until_a_moment(database_url: str) -> None:
    """`sleep_until` wakes at the moment or just after; one that has passed does not sleep."""
    async with Perdure(database_url):
        moment = perdure.now() + timedelta(seconds=0.2)
        assert await sleeps_until(moment) >= moment
        past = datetime(2020, 1, 1, tzinfo=UTC)
        assert await asyncio.wait_for(sleeps_until(past), 10) > past


@on_loop
async def test_wrong_sleeps_are_refused(database_url: str) -> None:
    """A negative sleep and a moment without a zone are ValueErrors that say what to write."""
    async with Perdure(database_url):
        with pytest.raises(ValueError, match="aware"):
            await perdure.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(ValueError, match="sleep"):
            await perdure.sleep(-1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: perdure.sleep(1),
        lambda: perdure.sync.sleep(1),
        perdure.random,
        perdure.uuid4,
        perdure.info,
        lambda: perdure.sleep_until(datetime(2030, 1, 1, tzinfo=UTC)),
        lambda: perdure.sync.run_step(plain, 1, 2),
    ],
)
def test_outside_of_a_workflow_they_say_so(call: object) -> None:
    """What only means something in a workflow raises NotInWorkflow outside, at the call, without an app."""
    assert callable(call)
    with pytest.raises(NotInWorkflow, match="workflow"):
        call()


@on_loop
async def test_now_outside_of_a_workflow_is_the_databases_time(database_url: str) -> None:
    """`perdure.now()` is aware and near the database's clock."""
    async with Perdure(database_url):
        [(there,)] = await asyncio.to_thread(rows, database_url, "select now()")
        assert abs(perdure.now() - there) < timedelta(seconds=5)


@on_loop
async def test_info_says_who_is_running(database_url: str) -> None:
    """In a workflow and in its steps `info()` names run, workflow, step and attempt."""
    async with Perdure(database_url):
        handle = await who.options(id="w").start()
        await handle.result(timeout=20)
    outer, first, second = infos
    assert (outer.run_id, outer.workflow, outer.step) == ("w", f"{__name__}.who", None)
    assert (first.run_id, first.step, first.attempt) == ("w", f"{__name__}.look", 1)
    assert len({info.idempotency_key for info in infos}) == 3
    assert outer.worker == first.worker == second.worker


@on_loop
async def test_the_idempotency_key_is_the_steps_own(database_url: str) -> None:
    """Every attempt of a step has the same key, and no other step has it."""
    async with Perdure(database_url):
        first, second = await keys()
    assert [info.idempotency_key for info in infos] == [first, first, second]
    assert [info.attempt for info in infos] == [1, 2, 1]
    assert first != second


@on_loop
async def test_run_step_takes_both_colours(database_url: str) -> None:
    """`await run_step(...)` calls `def` and `async def` steps with their arguments."""
    async with Perdure(database_url):
        assert await both_colours() == [6, 20]


def test_blocking_run_step_takes_both_colours(database_url: str) -> None:
    """`sync.run_step(...)` does as well."""
    with perdure.sync.Perdure(database_url):
        assert both_colours_blocking() == [6, 20]
