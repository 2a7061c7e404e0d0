"""People's commands where they meet each other, other starts and damaged documents: nothing is torn, nobody hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import Perdure, WorkflowFailed, WorkflowNotFound, WorkflowTimeout, step, workflow
from perdure.client import current_app
from perdure.models import Status
from perdure.serial import encode_failure
from perdure.store import operations
from perdure.store.records import EndRecord, StepRecord
from tests.api_tools import on_loop, rows, until, until_true
from tests.protocol_tools import RawWorker, in_thread, start_of, stranger

NOTE = operations.Note("a test", "to see")
RESUME = ("lock_runs_for_cancel", "lock_ends", "lock_runs_for_tags", "forget_last_failure", "revive_failed")
ERROR = encode_failure(WorkflowFailed("it is broken"))
calls: list[str] = []
broken: set[str] = set()
entered, go = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    broken.clear()
    entered.clear()
    go.clear()


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url) as worker:
        yield worker


def blocked(url: str) -> bool:
    """Whether somebody waits for a lock."""
    return bool(rows(url, "select 1 from pg_locks where not granted"))


def failed(owner: RawWorker, id: str = "one") -> int:
    """A run with a step that has failed."""
    run = owner.start(id)
    owner.write(StepRecord(run, "1", 1, 0, 1, "work", False, b"1"))
    owner.write(EndRecord(run, Status.FAILED.code, ERROR))
    return run


def lives(url: str) -> list[Any]:
    """Unfinished runs whose id was given to another: nobody finds them."""
    return rows(url, "select key from perdure.live join perdure.runs using (key) where superseded")


# -- resume against a start that takes the id ------------------------------------------------------


def test_a_start_that_takes_the_id_comes_after_a_resume(owner: RawWorker, database_url: str) -> None:
    """`on_conflict="restart_if_failed"`: the run is being revived, so its id is not free any more."""
    run = failed(owner)
    statements, keys = owner.database.statements, {"keys": [run]}
    start = start_of(owner.key(), "one", supersede=True)
    with owner.database.connect("resuming") as resuming, resuming.transaction():
        for name in RESUME:
            resuming.execute(statements[name], keys)
        starting = in_thread(lambda: owner.write(start))
        until(lambda: blocked(database_url) or not starting.going_on)
    starting.result()
    assert lives(database_url) == []
    assert rows(database_url, "select key from perdure.runs where not superseded") == [(run,)]


def test_a_resume_comes_after_a_start_that_takes_the_id(owner: RawWorker, database_url: str) -> None:
    """The id is another run's by then: what is not found by its id is not revived."""
    run, new = failed(owner), owner.key()
    statements = owner.database.statements
    with owner.database.connect("starting") as starting, starting.transaction():
        starting.execute(statements["supersede_failed"], {"id": ["one"], "key": [new]})
        resuming = in_thread(lambda: operations.resume(owner.database, [run], NOTE))
        until(lambda: blocked(database_url) or not resuming.going_on)
    assert resuming.result() == []
    assert lives(database_url) == []
    assert rows(database_url, "select status from perdure.ends where key = %s", run) == [(8,)]


@pytest.mark.parametrize("first", ["the start", "the resume"])
def test_a_start_from_sql_and_a_resume(first: str, owner: RawWorker, database_url: str) -> None:
    run = failed(owner)
    rows(database_url, "update perdure.runs set workflow = 'w'")
    start = """select perdure.start('w', '[]', '{"id": "one", "on_conflict": "restart_if_failed"}')"""
    resume = partial(operations.resume, owner.database, [run], NOTE)
    with stranger(database_url) as other:
        if first == "the start":
            other.execute(start.encode())
            acting = in_thread(resume)
        else:
            for name in RESUME:
                other.execute(owner.database.statements[name], {"keys": [run]})
            acting = in_thread(lambda: rows(database_url, start))
        until(lambda: blocked(database_url) or not acting.going_on)
        other.commit()
    acting.result()
    assert lives(database_url) == []
    assert len(rows(database_url, "select 1 from perdure.live")) == 1


# -- a correction against a resume -----------------------------------------------------------------


def test_a_correction_waits_for_a_resume_and_leaves_a_running_run_alone(
    owner: RawWorker, database_url: str
) -> None:
    """Revived and claimed before the correction: the code may have seen the old result."""
    run = failed(owner)
    with owner.database.connect("resuming") as resuming, resuming.transaction():
        for name in RESUME:
            resuming.execute(owner.database.statements[name], {"keys": [run]})
        resuming.execute("update perdure.live set status = 3, worker = %s", (owner.number,))
        correcting = in_thread(lambda: operations.set_output(owner.database, run, "1", b"2", NOTE))
        until(lambda: blocked(database_url) or not correcting.going_on)
    assert isinstance(correcting.error(), operations.Uncorrectable)
    assert rows(database_url, "select value from perdure.steps") == [(b"1",)]
    assert rows(database_url, "select verb from perdure.audit") == []


def test_a_correction_comes_before_a_resume(owner: RawWorker, database_url: str) -> None:
    """While a correction is open, a resume waits: what it revives has the new result."""
    run = failed(owner)
    with stranger(database_url) as other:
        other.execute("select 1 from perdure.steps where run = %s for update", (run,))
        correcting = in_thread(lambda: operations.set_output(owner.database, run, "1", b"2", NOTE))
        until(lambda: blocked(database_url))
        resuming = in_thread(lambda: operations.resume(owner.database, [run], NOTE))
        until(
            lambda: (
                len(rows(database_url, "select 1 from pg_locks where not granted")) >= 2
                or not resuming.going_on
            )
        )
        assert resuming.going_on
        other.commit()
    correcting.result()
    assert resuming.result() == [run]
    assert rows(database_url, "select value from perdure.steps") == [(b"2",)]


# -- what a resume takes back ----------------------------------------------------------------------


@workflow(name="hostile.late")
async def late() -> str:
    await perdure.set_event("state", "begun")
    try:
        if "patient" in broken:
            await perdure.sleep(0.01)
        else:
            await perdure.sleep(3600)
    except asyncio.CancelledError:
        with perdure.shield():
            await perdure.set_event("state", "out of time")
        raise
    await perdure.set_event("state", "well")
    return "well"


@on_loop
async def test_what_a_run_says_after_a_resume_is_heard(database_url: str) -> None:
    """Its steps after the word to stop are forgotten, and others get their numbers: their events must not be in the way."""
    async with Perdure(database_url, lease=1) as app:
        handle = await late.options(id="r", timeout=0.3).start()
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=30)
        assert await handle.get_event("state", timeout=5) == "out of time"
        broken.add("patient")
        assert await app.runs.resume("r") == 1
        assert await app.handle("r").result(timeout=30) == "well"
        assert await app.handle("r").get_event("state", timeout=5) == "well"
    told = rows(database_url, "select convert_from(value, 'UTF8') from perdure.events order by seq")
    assert told == [('"begun"',), ('"well"',)]


def test_a_resume_comes_after_a_restart_of_the_same_run(owner: RawWorker, database_url: str) -> None:
    """The life that has failed is past: it is not revived beside the new one."""
    run = failed(owner)
    with stranger(database_url) as other:
        other.execute("select 1 from perdure.ends where key = %s for update", (run,))
        restarting = in_thread(lambda: operations.restart(owner.database, {run: (-run, None)}, NOTE))
        until(lambda: blocked(database_url))
        other.commit()
        assert restarting.result() == [-run]
    assert operations.resume(owner.database, [run], NOTE) == []
    assert lives(database_url) == []
    assert rows(database_url, "select 1 from perdure.steps where run = %s", run)


# -- what a resume runs again ----------------------------------------------------------------------


@step(name="hostile.once", at_most_once=True)
async def once() -> str:
    calls.append("once")
    if "once" in broken:
        raise LookupError("declined")
    return "done"


@workflow(name="hostile.careful")
async def careful() -> str:
    return await once()


@on_loop
async def test_a_step_that_runs_at_most_once_runs_again_if_its_failure_is_known(database_url: str) -> None:
    """It raised, which was its outcome; who resumes the run asks for it again. A crash in it is no such outcome."""
    broken.add("once")
    async with Perdure(database_url) as app:
        handle = await careful.options(id="r").start()
        with pytest.raises(LookupError):
            await handle.result(timeout=30)
        broken.clear()
        assert await app.runs.resume("r") == 1
        assert await app.handle("r").result(timeout=30) == "done"
        assert calls == ["once", "once"]


@on_loop
async def test_a_step_of_which_nobody_knows_is_not_run_again_by_a_resume(database_url: str) -> None:
    async with Perdure(database_url, worker=False) as app:
        await app.start(careful.definition.name, id="r")
        begun = "insert into perdure.intents (run, position, name, worker) select key, '1', 'hostile.once', 1 from perdure.runs"
        rows(database_url, begun)
        rows(database_url, "update perdure.live set begun = true")
        async with Perdure(database_url) as worker:
            for _ in range(2):
                with pytest.raises(perdure.OutcomeUnknown):
                    await worker.handle("r").result(timeout=30)
                assert await worker.runs.resume("r") == 1
            with pytest.raises(perdure.OutcomeUnknown):
                await worker.handle("r").result(timeout=30)
        assert calls == []


# -- what waits for a run that is deleted ----------------------------------------------------------


@workflow(name="hostile.awaits")
async def awaits(id: str) -> str:
    app = current_app()
    assert isinstance(app, Perdure)
    return str(await app.handle(id).result())


@on_loop
async def test_who_waits_for_a_run_that_is_deleted_is_told(database_url: str) -> None:
    """In memory outside, and a run that is put away: none of them waits for ever."""
    async with Perdure(database_url, lease=1) as app:
        await app.start("nowhere", id="gone")
        waiting = asyncio.create_task(app.handle("gone").result(timeout=60))
        run = await awaits.options(id="w").start("gone")
        found = "select 1 from perdure.live join perdure.waits w on w.run = live.key where live.status = 4 and w.target is not null"
        await until_true(lambda: asyncio.to_thread(rows, database_url, found))
        for table in ("live", "runs"):  # as a delete leaves it, which itself takes no run that is waited for
            rows(
                database_url,
                f"delete from perdure.{table} where key = (select key from perdure.runs where id = 'gone')",
            )
        with pytest.raises(WorkflowNotFound, match="deleted"):
            await waiting
        with pytest.raises(WorkflowNotFound, match=r"deleted|no run has the id"):
            await run.result(timeout=60)
