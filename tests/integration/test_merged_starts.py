"""`debounce=` and `batch=`: several starts, one run."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Batch, Debounce, Perdure, PerdureError, sync, workflow
from perdure.testing import Clock
from tests.api_tools import on_loop, rows

seen: list[object] = []


@workflow(name="merged.last")
async def last(text: str) -> str:
    seen.append(text)
    return text


@workflow(name="merged.gather")
async def gather(items: list[float]) -> list[float]:
    seen.append(items)
    return items


@workflow(name="merged.two")
async def two(items: list[int], more: int) -> int:
    return len(items) + more


@pytest.fixture(autouse=True)
def fresh() -> None:
    seen.clear()


@on_loop
async def test_last_start_wins_and_each_puts_it_off(database_url: str) -> None:
    """The run begins so long after the last start, with its arguments; all have one handle; later there is a new run."""
    async with Perdure(database_url) as app:
        with Clock(database_url) as clock:
            started = last.options(debounce=Debounce(10))
            first = await started.start("a")
            clock.advance(9)
            second = await started.start("b")
            assert (first.id, first.created, second.created) == (second.id, True, False)
            clock.advance(9)
            assert await second.status() == "scheduled"
            clock.advance(2)
            assert await first.result(timeout=30) == "b"
            third = await started.start("c")
            assert third.created
            assert third.id != first.id
            await app.runs.cancel(third.id)
    assert seen == ["b"]


@on_loop
async def test_it_is_not_put_off_for_ever(database_url: str) -> None:
    """After the longest wait it begins, however many follow; keys are apart."""
    async with Perdure(database_url):
        with Clock(database_url) as clock:
            handles = []
            for text in "abc":
                handles.append(
                    await last.options(debounce=Debounce(10, timedelta(seconds=15), key="k")).start(text)
                )
                clock.advance(7)
            other = await last.options(debounce=Debounce(10, key="other")).start("x")
            assert await handles[2].result(timeout=30) == "c"
            assert await other.status() == "scheduled"


@on_loop
async def test_batch_is_full_or_its_time_has_come(database_url: str) -> None:
    """Items of many starts at once come in the order of their starts, as they were written; the rest after the wait."""
    async with Perdure(database_url):
        with Clock(database_url) as clock:
            batch = gather.options(batch=Batch(4, wait=60))
            handles = [await batch.start([value, value + 0.5]) for value in (1.0, 2.0, 3.0)]
            assert handles[0].id == handles[1].id != handles[2].id
            assert await handles[0].result(timeout=30) == [1.0, 1.5, 2.0, 2.5]
            assert await handles[2].status() == "scheduled"
            clock.advance(61)
            assert await handles[2].result(timeout=30) == [3.0, 3.5]


@on_loop
async def test_no_item_is_lost_or_doubled_by_many_at_once(database_url: str) -> None:
    async with Perdure(database_url):
        batch = gather.options(batch=Batch(7, wait=0.05))
        handles = await asyncio.gather(*(batch.start([float(number)]) for number in range(100)))
        results = {handle.id: await handle.result(timeout=60) for handle in handles}
    assert sorted(item for items in results.values() for item in items) == [
        float(number) for number in range(100)
    ]
    assert max(map(len, results.values())) <= 7


@on_loop
async def test_start_that_is_sent_again_is_gathered_once(database_url: str) -> None:
    """An answer that was lost leads to a second try, which finds itself."""
    async with Perdure(database_url, worker=False):
        merge = "select run from perdure.start_merged('merged.gather', '{\"args\":[[1]]}', '{}', '{\"size\": 9, \"wait\": 60}', %s)"
        for part in ("a", "b", "b"):
            rows(database_url, merge, part)
        assert rows(database_url, "select convert_from(input, 'UTF8') from perdure.runs") == [
            ('{"args":[[1,1]]}',)
        ]


def test_blocking_code_merges_too(database_url: str) -> None:
    with sync.Perdure(database_url, worker=False) as app:
        handles = [sync.start(last.options(debounce=Debounce(10)), text) for text in "ab"]
        assert handles[0].id == handles[1].id
        app.runs.cancel(handles[0].id)


@on_loop
async def test_what_cannot_be_merged_is_refused(database_url: str) -> None:
    async with Perdure(database_url):
        for wrong in (
            {"debounce": Debounce(1), "batch": Batch(1, 1)},
            {"debounce": Debounce(1), "id": "x"},
            {"debounce": Debounce(-1)},
            {"batch": Batch(0, 1)},
        ):
            with pytest.raises(ValueError, match=r"ebounce|atch"):
                last.options(**wrong)
        with pytest.raises(TypeError, match="Debounce"):
            last.options(debounce=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a list"):
            await two.options(batch=Batch(2, 1)).start([1], 2)
        with pytest.raises(PerdureError, match=r"\.start"):
            await last.options(debounce=Debounce(1))("a")
    assert rows(database_url, "select count(*) from perdure.runs") == [(0,)]
