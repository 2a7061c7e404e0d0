"""Streams: items in order, from any offset, as they are written; what a failed attempt wrote is marked, not lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

import perdure
from perdure import (
    Discarded,
    Item,
    NotInWorkflow,
    Perdure,
    PerdureError,
    Retry,
    Topic,
    WorkflowNotFound,
    step,
    sync,
    workflow,
)
from tests.api_tools import on_loop, rows, until_true

log: list[str] = []
door = threading.Event()
go_on: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    door.clear()
    go_on.clear()


async def logged(line: str) -> None:
    async def check() -> bool:
        return line in log

    await until_true(check)


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    """Everything on a stream: values, and for a mark its place."""
    return [
        item.value if isinstance(item, Item) else f"discarded from {item.from_offset}"
        async for item in stream
    ]


@step(name="stream.counts")
async def counts(to: int) -> str:
    for number in range(to):
        await perdure.write_stream("s", number)
    return "counted"


@step(name="stream.counts_blocking")
def counts_blocking(to: int) -> str:
    for number in range(to):
        sync.write_stream("s", number)
    return "counted"


@workflow(name="stream.both")
async def both() -> str:
    await perdure.write_stream("s", "begin")
    await counts(3)
    await perdure.run_step(counts_blocking, 2)
    await perdure.write_stream("s", "end")
    return "well"


@workflow(name="stream.both_blocking")
def both_blocking() -> str:
    sync.write_stream("s", "begin")
    sync.run_step(counts, 3)
    counts_blocking(2)
    sync.write_stream("s", "end")
    return "well"


flows = pytest.mark.parametrize("flow", [both, both_blocking], ids=["async", "blocking"])
WHOLE = ["begin", 0, 1, 2, 0, 1, "end"]


@flows
@on_loop
async def test_items_come_in_the_order_in_which_they_were_written(flow: Any, database_url: str) -> None:
    """Of the workflow's code and of its bodies in both colours; offsets count from zero, without a gap."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        items = [item async for item in handle.stream("s")]
        assert [item.value for item in items if isinstance(item, Item)] == WHOLE
        assert [item.offset for item in items if isinstance(item, Item)] == list(range(7))
        assert await handle.result(timeout=30) == "well"


@flows
@on_loop
async def test_a_reader_goes_on_where_it_left_and_reads_after_the_end(flow: Any, database_url: str) -> None:
    """From any offset, also beyond the last item; after the run has ended the iterator ends by itself."""
    async with Perdure(database_url) as app, Perdure(database_url, worker=False) as client:
        with app.bind():
            handle = await perdure.start(flow)
        await handle.result(timeout=30)
        with client.bind():
            for offset in range(8):
                assert await all_of(client.handle(handle.id).stream("s", offset=offset)) == WHOLE[offset:]
            assert await all_of(client.handle(handle.id).stream("nothing")) == []
            assert await all_of(perdure.read_stream(handle.id, "s")) == WHOLE


@on_loop
async def test_a_reader_may_come_before_the_run_begins(database_url: str) -> None:
    """It waits while the run is queued; a run that nobody has started is `WorkflowNotFound`."""
    async with Perdure(database_url, worker=False) as client:
        with client.bind():
            handle = await both.options(queue="later").start()
        reading = asyncio.ensure_future(all_of(handle.stream("s")))
        async with Perdure(database_url, listen=["later"]):
            assert await asyncio.wait_for(reading, 30) == WHOLE
        with pytest.raises(WorkflowNotFound), client.bind():
            await all_of(perdure.read_stream("nobody", "s"))


@step(name="stream.slowly")
async def slowly() -> None:
    for number in range(3):
        await perdure.write_stream("s", number)
        await asyncio.wait_for(go_on["event"].wait(), 30)
        go_on["event"].clear()


@workflow(name="stream.live")
async def live() -> None:
    await slowly()


@on_loop
async def test_items_of_a_body_are_seen_while_it_runs(database_url: str) -> None:
    """Each before the next is written."""
    go_on["event"] = asyncio.Event()
    async with Perdure(database_url):
        handle = await live.start()
        seen = []
        async for item in handle.stream("s"):
            assert isinstance(item, Item)
            seen.append(item.value)
            assert rows(database_url, "select 1 from perdure.steps") == []
            go_on["event"].set()
        assert seen == [0, 1, 2]


@step(name="stream.flaky", retry=Retry(max_attempts=3, delay=0))
async def flaky() -> str:
    attempt = perdure.info().attempt
    await perdure.write_stream("s", f"{attempt}a")
    await perdure.write_stream("s", f"{attempt}b")
    if attempt < 3:
        raise ConnectionError("not yet")
    return "well"


@workflow(name="stream.retried")
async def retried() -> str:
    await perdure.write_stream("s", "begin")
    return await flaky()


@on_loop
async def test_what_a_failed_attempt_wrote_stays_and_is_marked(database_url: str) -> None:
    """Its items are followed by `Discarded` with the place of the first; the next attempt's come after that."""
    async with Perdure(database_url):
        handle = await retried.start()
        assert await all_of(handle.stream("s")) == [
            "begin", "1a", "1b", "discarded from 1", "2a", "2b", "discarded from 4", "3a", "3b",
        ]  # fmt: skip


@step(name="stream.out_of_time", timeout=0.3, retry=Retry(max_attempts=2, delay=0))
def out_of_time() -> str:
    attempt = perdure.info().attempt
    sync.write_stream("s", attempt)
    if attempt == 2:
        return "well"
    assert door.wait(30)
    try:
        sync.write_stream("s", "too late")
    except PerdureError as error:
        log.append(f"refused: {error}")
    return "late"


@workflow(name="stream.times_out")
async def times_out() -> str:
    return await perdure.run_step(out_of_time)


@workflow(name="stream.times_out_blocking")
def times_out_blocking() -> str:
    return out_of_time()


@pytest.mark.parametrize("flow", [times_out, times_out_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_body_that_ran_out_of_time_may_not_write_any_more(flow: Any, database_url: str) -> None:
    """Its thread goes on, but what it writes is refused where it writes it."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        stream = handle.stream("s")
        assert await anext(stream) == Item(0, 1)
        assert await anext(stream) == Discarded(0)
        door.set()
        assert await anext(stream) == Item(2, 2)
        assert await handle.result(timeout=30) == "well"
        assert await all_of(stream) == []
    assert len(log) == 1
    assert "is over" in log[0]


@workflow(name="stream.closes")
async def closes() -> None:
    await perdure.write_stream("s", 1)
    await perdure.close_stream("s")
    await perdure.receive("end")


@workflow(name="stream.closes_blocking")
def closes_blocking() -> None:
    sync.write_stream("s", 1)
    sync.close_stream("s")
    sync.receive("end")


@pytest.mark.parametrize("flow", [closes, closes_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_closed_stream_ends_before_its_run(flow: Any, database_url: str) -> None:
    """Its readers stop; the run goes on."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        assert await asyncio.wait_for(all_of(handle.stream("s")), 30) == [1]
        assert await handle.status() in ("running", "waiting")
        await handle.send("end", None)


@dataclass
class Progress:
    """What a typed stream carries."""

    done: int
    day: date


progress = Topic("progress", Progress)


@workflow(name="stream.typed")
async def typed() -> None:
    await perdure.write_stream(progress, Progress(1, date(2026, 1, 2)))
    await perdure.write_stream("day", date(2026, 1, 2))


@on_loop
async def test_items_have_the_types_of_their_stream(database_url: str) -> None:
    """By a `Topic`, or by `type=`."""
    async with Perdure(database_url):
        handle = await typed.start()
        assert await all_of(handle.stream(progress)) == [Progress(1, date(2026, 1, 2))]
        assert await all_of(handle.stream("day", type=date)) == [date(2026, 1, 2)]
        with pytest.raises(ValueError, match="'!'"):
            await all_of(handle.stream("!secret"))


@workflow(name="stream.reader")
async def reader(id: str) -> list[Any]:
    seen = await all_of(perdure.read_stream(id, "s"))
    log.append("read")
    await perdure.receive("end")
    return seen


@workflow(name="stream.reader_blocking")
def reader_blocking(id: str) -> list[Any]:
    seen = [item.value for item in sync.read_stream(id, "s") if isinstance(item, Item)]
    log.append("read")
    sync.receive("end")
    return seen


@pytest.mark.parametrize("flow", [reader, reader_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_workflow_remembers_what_it_has_read(flow: Any, database_url: str) -> None:
    """A replay sees the same items, each once, though the other stream could be read again."""
    async with Perdure(database_url, grace=0):
        source = await both.start()
        handle = await perdure.start(flow, source.id)
        await logged("read")
    rows(database_url, "delete from perdure.streams")
    async with Perdure(database_url) as app:
        await app.handle(handle.id).send("end", None)
        assert await app.handle(handle.id).result(timeout=30) == WHOLE


@pytest.mark.parametrize("flow", [reader, reader_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_workflow_that_waits_for_an_item_can_be_cancelled(flow: Any, database_url: str) -> None:
    """Also a blocking one, which no thread can interrupt."""
    async with Perdure(database_url, grace=0) as app:
        source = await quiet.start()
        handle = await perdure.start(flow, source.id)
        await until_true(
            lambda: asyncio.to_thread(
                rows, database_url, "select 1 from perdure.steps where name like '%%/s'"
            )
        )
        assert await handle.cancel()
        with pytest.raises(perdure.WorkflowCancelled):
            await handle.result(timeout=20)
        await app.handle(source.id).send("end", None)


@workflow(name="stream.quiet")
async def quiet() -> None:
    await perdure.write_stream("s", "only")
    await perdure.receive("end")


@workflow(name="stream.onward")
async def onward(life: int) -> None:
    for number in range(3 * life):
        await perdure.write_stream("s", f"{life}.{number}")
    await perdure.receive("go on")
    if life == 1:
        await perdure.continue_as_new(2)


@on_loop
async def test_a_stream_ends_with_the_life_that_wrote_it(database_url: str) -> None:
    """Where a run goes on as new its stream begins anew: a reader of the first ends there, and skips into no other."""
    async with Perdure(database_url):
        handle = await onward.start(1)
        seen = []
        async for item in handle.stream("s"):
            assert isinstance(item, Item)
            seen.append(item.value)
            if item.value == "1.2":
                await handle.send("go on", None)
                await until_true(
                    lambda: asyncio.to_thread(
                        rows, database_url, "select 1 from perdure.streams having count(*) = 9"
                    )
                )
                await handle.send("go on", None)
        assert seen == ["1.0", "1.1", "1.2"]
        assert await all_of(handle.stream("s", offset=3)) == ["2.3", "2.4", "2.5"]


@on_loop
async def test_only_a_run_and_its_steps_write(database_url: str) -> None:
    """Outside, and in a step that no workflow has called, there is no run whose stream it could be."""
    async with Perdure(database_url):
        with pytest.raises(NotInWorkflow):
            await perdure.write_stream("s", 1)
        with pytest.raises(NotInWorkflow):
            await counts(1)
