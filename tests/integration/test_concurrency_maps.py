"""`map_steps` in both colours: so many at a time, in order, with so many failures as are tolerated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import perdure
from perdure import Retry, WrongColour, step, sync, workflow
from perdure.context.concurrency import MapWork
from tests.api_tools import on_loop, until

MANY = 30
lock = threading.Lock()
under_way: list[int] = [0, 0]
"""How many bodies run now, and the most that ever did."""
begun: list[int] = []
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    under_way[:] = [0, 0]
    begun.clear()
    door.clear()


def enter(number: int) -> None:
    """A body begins."""
    with lock:
        begun.append(number)
        under_way[0] += 1
        under_way[1] = max(under_way)


def leave() -> None:
    """A body ends."""
    with lock:
        under_way[0] -= 1


@step
async def double(number: int) -> int:
    enter(number)
    await asyncio.sleep(0.01 * (number % 3))
    leave()
    return 2 * number


@step
def double_blocking(number: int) -> int:
    enter(number)
    threading.Event().wait(0.01 * (number % 3))
    leave()
    return 2 * number


@step(retry=Retry(max_attempts=3, delay=0.01))
async def third_time(number: int) -> int:
    begun.append(number)
    if perdure.info().attempt < 3:
        raise ConnectionError(number)
    return number


@step
async def odd_fails(number: int) -> int:
    if number % 2:
        raise LookupError(f"odd: {number}")
    return number


@step
def odd_fails_blocking(number: int) -> int:
    if number % 2:
        raise LookupError(f"odd: {number}")
    return number


@workflow
async def child(number: int) -> int:
    await perdure.sleep(0.01)
    return await double(number)


@workflow
def child_blocking(number: int) -> int:
    sync.sleep(0.01)
    return double_blocking(number)


STEPS: dict[str, Any] = {
    "async step": double,
    "def step": double_blocking,
    "async child": child,
    "def child": child_blocking,
    "retried": third_time,
    "async failing": odd_fails,
    "def failing": odd_fails_blocking,
}


def numbers(count: int) -> Iterator[int]:
    """Items that can be gone through once."""
    yield from range(count)


# `Any`: as `float` the number 5 would arrive as 5.0, which is no share.
@workflow
async def mapped(name: str, count: int, limit: int, tolerate: Any) -> list[Any]:
    result = await perdure.map_steps(STEPS[name], numbers(count), limit=limit, tolerate=tolerate)
    return [result.results, [[one.index, one.item, str(one.error)] for one in result.failures]]


@workflow
def mapped_blocking(name: str, count: int, limit: int, tolerate: Any) -> list[Any]:
    result = sync.map_steps(STEPS[name], numbers(count), limit=limit, tolerate=tolerate)
    return [result.results, [[one.index, one.item, str(one.error)] for one in result.failures]]


both = pytest.mark.parametrize("target", [mapped, mapped_blocking], ids=["async", "blocking"])


def of(target: Any, name: str, count: int = MANY, limit: int = 4, tolerate: float = 0) -> Any:
    """The outcome of a map."""
    return sync.start(target, name, count, limit, tolerate).result(timeout=30)


@both
@pytest.mark.parametrize("name", ["async step", "def step"])
@pytest.mark.parametrize("limit", [1, 5])
def test_so_many_at_a_time_and_in_order(target: Any, name: str, limit: int, database_url: str) -> None:
    """The limit is reached and never exceeded, each item is called once, and results have the order of the items."""
    with sync.Perdure(database_url):
        assert of(target, name, limit=limit) == [[2 * number for number in range(MANY)], []]
    assert under_way == [0, limit]
    assert sorted(begun) == list(range(MANY))


@pytest.mark.parametrize(("target", "name"), [(mapped, "async child"), (mapped_blocking, "def child")])
def test_a_workflow_is_called_for_each_item(target: Any, name: str, database_url: str) -> None:
    """Each item has a child of its own."""
    with sync.Perdure(database_url) as app:
        assert of(target, name, 6) == [[0, 2, 4, 6, 8, 10], []]
        assert app.runs.count() == 7


@pytest.mark.parametrize(("target", "name"), [(mapped, "def child"), (mapped_blocking, "async child")])
def test_a_workflow_of_the_other_colour_is_refused(target: Any, name: str, database_url: str) -> None:
    """As everywhere; the error says what to write."""
    with sync.Perdure(database_url), pytest.raises(WrongColour):
        of(target, name, 3)


@both
def test_no_items_are_no_work(target: Any, database_url: str) -> None:
    """The result is empty."""
    with sync.Perdure(database_url):
        assert of(target, "async step", 0) == [[], []]


@both
def test_each_item_is_tried_as_often_as_its_step_says(target: Any, database_url: str) -> None:
    """Only what is left after all attempts is a failure."""
    with sync.Perdure(database_url):
        assert of(target, "retried", 5) == [[0, 1, 2, 3, 4], []]
    assert sorted(begun) == sorted(3 * [0, 1, 2, 3, 4])


@both
@pytest.mark.parametrize("tolerate", [5, 0.5, 1.0], ids=["a number", "a share", "all"])
def test_failures_that_are_tolerated_are_told(target: Any, tolerate: float, database_url: str) -> None:
    """Place, item and error of each failure come with the results, in the order of the items."""
    name = "async failing" if target is mapped else "def failing"
    with sync.Perdure(database_url):
        results, failures = of(target, name, 10, tolerate=tolerate)
    assert results == [0, 2, 4, 6, 8]
    assert [failure[:2] for failure in failures] == [[n, n] for n in (1, 3, 5, 7, 9)]
    assert all(failure[2].startswith("odd: ") for failure in failures)


@both
@pytest.mark.parametrize(("tolerate", "allowed"), [(0, 0), (4, 4), (0.49, 4), (0.0, 0)])
def test_one_failure_too_many_is_the_error_of_all(
    target: Any, tolerate: float, allowed: int, database_url: str
) -> None:
    """It is the item's own error, with a note of which item and how many."""
    name = "async failing" if target is mapped else "def failing"
    with sync.Perdure(database_url):
        with pytest.raises(LookupError, match="odd") as raised:
            of(target, name, 10, limit=1, tolerate=tolerate)
        last = 2 * allowed + 1
        note = f"item {last} of 10: {allowed + 1} failed, {allowed} tolerated"
        assert note in "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])


@both
def test_a_share_is_not_rounded_down_by_a_hair(target: Any, database_url: str) -> None:
    """29 % of 100 items are 29, whatever binary fractions make of it."""
    name = "async failing" if target is mapped else "def failing"
    with sync.Perdure(database_url):
        results, failures = of(target, name, 58, tolerate=0.5)
        assert (len(results), len(failures)) == (29, 29)
    work = MapWork(range(100), 1, 0.29)
    for number in range(29):
        work.failed(number, LookupError(number))
    with pytest.raises(LookupError):
        work.failed(29, LookupError(29))


@both
@pytest.mark.parametrize(("limit", "tolerate"), [(0, 0), (-1, 0), (1, -1), (1, 1.5)])
def test_wrong_limits_are_refused(target: Any, limit: int, tolerate: float, database_url: str) -> None:
    """Before anything is called; a share above one is a number that was meant as `int`."""
    with sync.Perdure(database_url), pytest.raises(ValueError, match=r"map_steps\((limit|tolerate)="):
        of(target, "async step", 3, limit, tolerate)
    assert begun == []


@workflow
async def slow_child(number: int) -> int:
    if number == 2:
        raise LookupError("two")
    await perdure.sleep(60)
    return number


@workflow
async def map_of_children() -> None:
    await perdure.map_steps(slow_child, range(20), limit=3)


def test_what_is_under_way_is_cancelled_after_one_too_many(database_url: str) -> None:
    """Children of the items under way are cancelled, and no further ones are started."""
    with sync.Perdure(database_url) as app:
        with pytest.raises(LookupError, match="two"):
            sync.start(map_of_children).result(timeout=20)
        until(lambda: app.runs.count(workflow=slow_child.definition.name, status="cancelled") == 2)
        assert app.runs.count(workflow=slow_child.definition.name) == 3


@on_loop
async def test_outside_of_a_workflow_it_calls_plain_steps(database_url: str) -> None:
    """Nothing is remembered; a `def` step, which would block the loop, is refused before it is called."""
    result = await perdure.map_steps(double, range(5), limit=2)
    assert result.results == [0, 2, 4, 6, 8]
    begun.clear()
    with pytest.raises(perdure.PerdureError):
        await perdure.map_steps(double_blocking, range(5), limit=2)
    assert begun == []
