"""Pruning deletes what has ended and is kept no longer: whole trees, with all that hangs on them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

import perdure
from perdure import Retention, Topic, WorkflowNotFound, step, sync, workflow
from perdure.models import Status
from perdure.retention import Pruned
from perdure.store.records import EndRecord, StepRecord, WaitRecord
from perdure.testing import Clock
from tests.api_tools import on_loop, rows, until, until_true
from tests.protocol_tools import RawWorker, stranger

pytestmark = pytest.mark.postgres

DAY = timedelta(days=1)
WEEK = Retention(succeeded=7 * DAY, failed=30 * DAY, cancelled=DAY)
TABLES = ("steps", "messages", "events", "streams", "waits", "intents", "takeovers", "ends", "runs", "live")
words = Topic("words", str)
news = Topic("news", str)


@step
async def work(number: int) -> int:
    return number


@step(at_most_once=True)
async def once(number: int) -> int:
    return number


@workflow(name="shop.all")
async def everything(number: int) -> int:
    """Leave a row in each table."""
    await perdure.set_event(news, "begun")
    await perdure.write_stream("lines", number)
    await perdure.receive(words)
    await once(number)
    return await work(number)


@workflow(name="shop.leaf")
async def leaf(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return await work(number)


@workflow(name="shop.family")
async def family(number: int) -> int:
    return await leaf(number)


@workflow(name="shop.chain")
async def chain(left: int) -> int:
    await work(left)
    if left:
        await perdure.continue_as_new(left - 1)
    return left


def counts(url: str) -> dict[str, int]:
    return {table: rows(url, f"select count(*) from perdure.{table}")[0][0] for table in TABLES}


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url) as worker:
        yield worker


@on_loop
async def test_all_that_hangs_on_a_run_goes_with_it(database_url: str) -> None:
    """Steps, messages, events, streams, intents: no row is left, and the answer says how many they were."""
    async with perdure.Perdure(database_url) as app:
        with Clock(database_url) as clock:
            handle = await everything.start(1)
            await handle.send(words, "go on")
            assert await handle.result(timeout=30) == 1
            rows(
                database_url,
                "insert into perdure.takeovers (run, worker) select key, 1 from perdure.runs",
            )
            assert (await app.runs.prune(WEEK)).runs == 0
            clock.advance(8 * DAY)
            there = counts(database_url)
            would = await app.runs.prune(WEEK, dry_run=True)
            assert counts(database_url) == there
            gone = await app.runs.prune(WEEK, reason="a test")
            assert counts(database_url) == dict.fromkeys(TABLES, 0)
            assert gone.rows == {table: count for table, count in there.items() if table != "live"}
            assert gone.rows == would.rows
            assert gone.workflows == would.workflows == {"shop.all": {"succeeded": 1}}
            assert (would.dry_run, gone.dry_run) == (True, False)
            with pytest.raises(WorkflowNotFound):
                await handle.status()
            [noted] = [line for line in await app.runs.audit() if line.verb == "prune"]
            assert (noted.id, noted.reason, dict(noted.detail or {})["runs"]) == ("*", "a test", 1)


def test_each_status_and_workflow_has_its_own_time(database_url: str) -> None:
    """The rule of the whole name goes before that of a beginning, which goes before that of the status."""
    kept = Retention(
        succeeded=DAY,
        failed=3 * DAY,
        workflows={"shop.*": 10 * DAY, "shop.leaf": Retention(failed=5 * DAY)},
    )
    with sync.Perdure(database_url) as app, Clock(database_url) as clock:
        for id, number, name in (
            ("good", 1, "shop.leaf"),
            ("bad", -1, "shop.leaf"),
            ("other", 0, "shop.chain"),
        ):
            app.start(name, [number], id=id)
        until(lambda: app.runs.count(status=["succeeded", "failed"]) == 3)

        def gone_after(time: timedelta) -> set[str]:
            clock.advance(time)
            before = {info.id for info in app.runs.list()}
            app.runs.prune(kept)
            return before - {info.id for info in app.runs.list()}

        assert gone_after(4 * DAY) == set()
        assert gone_after(2 * DAY) == {"bad"}
        assert gone_after(5 * DAY) == {"other"}
        assert gone_after(3000 * DAY) == set()


def test_nothing_goes_that_nobody_asked_for(database_url: str) -> None:
    """Without a retention a worker has no pruner, and pruning by hand is refused."""
    with sync.Perdure(database_url) as app:
        assert app.engine.pruner is None
        with pytest.raises(ValueError, match="no retention"):
            app.runs.prune()
    with sync.Perdure(database_url, retention=Retention()) as app:
        assert app.engine.pruner is None
        assert app.runs.prune() == Pruned()


def test_a_tree_goes_as_a_whole_or_not_at_all(owner: RawWorker, database_url: str) -> None:
    """One unfinished run, or one that its own rule keeps, keeps all of its tree; and a tree's last end counts."""
    parent, child, grandchild = owner.start("parent"), owner.start("child"), owner.start("grandchild")
    for key, above in ((child, parent), (grandchild, child)):
        rows(database_url, "update perdure.runs set parent = %s where key = %s", above, key)
    owner.write(EndRecord(parent, 7, b"1"), EndRecord(child, 7, b"1"))
    with sync.Perdure(database_url, worker=False) as app, Clock(database_url) as clock:
        clock.advance(8 * DAY)
        assert app.runs.prune(WEEK).runs == 0
        owner.write(EndRecord(grandchild, 8, b"{}"))
        clock.advance(8 * DAY)
        assert app.runs.prune(WEEK).runs == 0
        assert app.runs.prune(Retention(succeeded=DAY, failed=DAY), limit=2) == Pruned(complete=False)
        gone = app.runs.prune(Retention(succeeded=DAY, failed=DAY), limit=3)
        assert (gone.runs, gone.trees, gone.complete) == (3, 1, True)


def test_a_run_whose_end_somebody_waits_for_is_left(owner: RawWorker, database_url: str) -> None:
    awaited, waiter = owner.start("awaited"), owner.start("waiter")
    owner.write(WaitRecord(waiter, "1", target=awaited))
    owner.write(EndRecord(awaited, 7, b"1"))
    with sync.Perdure(database_url, worker=False) as app, Clock(database_url) as clock:
        clock.advance(8 * DAY)
        assert app.runs.prune(WEEK).runs == 0
        owner.write(EndRecord(waiter, 7, b"1", waited=True))
        assert app.runs.prune(WEEK).runs == 1
        assert rows(database_url, "select id from perdure.runs") == [("waiter",)]


def test_what_somebody_has_locked_is_passed_by(owner: RawWorker, database_url: str) -> None:
    """Pruning waits for nobody: the others go, and the locked one at the next walk."""
    runs = [owner.start(f"run-{number}") for number in range(3)]
    owner.write(*(EndRecord(run, 7, b"1") for run in runs))
    with sync.Perdure(database_url, worker=False) as app, Clock(database_url) as clock:
        clock.advance(8 * DAY)
        for table in ("ends", "runs"):
            with stranger(database_url) as other:
                other.execute(f"select 1 from perdure.{table} where key = %s for key share", (runs[0],))
                app.runs.prune(WEEK)
                assert rows(database_url, "select key from perdure.runs") == [(runs[0],)]
        assert app.runs.prune(WEEK).runs == 1


@on_loop
async def test_past_lives_go_while_the_present_one_goes_on(database_url: str) -> None:
    """They count from when they ended; what leads to the run is kept, and the last one takes along what is left."""
    async with perdure.Perdure(database_url) as app:
        with Clock(database_url) as clock:
            handle = await chain.start(5)
            assert await handle.result(timeout=30) == 0
            assert counts(database_url)["runs"] == 6
            rows(
                database_url,
                "update perdure.ends e set finished = perdure.clock() - interval '8 days' from perdure.runs r "
                "where r.key = e.key and r.superseded and r.key in (select min(key) from perdure.runs)",
            )
            rows(database_url, "update perdure.runs set created = created - interval '9 days'")
            gone = await app.runs.prune(WEEK)
            assert gone.workflows == {"shop.chain": {"continued": 1}}
            assert await handle.status() is Status.SUCCEEDED
            clock.advance(8 * DAY)
            gone = await app.runs.prune(WEEK)
            assert gone.workflows == {"shop.chain": {"continued": 4, "succeeded": 1}}
            assert counts(database_url) == dict.fromkeys(TABLES, 0)


@on_loop
async def test_a_handle_of_a_life_that_was_pruned_leads_to_the_present_one(database_url: str) -> None:
    """It was kept for longer than the run's past lives."""
    async with perdure.Perdure(database_url) as app:
        handle = await patient.start(0)
        await until_true(lambda: receiving(app, handle.id))
        rows(database_url, "update perdure.runs set created = created - interval '9 days'")
        rows(database_url, "update perdure.ends set finished = finished - interval '8 days'")
        assert (await app.runs.prune(WEEK)).workflows == {"shop.patient": {"continued": 1}}
        await handle.send(words, "end")
        assert await handle.result(timeout=30) == "end"


async def receiving(app: perdure.Perdure, id: str) -> bool:
    """Whether the run has begun its second life, and nothing of this process leads there."""
    return (await app.runs.count(ids=[id])) == 1 and len(
        rows(app.url or "", "select 1 from perdure.ends")
    ) == 1


@workflow(name="shop.patient")
async def patient(life: int) -> str:
    if life == 0:
        await perdure.continue_as_new(1)
    return await perdure.receive(words)


def test_a_life_that_is_kept_keeps_those_that_follow(owner: RawWorker, database_url: str) -> None:
    """Nobody could find a past life whose id has no present one."""
    run = owner.start("one")
    owner.write(EndRecord(run, 8, b"{}"))
    with sync.Perdure(database_url, worker=False) as app, Clock(database_url) as clock:
        app.runs.restart("one")
        app.runs.cancel("one")
        clock.advance(8 * DAY)
        assert app.runs.prune(Retention(cancelled=DAY)).runs == 0
        assert app.runs.prune(Retention(cancelled=DAY, failed=DAY)).runs == 2


def test_a_child_without_its_parent_is_a_tree_of_its_own(owner: RawWorker, database_url: str) -> None:
    """Its parent was deleted by hand, without its children."""
    child = owner.start("child")
    rows(database_url, "update perdure.runs set parent = 99 where key = %s", child)
    owner.write(StepRecord(child, "1", 1, 0, 1, "work", False, b"1"), EndRecord(child, 7, b"1"))
    with sync.Perdure(database_url, worker=False) as app, Clock(database_url) as clock:
        clock.advance(8 * DAY)
        assert app.runs.prune(WEEK).rows["steps"] == 1


def test_trees_of_thousands_are_walked_in_pages(database_url: str) -> None:
    """More births than a page, more trees than a batch, and one tree that is larger than either."""
    with sync.Perdure(database_url, worker=False) as app:
        rows(
            database_url,
            "insert into perdure.runs (key, id, workflow, input, parent, created) select n, 'run-' || n, 'w', '[]', "
            "case when n between 2 and 1501 then 1 end, perdure.clock() - interval '9 days' "
            "from generate_series(1, 4000) n",
        )
        rows(
            database_url,
            "insert into perdure.ends (key, status, value, finished) select n, 7, '1', "
            "perdure.clock() - interval '8 days' from generate_series(1, 4000) n where n <> 3000",
        )
        rows(database_url, "insert into perdure.live (key, workflow, status) values (3000, 'w', 4)")
        moved: list[int] = []
        would = app.runs.prune(WEEK, dry_run=True)
        gone = app.runs.prune(WEEK, progress=moved.append)
        assert (would.runs, would.trees) == (gone.runs, gone.trees) == (3999, 2499)
        assert (moved[-1], moved == sorted(moved)) == (3999, True)
        assert rows(database_url, "select key from perdure.runs") == [(3000,)]


def test_in_a_workflow_it_is_a_recorded_step(database_url: str) -> None:
    """A nightly workflow can prune, and a replay is told the same."""
    with sync.Perdure(database_url, retention=WEEK) as app, app.bind():
        apps.append(app)
        handle = nightly.start()
        assert handle.result(timeout=30) == 0
        assert [info.name for info in handle.steps()] == ["runs.prune"]


apps: list[sync.Perdure] = []


@workflow(name="shop.nightly")
def nightly() -> int:
    return apps[-1].runs.prune(dry_run=True).runs
