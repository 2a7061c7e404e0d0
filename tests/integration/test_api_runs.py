"""`app.runs`: list, count, get, cancel and resume by id, ids or filter, a page at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import perdure
from perdure import Perdure, RunFilter, WorkflowNotFound, step, workflow
from tests.api_tools import on_loop

failing = False
bodies: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global failing
    failing = False
    bodies.clear()


@step
async def fragile(text: str) -> str:
    bodies.append(text)
    if failing:
        raise LookupError(f"no {text} here")
    return text


@workflow
async def simple(text: str) -> str:
    await fragile("first")
    return await fragile(text)


@workflow
async def breaks(text: str) -> str:
    global failing
    await fragile("before")
    failing = text == "broken"
    return await fragile(text)


@workflow
async def other(text: str) -> str:
    return text


@workflow
async def breaks_by_itself(text: str) -> str:
    await fragile(text)
    if failing_outside:
        raise LookupError("outside of any step")
    return text


failing_outside = False


@on_loop
async def test_list_filters_by_every_field(database_url: str) -> None:
    """Each filter finds what it says, alone; all together narrow."""
    async with Perdure(database_url) as app:
        await simple.options(id="a-1", tags={"customer": 1, "vip": True})("x")
        await other.options(id="a-2", tags={"customer": 2}, version="v7")("x")
        await other.options(id="b-1", queue="slow").start("x")
        with pytest.raises(LookupError):
            await breaks.options(id="b-2")("broken")
        middle = (await app.runs.get("b-1")).info.created
        worker = (await app.runs.get("a-1")).info.worker
        found = {
            "status": {"status": "failed"},
            "statuses": {"status": ["failed", perdure.Status.QUEUED]},
            "workflow": {"workflow": f"{__name__}.other"},
            "workflows": {"workflow": [f"{__name__}.other", f"{__name__}.simple"]},
            "queue": {"queue": "slow"},
            "version": {"version": "v7"},
            "worker": {"worker": worker, "status": "succeeded"},
            "tags": {"tags": {"customer": 1}},
            "two tags": {"tags": {"customer": 1, "vip": False}},
            "ids": {"ids": ["a-1", "b-2", "nobody"]},
            "no ids": {"ids": []},
            "prefix": {"prefix": "a-"},
            "after": {"created_after": middle},
            "before": {"created_before": middle},
            "error": {"error": "no broken"},
            "all": {"prefix": "a", "workflow": f"{__name__}.other", "status": "succeeded"},
        }
        ids = {
            name: sorted(info.id for info in await app.runs.list(**filters))  # type: ignore[arg-type]
            for name, filters in found.items()
        }
        counts = {name: await app.runs.count(**filters) for name, filters in found.items()}  # type: ignore[arg-type]
    assert ids == {
        "status": ["b-2"],
        "statuses": ["b-1", "b-2"],
        "workflow": ["a-2", "b-1"],
        "workflows": ["a-1", "a-2", "b-1"],
        "queue": ["b-1"],
        "version": ["a-2"],
        "worker": ["a-1", "a-2"],
        "tags": ["a-1"],
        "two tags": [],
        "ids": ["a-1", "b-2"],
        "no ids": [],
        "prefix": ["a-1", "a-2"],
        "after": ["b-1", "b-2"],
        "before": ["a-1", "a-2"],
        "error": ["b-2"],
        "all": ["a-2"],
    }
    assert counts == {name: len(some) for name, some in ids.items()}


@on_loop
async def test_pages_follow_the_cursor(database_url: str) -> None:
    """Newest first; each page's last cursor leads to the next; no run is missed or seen twice."""
    async with Perdure(database_url) as app:
        await asyncio.gather(*(other.options(id=f"run-{number:02}").start("x") for number in range(23)))
        seen: list[perdure.RunInfo] = []
        cursor = None
        while page := await app.runs.list(RunFilter(limit=5, cursor=cursor)):
            assert len(page) <= 5
            seen += page
            cursor = page[-1].cursor
    assert sorted(info.id for info in seen) == [f"run-{number:02}" for number in range(23)]
    assert [info.created for info in seen] == sorted((info.created for info in seen), reverse=True)


@on_loop
async def test_a_hundred_are_listed_and_all_are_counted(database_url: str) -> None:
    """Without a limit a list has a hundred runs; a count is of all."""
    async with Perdure(database_url) as app:
        await asyncio.gather(*(other.start("x") for _ in range(120)))
        assert len(await app.runs.list()) == 100
        assert await app.runs.count() == 120


@on_loop
async def test_get_has_everything_of_one_run(database_url: str) -> None:
    """`get` returns info, input, output and the steps in order."""
    async with Perdure(database_url, name="worker one") as app:
        await simple.options(id="it")("text")
        found = await app.runs.get("it")
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await app.runs.get("nobody")
    assert found.info.status == "succeeded"
    assert b"text" in found.input
    assert found.output == b'"text"'
    assert [told.json() for told in found.steps] == ['"first"', '"text"']
    [worker] = found.workers.values()
    assert worker.startswith("worker one")


@on_loop
async def test_resume_goes_on_where_a_failed_run_stopped(database_url: str) -> None:
    """The step that failed runs again, those before it do not; the id and the run stay the same."""
    async with Perdure(database_url) as app:
        with pytest.raises(LookupError):
            await breaks.options(id="it")("broken")
        handle = breaks.handle("it")
        bodies.clear()
        assert await app.runs.resume("it") == 1
        with pytest.raises(LookupError):
            await handle.result(timeout=20)
        assert bodies == ["broken"]
        assert (await app.runs.get("it")).info.status == "failed"


@on_loop
async def test_resume_repeats_an_error_of_the_workflows_own(database_url: str) -> None:
    """A run that failed outside of any step forgets that error: its code goes on after its last step."""
    global failing_outside
    failing_outside = True
    async with Perdure(database_url) as app:
        handle = await breaks_by_itself.start("x")
        with pytest.raises(LookupError, match="outside"):
            await handle.result(timeout=20)
        failing_outside = False
        assert await app.runs.resume(handle.id) == 1
        assert await handle.result(timeout=20) == "x"
    assert bodies == ["x"]


@on_loop
async def test_resume_and_cancel_take_ids_and_filters(database_url: str) -> None:
    """By one id, a list of ids, or a filter; the number is of those that were reached."""
    global failing
    async with Perdure(database_url) as app:
        for number in range(3):
            with pytest.raises(LookupError):
                await breaks.options(id=f"f-{number}")("broken")
            failing = False
        await other("x")
        assert await app.runs.resume(RunFilter(status="failed", prefix="f-")) == 3
        for number in range(5):
            await other.options(id=f"q-{number}", queue="nobody").start("x")
        assert await app.runs.cancel("q-0") == 1
        assert await app.runs.cancel(["q-0", "q-1", "nobody"]) == 1
        assert await app.runs.cancel(RunFilter(prefix="q-")) == 3
        assert await app.runs.count(status="cancelled") == 5


@on_loop
async def test_a_single_unknown_id_is_an_error(database_url: str) -> None:
    """`cancel("x")` and `resume("x")` of no run raise WorkflowNotFound; of an ended one they reach none."""
    async with Perdure(database_url) as app:
        await other.options(id="done")("x")
        for act in (app.runs.cancel, app.runs.resume):
            with pytest.raises(WorkflowNotFound, match="nobody"):
                await act("nobody")
            assert await act("done") == 0
            assert await act([]) == 0


@on_loop
async def test_wrong_filters_are_refused(database_url: str) -> None:
    """A status that does not exist, a time without a zone, a limit out of range, a strange cursor, an unknown field."""
    async with Perdure(database_url) as app:
        created = (await other.start("x")).created
        assert created
        for filters, text in (
            ({"status": "done"}, "done"),
            ({"created_after": perdure.now().replace(tzinfo=None)}, "created_after"),
            ({"limit": 0}, "limit"),
            ({"limit": 100_000}, "limit"),
            ({"cursor": "strange"}, "strange"),
        ):
            with pytest.raises(ValueError, match=text):
                await app.runs.list(**filters)
        with pytest.raises(TypeError, match="state"):
            await app.runs.list(state="failed")
        with pytest.raises(TypeError, match="not both"):
            await app.runs.list(RunFilter(), status="failed")


@on_loop
async def test_text_in_filters_is_only_text(database_url: str) -> None:
    """Percent signs, underscores, quotes and backslashes in filters have no other meaning."""
    async with Perdure(database_url) as app:
        await other.options(id="100%_'\\")("x")
        assert await app.runs.count(prefix="100%_'\\") == 1
        assert await app.runs.count(prefix="1_") == 0
        assert await app.runs.count(prefix="%") == 0
        assert await app.runs.count(error="'; drop table runs") == 0


def test_blocking_runs_are_the_same(database_url: str) -> None:
    """`perdure.sync` has list, count, get, cancel and resume."""
    global failing
    with perdure.sync.Perdure(database_url) as app:
        with pytest.raises(LookupError):
            perdure.sync.start(breaks.options(id="f"), "broken").result(timeout=20)
        failing = False
        perdure.sync.start(other.options(id="q", queue="nobody"), "x")
        assert [info.id for info in app.runs.list()] == ["q", "f"]
        assert app.runs.count(created_after=perdure.now() - timedelta(hours=1)) == 2
        assert app.runs.get("q").info.status == "queued"
        assert app.runs.cancel("q") == 1
        assert app.runs.resume("f") == 1
