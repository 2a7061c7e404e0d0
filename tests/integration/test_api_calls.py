"""Calling and starting workflows: what a user does first, in both colours."""

from __future__ import annotations

import asyncio
import threading

import pytest

import perdure
from perdure import Perdure, WorkflowConflict, step, workflow
from tests.api_tools import on_loop, until_true

opened = asyncio.Event()
blocking_door = threading.Event()
bodies: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global opened
    opened = asyncio.Event()
    blocking_door.clear()
    bodies.clear()


@step
async def add(left: int, right: int = 1) -> int:
    bodies.append(left)
    return left + right


@step
async def wait_for_door() -> None:
    await opened.wait()


@step
def add_blocking(left: int, right: int = 1) -> int:
    bodies.append(left)
    return left + right


@workflow
async def twice(number: int, *, more: int = 1) -> int:
    return await add(await add(number), right=more)


@workflow
async def through_the_door(number: int) -> int:
    await wait_for_door()
    return await add(number)


@workflow
def twice_blocking(number: int, *, more: int = 1) -> int:
    return add_blocking(add_blocking(number), right=more)


@on_loop
async def test_an_async_workflow_is_called_like_a_function(database_url: str) -> None:
    """`await workflow(...)` runs it and returns its result, with positional and keyword arguments."""
    async with Perdure(database_url):
        assert await twice(1) == 3
        assert await twice(number=1, more=5) == 7


def test_a_blocking_workflow_is_called_like_a_function(database_url: str) -> None:
    """`workflow(...)` runs it and returns its result, without any loop."""
    with perdure.sync.Perdure(database_url):
        assert twice_blocking(1) == 3
        assert twice_blocking(number=1, more=5) == 7


@on_loop
async def test_a_start_is_answered_before_the_run_ends(database_url: str) -> None:
    """`start` returns a handle at once; the run goes on by itself."""
    async with Perdure(database_url):
        handle = await through_the_door.start(1)
        assert await handle.status() == "running"
        opened.set()
        assert await handle.result(timeout=20) == 2


def test_a_blocking_start_runs_in_the_background(database_url: str) -> None:
    """`start` of a `def` workflow returns a blocking handle whose run goes on in a thread."""
    with perdure.sync.Perdure(database_url):
        handle = twice_blocking.start(1, more=2)
        assert handle.created
        assert handle.result(timeout=20) == 4


@on_loop
async def test_start_takes_either_colour_in_async_code(database_url: str) -> None:
    """`perdure.start` starts `def` and `async def` workflows, with or without options."""
    async with Perdure(database_url):
        first = await perdure.start(twice_blocking, 1)
        second = await perdure.start(twice.options(id="second"), 2, more=3)
        assert (await first.result(timeout=20), await second.result(timeout=20)) == (3, 6)
        assert second.id == "second"


def test_start_takes_either_colour_in_blocking_code(database_url: str) -> None:
    """`perdure.sync.start` starts `async def` workflows too, on a loop thread of the app's own."""
    with perdure.sync.Perdure(database_url):
        assert perdure.sync.start(twice, 1, more=2).result(timeout=20) == 4
        assert perdure.sync.start(twice_blocking, 1).result(timeout=20) == 3


@on_loop
async def test_a_workflow_is_started_by_its_name(database_url: str) -> None:
    """`app.start("name", args, kwargs, **options)` is a start like any other."""
    async with Perdure(database_url) as app:
        handle = await app.start(f"{__name__}.twice", [1], {"more": 4}, id="by-name")
        assert await handle.result(timeout=20) == 6
        assert (handle.id, handle.created) == ("by-name", True)


def test_a_workflow_is_started_by_its_name_in_blocking_code(database_url: str) -> None:
    """`app.start` of a blocking app returns a blocking handle."""
    with perdure.sync.Perdure(database_url) as app:
        assert app.start(f"{__name__}.twice_blocking", [1]).result(timeout=20) == 3


@on_loop
async def test_a_name_without_code_waits_visibly(database_url: str) -> None:
    """A start of a workflow that nobody here knows is queued, and can be seen waiting."""
    async with Perdure(database_url) as app:
        handle = await app.start("elsewhere.unknown", args=[1, {"a": [2]}])
        assert await handle.status() == "queued"
        [found] = await app.runs.list(workflow="elsewhere.unknown")
        assert (found.id, found.queue) == (handle.id, "default")


@on_loop
async def test_wrong_arguments_fail_in_the_caller(database_url: str) -> None:
    """A call that does not fit the signature raises `TypeError` at once, and no run is born."""
    async with Perdure(database_url) as app:
        with pytest.raises(TypeError, match="number"):
            twice()  # type: ignore[call-arg,unused-coroutine]
        with pytest.raises(TypeError, match="many"):
            await twice.start(1, many=2)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="number"):
            await app.start(f"{__name__}.twice", [])
        assert await app.runs.count() == 0


@on_loop
async def test_a_direct_call_cancelled_from_outside_leaves_the_run_alone(database_url: str) -> None:
    """Whoever awaits a run outside a workflow may be cancelled; the run goes on to its end."""
    async with Perdure(database_url) as app:
        caller = asyncio.create_task(through_the_door.options(id="alone")(7))
        await until_true(lambda: app.runs.count(status="running"))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        opened.set()
        assert await through_the_door.handle("alone").result(timeout=20) == 8


@on_loop
async def test_a_direct_call_with_an_id_attaches(database_url: str) -> None:
    """Calling with the id of a run that has ended returns its result and runs nothing."""
    async with Perdure(database_url):
        assert await twice.options(id="once")(1) == 3
        assert await twice.options(id="once")(100) == 3
        assert bodies == [1, 2]


def test_a_blocking_direct_call_with_an_id_attaches(database_url: str) -> None:
    """The same in blocking code: the second call returns the first one's result."""
    with perdure.sync.Perdure(database_url):
        assert twice_blocking.options(id="once")(1) == 3
        assert twice_blocking.options(id="once")(100) == 3
        assert bodies == [1, 2]


@on_loop
async def test_the_id_of_another_workflow_conflicts(database_url: str) -> None:
    """An id that belongs to a run of another workflow is refused, naming both."""
    async with Perdure(database_url):
        await twice.options(id="taken")(1)
        with pytest.raises(WorkflowConflict, match=r"twice.*through_the_door"):
            await through_the_door.options(id="taken").start(1)


@on_loop
async def test_many_starts_at_once_all_end(database_url: str) -> None:
    """Two hundred runs started together each return their own result."""
    async with Perdure(database_url) as app:
        results = await asyncio.gather(*(twice(number) for number in range(200)))
        assert results == [number + 2 for number in range(200)]
        assert await app.runs.count(status="succeeded") == 200


def test_blocking_calls_from_many_threads_all_end(database_url: str) -> None:
    """Threads of the user's own may call workflows at the same time on one app."""
    results: dict[int, int] = {}
    with perdure.sync.Perdure(database_url):

        def call(number: int) -> None:
            results[number] = twice_blocking(number)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert results == {number: number + 2 for number in range(30)}


@on_loop
async def test_a_step_outside_a_workflow_is_a_plain_call(database_url: str) -> None:
    """Without a workflow, and even without an app, a step is the function that it was made of."""
    assert await add(1, right=2) == 3
    assert add_blocking(1, right=2) == 3


@on_loop
async def test_a_client_starts_what_a_worker_runs(database_url: str) -> None:
    """An app with `worker=False` runs nothing: its starts, calls and waits are served by another app."""
    async with Perdure(database_url, name="client", worker=False) as client:
        with client.bind():
            handle = await twice.start(1)
            assert await handle.status() == "queued"
            async with Perdure(database_url, name="worker"):
                assert await handle.result(timeout=20) == 3
                assert await twice(5, more=5) == 11
