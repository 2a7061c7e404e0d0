"""Options of a start: id, on_conflict, queue, delay, priority, tags, version; wrong ones are refused at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import perdure
from perdure import Perdure, WorkflowConflict, step, workflow
from tests.api_tools import on_loop, rows, until_true

bodies: list[str] = []
failing = False


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global failing
    failing = False
    bodies.clear()


@step
async def note(text: str) -> str:
    bodies.append(text)
    if failing:
        raise LookupError(text)
    return text


@workflow
async def noted(text: str) -> str:
    return await note(text)


@workflow
def noted_blocking(text: str) -> str:
    return perdure.sync.run_step(note, text)


@on_loop
async def test_the_same_id_attaches(database_url: str) -> None:
    """A second start with the id of a run returns that run: `created` tells, and its result is the first one's."""
    async with Perdure(database_url):
        first = await noted.options(id="order-1").start("first")
        second = await noted.options(id="order-1").start("second")
        assert (first.created, second.created) == (True, False)
        assert await second.result(timeout=20) == "first"
        assert bodies == ["first"]


def test_the_same_id_attaches_in_blocking_code(database_url: str) -> None:
    """The blocking start says `created` as well."""
    with perdure.sync.Perdure(database_url):
        first = noted_blocking.options(id="order-1").start("first")
        second = noted_blocking.options(id="order-1").start("second")
        assert (first.created, second.created) == (True, False)
        assert second.result(timeout=20) == "first"


@on_loop
async def test_reject_refuses_an_id_that_is_there(database_url: str) -> None:
    """`on_conflict="reject"` raises WorkflowConflict with the id, also after the run has ended."""
    async with Perdure(database_url):
        await noted.options(id="only", on_conflict="reject")("first")
        with pytest.raises(WorkflowConflict, match="only"):
            await noted.options(id="only", on_conflict="reject").start("second")
        assert bodies == ["first"]


@on_loop
async def test_restart_if_failed_runs_a_failed_one_again(database_url: str) -> None:
    """`on_conflict="restart_if_failed"` begins anew after a failure, and attaches to a success."""
    global failing
    async with Perdure(database_url) as app:
        again = noted.options(id="again", on_conflict="restart_if_failed")
        failing = True
        with pytest.raises(LookupError):
            await again("first")
        failing = False
        restarted = await again.start("second")
        assert restarted.created
        assert await restarted.result(timeout=20) == "second"
        attached = await again.start("third")
        assert (attached.created, await attached.result(timeout=20)) == (False, "second")
        assert await app.runs.count() == 1


@on_loop
async def test_a_queue_that_nobody_listens_to_keeps_its_runs(database_url: str) -> None:
    """A run goes to the queue it is given, and begins only on a worker that listens to it."""
    async with Perdure(database_url, name="one") as app:
        with app.bind():
            handle = await noted.options(queue="slow lane").start("queued")
            assert await handle.status() == "queued"
            assert (await handle.describe()).queue == "slow lane"
            async with Perdure(database_url, name="two", listen=["slow lane"]):
                assert await handle.result(timeout=20) == "queued"


@on_loop
async def test_priority_orders_a_queue(database_url: str) -> None:
    """Of two queued runs the one with the lower priority is begun first, whichever came first."""
    async with Perdure(database_url, name="client", worker=False) as client:
        with client.bind():
            last = await noted.options(queue="ranked", priority=5).start("last")
            first = await noted.options(queue="ranked", priority=-5).start("first")
            middle = await noted.options(queue="ranked").start("middle")
        async with Perdure(database_url, name="worker", listen=["ranked"], concurrency=1):
            for handle in (last, first, middle):
                await handle.result(timeout=20)
    assert bodies == ["first", "middle", "last"]


@on_loop
async def test_a_delayed_run_waits_first(database_url: str) -> None:
    """`delay=` keeps a run `scheduled` for so long by the database's clock, then it runs."""
    async with Perdure(database_url) as app:
        handle = await noted.options(delay=timedelta(seconds=0.4)).start("later")
        assert await handle.status() == "scheduled"
        info = await handle.describe()
        assert info.wakes is not None
        assert info.wakes - info.created == timedelta(seconds=0.4)
        assert bodies == []
        assert await handle.result(timeout=20) == "later"
        assert await app.runs.count(status="scheduled") == 0


@on_loop
async def test_a_delay_of_an_hour_does_not_run(database_url: str) -> None:
    """A run with a long delay does not begin while others do."""
    async with Perdure(database_url):
        handle = await noted.options(delay=3600).start("later")
        assert await noted("now") == "now"
        assert await handle.status() == "scheduled"
        assert bodies == ["now"]


@on_loop
async def test_tags_and_version_are_kept(database_url: str) -> None:
    """Tags come back with their types; the version is what was asked for."""
    async with Perdure(database_url):
        handle = await noted.options(tags={"customer": 7, "vip": True}, version="v1").start("x")
        await handle.result(timeout=20)
        info = await handle.describe()
        assert info.tags == {"customer": 7, "vip": True}
        assert info.version == "v1"


@on_loop
async def test_a_version_is_run_by_workers_that_take_it(database_url: str) -> None:
    """A queued run of another version waits for a worker of that version, or one that accepts it."""
    async with Perdure(database_url, name="new", version="v2") as app:
        with app.bind():
            handle = await noted.options(queue="default", version="v1").start("old")
            assert await noted.options(queue="default", version="v2")("new") == "new"
            assert await handle.status() == "queued"
        async with Perdure(database_url, name="old", version="v3", accepts=["v1"]):
            assert await handle.result(timeout=20) == "old"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"id": ""}, "id="),
        ({"id": "nul\0"}, "id="),
        ({"queue": ""}, "queue="),
        ({"on_conflict": "replace"}, "restart_if_failed"),
        ({"delay": -1}, "delay="),
        ({"delay": float("nan")}, "delay="),
        ({"timeout": float("inf")}, "timeout="),
        ({"priority": 2**40}, "priority="),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], text: str) -> None:
    """A value that cannot be is a ValueError that names the option, before anything is started."""
    with pytest.raises(ValueError, match=text):
        noted.options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"identifier": "x"}, {"prio": 1}])
def test_unknown_options_are_refused(options: dict[str, object]) -> None:
    """An option that does not exist is a TypeError that names it, before anything is started."""
    with pytest.raises(TypeError, match=next(iter(options))):
        noted.options(**options)  # type: ignore[arg-type]


@on_loop
async def test_wrong_tags_are_refused(database_url: str) -> None:
    """Tags that JSON cannot carry are refused in the caller, and no run is born."""
    async with Perdure(database_url) as app:
        with pytest.raises((TypeError, ValueError, perdure.SerializationError)):
            await noted.options(tags={"moment": object()}).start("x")
        with pytest.raises((TypeError, ValueError, perdure.SerializationError)):
            await noted.options(tags={"nan": float("nan")}).start("x")
        with pytest.raises((TypeError, ValueError, perdure.SerializationError)):
            await noted.options(tags={"nul": "\0"}).start("x")
        assert await app.runs.count() == 0
        assert await noted("still works") == "still works"


@on_loop
async def test_ids_may_be_any_text(database_url: str) -> None:
    """Quotes, percent signs, spaces, other scripts and five hundred letters are ids like others."""
    async with Perdure(database_url) as app:
        for id in ("it's", 'a "b" %s {c} ; drop', "注文 42", "x" * 500, " "):
            assert await noted.options(id=id)(id) == id
            assert (await app.runs.get(id)).info.id == id


@on_loop
async def test_options_do_not_change_the_workflow(database_url: str) -> None:
    """`.options(...)` returns another object; the workflow itself starts as before."""
    async with Perdure(database_url):
        chosen = noted.options(id="chosen")
        assert (await noted.start("plain")).id != "chosen"
        assert (await chosen.start("with id")).id == "chosen"


@on_loop
async def test_concurrent_starts_of_one_id_make_one_run(database_url: str) -> None:
    """Of many starts with one id at the same time exactly one creates the run; all get its result."""
    async with Perdure(database_url, name="a") as one, Perdure(database_url, name="b") as two:

        async def started(app: Perdure, number: int) -> tuple[bool, str]:
            with app.bind():
                handle = await noted.options(id="raced").start(str(number))
                return handle.created, await handle.result(timeout=20)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(started(app, number)) for number in range(20) for app in (one, two)]
        answers = [task.result() for task in tasks]
        assert sum(created for created, _ in answers) == 1
        assert len({result for _, result in answers}) == 1
        assert len(bodies) == 1
        assert rows(database_url, "select count(*) from perdure.runs") == [(1,)]
        assert await until_true(lambda: one.runs.count(status="succeeded")) == 1
