"""Many items, from many places at once: all of them, in the order of each writer, in bounded memory."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest

import perdure
from perdure import Item, Perdure, step, sync, workflow
from perdure.core import body
from perdure.core.body import Body
from tests.api_tools import on_loop, rows

MANY = 20_000


@step(name="many.writes")
async def writes(count: int) -> int:
    for number in range(count):
        await perdure.write_stream("s", number)
    return most_on_the_way()


@step(name="many.writes_blocking")
def writes_blocking(count: int) -> int:
    for number in range(count):
        sync.write_stream("s", number)
    return most_on_the_way()


def most_on_the_way() -> int:
    """How many items of the running body are not answered yet."""
    running = body.running.get()
    assert running is not None
    return len(running._sent)


@workflow(name="many.run")
async def run(count: int) -> int:
    return await writes(count)


@workflow(name="many.run_blocking")
def run_blocking(count: int) -> int:
    return writes_blocking(count)


@pytest.mark.parametrize("flow", [run, run_blocking], ids=["async", "blocking"])
@on_loop
async def test_a_body_that_writes_faster_than_the_database_waits(flow: Any, database_url: str) -> None:
    """Twenty thousand items, all read in order; never more than a hundred on their way, and little memory."""
    async with Perdure(database_url):
        tracemalloc.start()
        try:
            handle = await perdure.start(flow, MANY)
            expected = 0
            async for item in handle.stream("s"):
                assert isinstance(item, Item)
                assert (item.offset, item.value) == (expected, expected)
                expected += 1
            assert await handle.result(timeout=30) <= body.MOST_ON_THE_WAY
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert expected == MANY
    assert peak < 20_000_000


@step(name="many.from_a_thread")
def from_a_thread(name: str, count: int) -> None:
    for number in range(count):
        sync.write_stream("s", f"{name} {number}")


@workflow(name="many.at_once")
async def at_once(count: int) -> None:
    async def own() -> None:
        for number in range(count):
            await perdure.write_stream("s", f"own {number}")

    await asyncio.gather(own(), *(perdure.run_step(from_a_thread, name, count) for name in "abc"))


@workflow(name="many.at_once_blocking")
def at_once_blocking(count: int) -> None:
    def own() -> None:
        for number in range(count):
            sync.write_stream("s", f"own {number}")

    sync.gather(own, *(lambda name=name: from_a_thread(name, count) for name in "abc"))


@pytest.mark.parametrize("flow", [at_once, at_once_blocking], ids=["async", "blocking"])
@on_loop
async def test_threads_and_workflow_code_write_on_one_stream_at_once(flow: Any, database_url: str) -> None:
    """Nothing is lost, no place is given twice, and of each writer the order is its own."""
    async with Perdure(database_url):
        handle = await perdure.start(flow, 60)
        seen = [item async for item in handle.stream("s")]
        await handle.result(timeout=30)
    values = [item.value for item in seen if isinstance(item, Item)]
    assert len(values) == 240
    for name in ("own", "a", "b", "c"):
        assert [value for value in values if value.split()[0] == name] == [f"{name} {n}" for n in range(60)]
    places = rows(database_url, "select min(place), max(place), count(*) from perdure.streams")
    assert places == [(0, 239, 240)]


class LateHost:
    """A host that is busy: what it is asked to send it sends when the test says so."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.waiting: list[Any] = []

    def soon(self, make: Any) -> None:
        self.waiting.append(make)

    def work(self) -> None:
        self.made += [ticket for make in self.waiting if (ticket := make()) is not None]


class OneRun:
    """As much of a run as a body needs."""

    def __init__(self, host: LateHost) -> None:
        self.host, self.runtime = host, self
        self.closed, self.key = False, 1
        self.streams: dict[str, int] = {}
        self.progress: dict[str, bytes] = {}

    def alive(self) -> bool:
        return True

    def next_place(self, key: str) -> int:
        self.streams[key] = self.streams.get(key, -1) + 1
        return self.streams[key]


def test_no_item_follows_the_mark_that_discards_its_attempt() -> None:
    """Written in a thread in the moment in which the attempt ran out of time: it is covered by the mark, or not sent."""
    host = LateHost()
    run: Any = OneRun(host)
    attempt = Body(run, "1", "step")
    attempt.write("s", b"1")
    host.work()
    host.waiting.clear()
    late: threading.Thread = threading.Thread(target=lambda: attempt.write("s", b"2"))
    late.start()
    late.join()
    attempt.failed()
    host.waiting.reverse()  # the loop's own comes at once, the thread's after it
    host.work()
    kinds = [record.kind.name for ticket in host.made for record in ticket.records]
    assert kinds == ["ITEM", "DISCARDED"]
