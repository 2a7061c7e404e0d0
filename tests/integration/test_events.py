"""Events: the last value for whoever asks, every value as history, for ever; waited for by clients and by runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import (
    Perdure,
    RunEnded,
    SerializationError,
    Topic,
    WaitTimeout,
    WorkflowNotFound,
    sync,
    workflow,
)
from perdure.store.records import EndRecord, EventRecord, Outcome, PutAway, StepRecord, WaitRecord
from perdure.testing.clock import Clock
from tests.api_tools import on_loop, rows, until_true
from tests.message_tools import COLOURS, asked, silence, waiting
from tests.protocol_tools import RawWorker

both = pytest.mark.parametrize("colour", COLOURS)


@dataclass
class Progress:
    done: int
    of: int


progress = Topic("progress", Progress)


@workflow(name="events.setter")
async def setter(values: list[Any]) -> str:
    for value in values:
        await perdure.set_event("e", value)
    await perdure.receive("go on")
    await perdure.set_event(progress, Progress(1, 2))
    return "set"


@workflow(name="events.setter_blocking")
def setter_blocking(values: list[Any]) -> str:
    for value in values:
        sync.set_event("e", value)
    sync.receive("go on")
    sync.set_event(progress, Progress(1, 2))
    return "set"


@workflow(name="events.reader")
async def reader(id: str, seconds: float | None) -> Any:
    try:
        return (await perdure.get_event(id, progress, timeout=seconds)).done
    except (RunEnded, WaitTimeout, WorkflowNotFound) as error:
        return f"{type(error).__name__}: {error}"


@workflow(name="events.reader_blocking")
def reader_blocking(id: str, seconds: float | None) -> Any:
    try:
        return sync.get_event(id, progress, timeout=seconds).done
    except (RunEnded, WaitTimeout, WorkflowNotFound) as error:
        return f"{type(error).__name__}: {error}"


@workflow(name="events.looks_only")
async def looks_only(id: str) -> list[Any]:
    return [await perdure.get_event(id, "e", timeout=0, default="missed") for _ in range(20)]


@workflow(name="events.result_only")
async def result_only(id: str) -> int:
    seen = 0
    for _ in range(20):
        try:
            await setter.handle(id).result(timeout=0)
            seen += 1
        except WaitTimeout:
            continue
    return seen


SETTER: dict[str, Any] = {"async": setter, "blocking": setter_blocking}
READER: dict[str, Any] = {"async": reader, "blocking": reader_blocking}


@both
@on_loop
async def test_the_last_value_is_read_and_every_value_is_kept(colour: str, database_url: str) -> None:
    """While the run lives and after its end: the last for `get_event`, all of them in order for `events`."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(SETTER[colour].options(id="s"), [1, "two", None])
        assert await handle.get_event(progress, default=None, timeout=0) is None
        await handle.send("go on", 1)
        assert await handle.result(20) == "set"
        for _ in range(2):
            assert await perdure.get_event("s", "e") is None
            assert await handle.get_event(progress) == Progress(1, 2)
        said = [(event.key, event.json()) for event in await handle.events()]
    assert said == [("e", "1"), ("e", '"two"'), ("e", "null"), ("progress", '{"done":1,"of":2}')]


@on_loop
async def test_a_value_that_is_set_is_not_waited_for(database_url: str) -> None:
    """`timeout=0` finds what stands, always, from outside and from a workflow."""
    async with Perdure(database_url, grace=0):
        handle = await setter.options(id="s").start([5])
        assert await handle.get_event("e") == 5
        for _ in range(20):
            assert await handle.get_event("e", timeout=0) == 5
        assert await looks_only("s") == [5] * 20


@on_loop
async def test_a_result_that_is_there_is_not_waited_for(database_url: str) -> None:
    """The same for the end of a run: `result(timeout=0)` in a workflow finds it."""
    async with Perdure(database_url, grace=0):
        handle = await setter.options(id="s", send=("go on", 1)).start([])
        await handle.result(20)
        assert await result_only("s") == 20


@pytest.mark.parametrize("put_away", [True, False], ids=["put away", "in memory"])
@both
@on_loop
async def test_whoever_waits_is_told(
    colour: str, put_away: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client, and a run in another process that is put away or in memory."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05 if put_away else 60)
    async with Perdure(database_url, grace=0), Perdure(database_url, worker=False) as client:
        with client.bind():
            handle = await perdure.start(SETTER[colour].options(id="s"), [])
            reading = await perdure.start(READER[colour].options(id="r"), "s", None)
        outside = asyncio.create_task(handle.get_event(progress, timeout=20))
        if put_away:
            await waiting(database_url, 2)
        else:
            await until_true(lambda: asked(database_url, "select 1 from perdure.live having count(*) = 2"))
        await handle.send("go on", 1)
        assert await reading.result(20) == 1
        assert await outside == Progress(1, 2)


@both
@on_loop
async def test_an_event_that_never_comes_is_said_to(colour: str, database_url: str) -> None:
    """Never set in time, ended without, unknown run: each has an error that says so; a default stands in for time."""
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(SETTER[colour].options(id="s"), [])
        for id, expected in (
            ("s", "WaitTimeout: run s did not set 'progress' in time"),
            ("nobody", "WorkflowNotFound: no run has the id 'nobody'"),
        ):
            assert await (await perdure.start(READER[colour], id, 0.05)).result(20) == expected
        with pytest.raises(WaitTimeout, match=r"run s did not set 'never' within 0\.05 s"):
            await handle.get_event("never", timeout=0.05)
        assert await handle.get_event("never", timeout=0.05, default="nothing") == "nothing"
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await perdure.get_event("nobody", "e")
        waits = asyncio.create_task(handle.get_event("never", timeout=20))
        reading = await perdure.start(READER[colour], "s", None)
        await handle.send("go on", 1)
        await handle.result(20)
        assert await reading.result(20) == 1
        with pytest.raises(RunEnded, match="run s ended as succeeded without setting 'never'"):
            await waits
        with pytest.raises(RunEnded, match="without setting 'never'"):
            await handle.get_event("never")


@both
@on_loop
async def test_a_reader_of_a_run_that_ends_without_is_told(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put away while it waits, it is woken by the end; cancelled counts as ended."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05)
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(SETTER[colour].options(id="s"), [])
        reading = await perdure.start(READER[colour], "s", None)
        await waiting(database_url, 2)
        assert await handle.cancel()
        assert await reading.result(20) == "RunEnded: run s ended as cancelled without setting 'progress'"


@on_loop
async def test_a_value_comes_before_the_time_that_is_over(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set in time, noticed late: the reader that was put away gets the value, not WaitTimeout."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    async with Perdure(database_url, grace=0):
        with Clock(database_url) as clock:
            handle = await setter.options(id="s").start([])
            readings = [await reader.start("s", 3600.0) for _ in range(10)]
            await waiting(database_url, 11)
            await asked(
                database_url,
                "update perdure.live set status = 6, reason = 'test' where workflow like '%%reader'",
            )
            await handle.send("go on", 1)
            await handle.result(20)
            clock.advance(3600)
            await asked(database_url, "update perdure.live set status = 2, ready = null where status = 6")
            assert [await reading.result(20) for reading in readings] == [1] * 10


@on_loop
async def test_a_value_of_another_type_is_a_clear_error(database_url: str) -> None:
    """The reader's type does not fit: SerializationError, where it is read; set with the wrong type, where it is set."""
    async with Perdure(database_url, grace=0):
        handle = await setter.options(id="s").start(["text"])
        assert await handle.get_event("e", type=str) == "text"
        with pytest.raises(SerializationError):
            await handle.get_event("e", type=int)


# -- the protocol: hints off ---------------------------------------------------------------------------------


def event_step(run: int, group: int = 1) -> tuple[StepRecord, EventRecord]:
    step = StepRecord(run, str(group), group, 0, 10, "e", False, b"null")
    return step, EventRecord(run, str(group), "e", str(group).encode())


def test_an_event_and_a_put_away_see_each_other(database_url: str) -> None:
    """Set before, the run stays; set after and the setter's worker dies before it wakes anybody: the sweep wakes it."""
    with RawWorker(database_url, single=False) as owner:
        target, early, late = owner.start("target"), owner.start("early"), owner.start("late")
        for run in (early, late):
            owner.write(WaitRecord(run, "1", target=target, topic="e"))
        away = PutAway(late, {"1": None})
        owner.write(away)
        assert away.outcome is Outcome.WON
        owner.write(*event_step(target))
        away = PutAway(early, {"1": None})
        owner.write(away)
        assert away.outcome is Outcome.STAY
        owner.connection.execute(
            owner.database.statements["sweep"],
            {"timeout": b"null", "expired": b"null", "left": 5.0, "types": []},
        )
        assert rows(database_url, "select status from perdure.live where key = %s", late) == [(2,)]


def test_an_event_stands_or_falls_with_its_step(database_url: str) -> None:
    """Where another owner's record stands, the late worker's event is not set."""
    with RawWorker(database_url) as first, RawWorker(database_url) as second:
        run = first.start("target")
        second.write(StepRecord(run, "1", 1, 0, 10, "e", False, b"null"))
        late = event_step(run)
        first.write(*late)
        assert late[0].outcome is Outcome.LOST
        assert rows(database_url, "select 1 from perdure.events") == []


def test_the_last_value_is_the_last_that_the_run_set(database_url: str) -> None:
    """By the order of the run's record, whatever order rows are written in."""
    with RawWorker(database_url, single=False) as owner:
        run = owner.start("target")
        owner.write(*event_step(run, 1), *event_step(run, 3), *event_step(run, 2), EndRecord(run, 7, b"1"))
        statement = owner.database.statements["find_events"]
        found = owner.connection.execute(statement, {"run": [run], "key": ["e"]}).fetchall()
    assert [bytes(value) for *_, value in found] == [b"3"]


@on_loop
async def test_polling_alone_brings_an_event(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a client, and to a run in memory, without a hint."""
    silence(monkeypatch)
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 60)
    async with Perdure(database_url, grace=0), Perdure(database_url, worker=False) as client:
        with client.bind():
            handle = await perdure.start(setter.options(id="s"), [])
            reading = await perdure.start(reader, "s", None)
            outside = asyncio.create_task(perdure.get_event("s", progress, timeout=20))
            await handle.send("go on", 1)
            assert await outside == Progress(1, 2)
            assert await reading.result(20) == 1
