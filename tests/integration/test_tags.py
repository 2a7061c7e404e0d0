"""Tags: given at the start, changed by the run itself (once, through kills and lost answers) and from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import NotInWorkflow, Perdure, RunFilter, WorkflowNotFound, sync, workflow
from perdure.models import Kind
from perdure.store import operations
from perdure.store.records import Outcome, StepRecord, TagsRecord
from tests.api_tools import on_loop, rows, until
from tests.process_tools import Process, Processes, processes, say
from tests.protocol_tools import RawWorker, in_thread, stranger

MANY = 1200

NOTE = operations.Note("a test")


@workflow(name="tags.tagged")
async def tagged() -> Any:
    await perdure.set_tags({"state": "paid", "count": 1, "hold": True})
    await perdure.set_tags({"count": 2, "hold": None, "absent": None})
    return await perdure.receive("go on")


@workflow(name="tags.tagged_blocking")
def tagged_blocking() -> Any:
    sync.set_tags({"state": "paid", "count": 1, "hold": True})
    sync.set_tags({"count": 2, "hold": None, "absent": None})
    return sync.receive("go on")


@workflow(name="tags.branches")
async def branches() -> None:
    await asyncio.gather(*(perdure.set_tags({f"b{number}": number}) for number in range(10)))


@workflow(name="tags.renews")
async def renews(again: bool) -> str:
    await perdure.set_tags({"again": again})
    if again:
        await perdure.continue_as_new(False)
    return "done"


@workflow(name="tags.plain")
async def plain(value: int = 0) -> int:
    return value


COLOURS: dict[str, Any] = {"async": tagged, "blocking": tagged_blocking}
both = pytest.mark.parametrize("colour", COLOURS)


def tags_of(url: str, id: str) -> Any:
    [(found,)] = rows(url, "select tags from perdure.runs where id = %s and not superseded", id)
    return found


@both
@on_loop
async def test_a_run_changes_its_tags(colour: str, database_url: str) -> None:
    """Merged into those of the start, the last word counts, None takes away; it is found by them while it runs."""
    async with Perdure(database_url, grace=0) as app:
        handle = await perdure.start(COLOURS[colour].options(id="t", tags={"customer": 7}))
        await asyncio.to_thread(until, lambda: (tags_of(database_url, "t") or {}).get("count") == 2)
        assert tags_of(database_url, "t") == {"customer": 7, "state": "paid", "count": 2}
        assert [run.id for run in await app.runs.list(tags={"count": 2, "customer": 7})] == ["t"]
        assert await app.runs.count(tags={"count": 1}) == 0
        await handle.send("go on", 5)
        assert await handle.result(20) == 5
        steps = [(step.kind, step.json()) for step in await handle.steps() if step.kind == "set_tags"]
    assert len(steps) == 2


@on_loop
async def test_branches_and_lives_share_tags(database_url: str) -> None:
    """Set by branches at once, none is lost; a run that goes on as new keeps them."""
    async with Perdure(database_url, grace=0):
        await branches.options(id="b")()
        assert tags_of(database_url, "b") == {f"b{number}": number for number in range(10)}
        assert await renews.options(id="r", tags={"kept": [1]})(True) == "done"
        assert tags_of(database_url, "r") == {"kept": [1], "again": False}


@on_loop
async def test_the_last_tag_taken_away_leaves_none(database_url: str) -> None:
    """A run without tags is as one that never had any: not in the index."""
    async with Perdure(database_url, grace=0) as app:
        await plain.options(id="p", tags={"one": 1})()
        assert await app.runs.set_tags("p", {"one": None}) == 1
    assert tags_of(database_url, "p") is None


@on_loop
async def test_tags_are_set_from_outside(database_url: str) -> None:
    """By id, ids or filter, of live runs and ended ones; the number is of those that there are."""
    async with Perdure(database_url, grace=0) as app:
        for number in range(3):
            await plain.options(id=f"e-{number}", tags={"old": number})()
        await plain.options(id="q", queue="nobody").start()
        assert await app.runs.set_tags("q", {"new": {"deep": [1, None]}}) == 1
        assert await app.runs.set_tags(["e-0", "q", "nobody"], {"both": True}) == 2
        assert await app.runs.set_tags(RunFilter(prefix="e-"), {"old": None, "seen": "ja"}) == 3
        assert tags_of(database_url, "q") == {"new": {"deep": [1, None]}, "both": True}
        assert tags_of(database_url, "e-0") == {"both": True, "seen": "ja"}
        assert tags_of(database_url, "e-1") == {"seen": "ja"}
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await app.runs.set_tags("nobody", {"a": 1})


def test_many_are_set_five_hundred_at_a_time(database_url: str) -> None:
    """All that match, a transaction for each 500: what a stranger holds does not undo those before it."""
    with sync.Perdure(database_url, worker=False) as app:
        born = "with n as (select n from generate_series(1, %s) n), live as (insert into perdure.live "
        born += "(key, workflow, status) select n, 'w', 2 from n) insert into perdure.runs (key, id, workflow, input) "
        rows(database_url, born + "select n, 'r-' || n, 'w', '[]' from n", MANY)
        with stranger(database_url) as other:
            other.execute("select 1 from perdure.runs where key = 501 for update")
            setting = in_thread(lambda: app.runs.set_tags(RunFilter(workflow="w"), {"x": 1}))
            until(lambda: rows(database_url, "select 1 from perdure.runs where tags is not null"))
            assert rows(database_url, "select count(*) from perdure.runs where tags is not null") == [(500,)]
        assert setting.result() == MANY
        assert app.runs.set_tags(RunFilter(workflow="w"), {"y": 2}) == MANY
        assert app.runs.count(tags={"x": 1, "y": 2}) == MANY


@on_loop
async def test_what_are_no_tags_is_refused(database_url: str) -> None:
    """In the caller, inside and outside, and nothing is changed."""
    async with Perdure(database_url, grace=0) as app:
        await plain.options(id="p")()
        for wrong in ({"a": "\0"}, {"a": float("nan")}, {"a": object()}, {1: "a"}, "text", {"\ud800": 1}):
            with pytest.raises(ValueError, match="tags"):
                await app.runs.set_tags("p", wrong)  # type: ignore[arg-type]
        with pytest.raises(NotInWorkflow, match="set_tags"):
            await perdure.set_tags({"a": 1})
        with pytest.raises(NotInWorkflow, match="set_tags"):
            sync.set_tags({"a": 1})
    assert tags_of(database_url, "p") is None


# -- the protocol --------------------------------------------------------------------------------------------


def tag_step(run: int, tags: str, position: str = "1") -> tuple[StepRecord, TagsRecord]:
    step = StepRecord(run, position, int(position), 0, Kind.SET_TAGS, "set_tags", False, tags.encode())
    return step, TagsRecord(run, position, tags)


def test_a_batch_sent_again_does_not_set_tags_again(database_url: str) -> None:
    """Its first try was committed, its answer lost; what an operator has set since stands."""
    with RawWorker(database_url, single=False) as owner:
        run = owner.start("t")
        owner.write(*tag_step(run, '{"state": "early", "count": 1}'))
        operations.set_tags(owner.database, [run], NOTE, {"state": "mended", "count": None})
        again = tag_step(run, '{"state": "early", "count": 1}')
        owner.write(*again)
        assert again[0].outcome is Outcome.WON
    assert tags_of(database_url, "t") == {"state": "mended"}


def test_tags_stand_or_fall_with_their_step(database_url: str) -> None:
    """Where another owner's record stands, the late worker's tags are not set."""
    with RawWorker(database_url) as first, RawWorker(database_url) as second:
        run = first.start("t")
        second.write(StepRecord(run, "1", 1, 0, 1, "step", False, b"1"))
        late = tag_step(run, '{"a": 1}')
        first.write(*late)
        assert late[0].outcome is Outcome.LOST
    assert tags_of(database_url, "t") is None


def test_one_batch_holds_many_runs_and_many_steps_of_each(database_url: str) -> None:
    """Merged in the order of the steps, each run by itself; a tag set and taken away in one batch is gone."""
    with RawWorker(database_url, single=False) as owner:
        runs = [owner.start(f"t-{number}") for number in range(3)]
        records = [
            record
            for number, run in enumerate(runs)
            for position, tags in (("1", '{"n": %d, "x": 1}' % number), ("2", '{"x": null, "y": [2]}'))  # noqa: UP031
            for record in tag_step(run, tags, position)
        ]
        owner.write(*records)
    for number in range(3):
        assert tags_of(database_url, f"t-{number}") == {"n": number, "y": [2]}


# -- kills ---------------------------------------------------------------------------------------------------


async def serve(url: str) -> None:
    """A worker with a short lease, until it is killed."""
    async with Perdure(url, lease=1, grace=0):
        say("serving")
        await asyncio.Event().wait()


def worker(family: Processes, url: str) -> Process:
    process = family.start(__name__, "serve", url)
    process.wait_for("serving")
    return process


@both
def test_a_replay_does_not_set_tags_again(colour: str, database_url: str) -> None:
    """The worker is killed after the run has tagged itself, an operator changes the tags, and another worker goes on."""
    with processes() as family, sync.Perdure(database_url, worker=False) as app:
        first = worker(family, database_url)
        with app.bind():
            handle = sync.start(COLOURS[colour].options(id="t", tags={"customer": 7}))
        until(lambda: (tags_of(database_url, "t") or {}).get("count") == 2)
        first.kill()
        assert app.runs.set_tags("t", {"count": 99, "hold": False}) == 1
        worker(family, database_url)
        handle.send("go on", "end")
        assert handle.result(30) == "end"
        assert [run.tags for run in app.runs.list(tags={"count": 99})] == [
            {"customer": 7, "state": "paid", "count": 99, "hold": False}
        ]
