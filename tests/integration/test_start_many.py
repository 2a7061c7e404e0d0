"""`app.start_many`: many starts in one call, which share commits, with an answer for each."""

from __future__ import annotations

import pytest

import perdure
from perdure import Perdure, Topic, WorkflowConflict, sync, workflow
from perdure.client import current_app
from tests.api_tools import on_loop, rows

words = Topic("words", str)
blocking_app: list[sync.Perdure] = []


@workflow
async def double(number: int) -> int:
    return 2 * number


@workflow
def half(number: int) -> int:
    return number // 2


@workflow
async def hears(name: str) -> str:
    return name + await perdure.receive(words)


@workflow
async def starts_three() -> list[int]:
    app = current_app()
    assert isinstance(app, Perdure)
    handles = await app.start_many(double.options(id=f"c{number}").bind(number) for number in range(3))
    return [await handle.result() for handle in handles]


@workflow
def starts_three_blocking() -> list[int]:
    return [
        handle.result() for handle in blocking_app[0].start_many(half.bind(number) for number in range(3))
    ]


@on_loop
async def test_each_start_has_its_own_handle_in_order(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handles = await app.start_many(double.bind(number) for number in range(300))
        assert [await handle.result(timeout=30) for handle in handles] == [
            2 * number for number in range(300)
        ]
        assert all(handle.created for handle in handles)
        assert await app.start_many([]) == []


@on_loop
async def test_ten_thousand_in_one_call_share_commits(database_url: str) -> None:
    async with Perdure(database_url, worker=False) as app:
        handles = await app.start_many(
            double.options(id=f"n{number}", queue="later").bind(number) for number in range(10_000)
        )
        assert len({handle.id for handle in handles}) == 10_000
        born = "select count(*), count(distinct xmin::text) from perdure.live where status = 2"
        ((count, transactions),) = rows(database_url, born)
        assert count == 10_000
        assert transactions < 100
        again = await app.start_many(double.options(id=f"n{number}").bind(number) for number in range(10))
        assert not any(handle.created for handle in again)


@on_loop
async def test_one_that_fails_does_not_keep_the_others_from_starting(database_url: str) -> None:
    async with Perdure(database_url) as app:
        await hears.options(id="taken").start("x")
        starts = [double.bind(1), double.options(id="taken").bind(2), double.bind(3)]
        first, conflict, third = await app.start_many(starts, return_errors=True)
        assert isinstance(conflict, WorkflowConflict)
        assert not isinstance(first, perdure.PerdureError)
        assert not isinstance(third, perdure.PerdureError)
        assert (await first.result(timeout=30), await third.result(timeout=30)) == (2, 6)
        with pytest.raises(WorkflowConflict, match="taken"):
            await app.start_many([double.options(id="last").bind(4), double.options(id="taken").bind(2)])
        assert await app.handle("last").result(timeout=30) == 8


@on_loop
async def test_messages_and_the_other_colour_go_along(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handles = await app.start_many(
            [hears.options(send=(words, "!")).bind("a"), hears.options(send=(words, "?")).bind("b")]
        )
        assert [await handle.result(timeout=30) for handle in handles] == ["a!", "b?"]
        assert [await handle.result(timeout=30) for handle in await app.start_many([half.bind(8)])] == [4]
        with pytest.raises(TypeError):
            await app.start_many([double.bind()])  # type: ignore[call-arg]


@on_loop
async def test_in_workflows_they_are_children(database_url: str) -> None:
    async with Perdure(database_url) as app:
        assert await starts_three.options(id="p")() == [0, 2, 4]
        assert len(await app.runs.list(parent="p")) == 3


def test_blocking_code_has_the_same(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        assert [
            handle.result(timeout=30) for handle in app.start_many(half.bind(number) for number in (2, 4))
        ] == [1, 2]
        assert [handle.result(timeout=30) for handle in app.start_many([double.bind(3)])] == [6]
        blocking_app.append(app)
        assert starts_three_blocking.options(id="p")() == [0, 0, 1]
        assert len(app.runs.list(parent="p")) == 3
