"""What people do to runs: restart, fork, delete, correct, stop at once, other deadlines; and who did it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import (
    Perdure,
    PerdureError,
    RunFilter,
    SerializationError,
    Topic,
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowNotFound,
    WorkflowTimeout,
    saga,
    step,
    sync,
    workflow,
)
from perdure.client import current_app
from tests.api_tools import on_loop, rows, until, until_true

calls: list[str] = []
broken: set[str] = set()
go = threading.Event()
entered = threading.Event()
words = Topic("words", str)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    broken.clear()
    go.clear()
    entered.clear()


@step
async def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise LookupError(f"{name} is broken")
    return f"{name} done"


@step
async def count(number: int) -> int:
    calls.append(f"count {number}")
    return number + 1


@step
async def take_back(what: str) -> None:
    calls.append(f"took back {what}")


@workflow
async def three(first: str = "a") -> list[str]:
    return [await work(first), await work("b"), await work("c")]


@workflow
async def adding(number: int) -> int:
    number = await count(number)
    perdure.now()
    number = await count(number)
    await perdure.set_event("so far", number)
    return await count(number)


@workflow
async def by_chance() -> list[str]:
    chosen = [str(perdure.random().random()), str(perdure.uuid4())]
    await work("a")
    return [*chosen, str(perdure.random().random())]


@workflow
async def listening() -> list[str]:
    first = await perdure.receive(words)
    second = await perdure.receive(words)
    await work(first)
    return [first, second, await perdure.receive(words)]


@workflow
async def waits_for_ever() -> None:
    async with saga() as undo:
        await work("a")
        undo(take_back, "a")
        calls.append("waits")
        try:
            await perdure.sleep(3600)
        finally:
            calls.append("cleaned up")


@workflow
def waits_for_ever_blocking() -> None:
    with sync.saga() as undo:
        sync.run_step(work, "a")
        undo(take_back_blocking, "a")
        busy()
        calls.append("went on")
        sync.run_step(work, "b")


@workflow
def says_that_it_runs() -> None:
    calls.append("runs")
    sync.sleep(3600)


@step
def busy() -> None:
    entered.set()
    go.wait(30)


@step
def take_back_blocking(what: str) -> None:
    calls.append(f"took back {what}")


@workflow
async def family(depth: int) -> int:
    await work(f"member {depth}")
    return 0 if depth == 0 else 1 + await family(depth - 1)


@workflow
async def parent_that_waits() -> str:
    child = await three.options(id="the-child").start("child")
    await child.result()
    return await perdure.receive(words)


# -- restart ---------------------------------------------------------------------------------------


@on_loop
async def test_restart_begins_anew_under_the_same_id_and_keeps_what_was(database_url: str) -> None:
    async with Perdure(database_url) as app:
        broken.add("b")
        handle = await three.options(id="r", tags={"shop": "x"}).start()
        with pytest.raises(LookupError):
            await handle.result()
        broken.clear()
        calls.clear()
        assert await app.runs.restart("r", reason="b was mended") == 1
        assert await app.handle("r").result(timeout=30) == ["a done", "b done", "c done"]
        assert calls == ["a", "b", "c"]
        info = await app.handle("r").describe()
        assert (info.status, info.tags) == ("succeeded", {"shop": "x"})
        kept = rows(
            database_url,
            "select count(*) from perdure.steps s join perdure.runs r on r.key = s.run and r.superseded",
        )
        assert kept == [(2,)]
        with pytest.raises(LookupError):  # a handle of the old life tells how that ended
            await handle.result()


@on_loop
async def test_restart_of_a_parked_run_takes_its_waiters_along(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handle = await listening.options(id="r").start()
        await handle.send(words, "one")
        await until_true(lambda: _is(handle, "waiting"))
        result = asyncio.create_task(handle.result(timeout=30))
        assert await app.runs.restart("r") == 1
        for word in ("two", "three"):  # the first was copied along
            await app.handle("r").send(words, word)
        assert await result == ["one", "two", "three"]


@on_loop
async def test_restart_leaves_a_running_run_alone(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handle = await perdure.start(waits_for_ever_blocking)
        await asyncio.to_thread(entered.wait, 30)
        assert await app.runs.restart(handle.id) == 0
        go.set()
        await handle.result(timeout=30)
        assert await app.runs.restart(handle.id) == 1
        await app.handle(handle.id).result(timeout=30)
        assert calls.count("went on") == 2


async def _is(handle: perdure.Handle[Any], status: str) -> bool:
    return await handle.status() == status


# -- fork ------------------------------------------------------------------------------------------


@on_loop
async def test_fork_keeps_the_history_before_a_step(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handle = await adding.options(id="r").start(1)
        assert await handle.result() == 4
        calls.clear()
        fork = await app.runs.fork("r", from_step="4", reason="what if")
        assert await fork.result(timeout=30) == 4
        assert calls == ["count 3"]
        assert await fork.get_event("so far", type=int, timeout=5) == 3
        assert fork.id.startswith("r/fork-")
        assert [told.position for told in await fork.steps()] == [
            told.position for told in await handle.steps()
        ]
        (last,) = await app.runs.audit(limit=1)
        assert (last.verb, last.id, last.reason) == ("fork", fork.id, "what if")


@on_loop
async def test_fork_with_other_outputs_arguments_and_id(database_url: str) -> None:
    async with Perdure(database_url) as app:
        await adding.options(id="r").start(1)
        await app.handle("r").result()
        fork = await app.runs.fork("r", from_step="4", outputs={"3": 99}, new_id="f")
        assert (fork.id, await fork.result(timeout=30)) == ("f", 100)
        fork = await app.runs.fork("r", args=[10])
        assert await fork.result(timeout=30) == 13
        with pytest.raises(WorkflowConflict):
            await app.runs.fork("r", new_id="f")
        with pytest.raises(ValueError, match="keeps"):
            await app.runs.fork("r", from_step="3", outputs={"4": 1})
        with pytest.raises(ValueError, match="from_step"):
            await app.runs.fork("r", outputs={"1": 1})
        with pytest.raises(SerializationError):
            await app.runs.fork("r", from_step="4", outputs={"1": "text"})
        with pytest.raises(PerdureError, match="no step"):
            await app.runs.fork("r", from_step="nothing")
        with pytest.raises(TypeError):
            await app.runs.fork("r", args=[1, 2, 3])
        with pytest.raises(WorkflowNotFound):
            await app.runs.fork("nobody")
        assert await app.runs.count() == 3


@on_loop
async def test_fork_of_a_running_run_that_has_heard_messages(database_url: str) -> None:
    """The kept part names messages by number: the fork has them, and those that come later go to one alone."""
    async with Perdure(database_url) as app:
        handle = await listening.options(id="r").start()
        for word in ("one", "two"):
            await handle.send(words, word)
        await until_true(lambda: _is(handle, "waiting"))
        fork = await app.runs.fork("r", from_step="2")
        await until_true(lambda: _is(fork, "waiting"))
        await fork.send(words, "for the fork")
        assert await fork.result(timeout=30) == ["one", "two", "for the fork"]
        await handle.send(words, "for the first")
        assert await handle.result(timeout=30) == ["one", "two", "for the first"]
        assert calls == ["one", "one"]


@on_loop
async def test_a_fork_sees_the_chance_that_the_kept_part_saw(database_url: str) -> None:
    async with Perdure(database_url) as app:
        first = await by_chance.options(id="r")()
        again = await (await app.runs.fork("r", from_step="1")).result(timeout=30)
        assert again[0] == first[0]
        assert (await (await app.runs.fork("r")).result(timeout=30))[0] != first[0]


# -- delete ----------------------------------------------------------------------------------------


@on_loop
async def test_delete_takes_the_tree_and_leaves_nothing_but_the_audit(database_url: str) -> None:
    async with Perdure(database_url) as app:
        assert await family.options(id="f")(3) == 3
        assert await app.runs.count() == 4
        assert await app.runs.delete("f", reason="asked to") == 1
        assert await app.runs.count() == 0
        for table in ("steps", "ends", "waits", "intents", "messages", "events", "streams", "takeovers"):
            assert rows(database_url, f"select count(*) from perdure.{table}") == [(0,)], table
        with pytest.raises(WorkflowNotFound):
            await app.runs.delete("f")
        (note,) = await app.runs.audit("f")
        assert (note.verb, note.reason) == ("delete", "asked to")
        assert app.name in note.who


@on_loop
async def test_delete_leaves_alone_what_others_need(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handle = await parent_that_waits.options(id="p").start()
        await until_true(lambda: _is(handle, "waiting"))
        assert await app.runs.delete("p") == 0
        assert await app.runs.delete("the-child") == 0  # its parent may replay, and ask how it ended
        await handle.send(words, "on")
        await handle.result(timeout=30)
        assert await app.runs.delete(["the-child"]) == 1
        assert await app.runs.count() == 1
        assert await app.runs.delete(workflow=parent_that_waits.definition.name) == 1


@on_loop
async def test_delete_in_pages_with_progress(database_url: str) -> None:
    async with Perdure(database_url) as app:
        rows(
            database_url,
            "with born as (insert into perdure.runs (key, id, workflow, input)"
            " select -n - 1000, 'many-' || n, 'm', '{}' from generate_series(1, 1200) n returning key)"
            " insert into perdure.ends (key, status, value) select key, 7, 'null' from born",
        )
        told: list[int] = []
        assert await app.runs.delete(RunFilter(prefix="many-"), progress=told.append) == 1200
        assert told == [500, 1000, 1200]
        assert await app.runs.count() == 0


@on_loop
async def test_messages_do_not_keep_a_run_from_being_deleted(database_url: str) -> None:
    async with Perdure(database_url) as app:
        handle = await listening.options(id="r").start()
        await handle.send(words, "one")
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)

        async def sends() -> int:
            refused = 0
            for _ in range(20):
                try:
                    await handle.send(words, "more")
                except PerdureError:
                    refused += 1
            return refused

        senders = [asyncio.create_task(sends()) for _ in range(3)]
        assert await app.runs.delete("r") == 1
        assert await asyncio.gather(*senders) == [20, 20, 20]
        assert rows(database_url, "select count(*) from perdure.messages") == [(0,)]


# -- set_output ------------------------------------------------------------------------------------


@on_loop
async def test_set_output_puts_a_result_in_the_place_of_a_failure(database_url: str) -> None:
    async with Perdure(database_url) as app:
        broken.add("b")
        handle = await three.options(id="r").start()
        with pytest.raises(LookupError):
            await handle.result()
        calls.clear()
        await app.runs.set_output("r", "2", "b by hand", reason="paid by bank transfer")
        assert await app.runs.resume("r") == 1
        assert await app.handle("r").result(timeout=30) == ["a done", "b by hand", "c done"]
        assert calls == ["c"]
        resumed, corrected = await app.runs.audit("r")
        assert (resumed.verb, corrected.verb, corrected.reason) == (
            "resume",
            "set_output",
            "paid by bank transfer",
        )
        assert corrected.detail is not None
        assert "b is broken" in corrected.detail["was"]


@on_loop
async def test_several_are_forked_and_corrected_by_filter(database_url: str) -> None:
    async with Perdure(database_url) as app:
        for number in range(3):
            await three.options(id=f"r{number}", tags={"shop": 1})()
        await adding.options(id="other", tags={"shop": 1})(1)
        assert await app.runs.set_output(RunFilter(tags={"shop": 1}), work.definition.name, "by hand") == 3
        forks = await app.runs.fork(RunFilter(prefix="r"), from_step="1")
        assert len(forks) == 3
        for fork in forks:
            assert await fork.result(timeout=30) == ["a done", "b done", "c done"]
        assert [told.json() for told in await app.handle("r0").steps()][-1] == '"by hand"'
        with pytest.raises(ValueError, match="new_id"):
            await app.runs.fork(["r0"], new_id="x")


@on_loop
async def test_set_output_refuses_what_it_cannot_do(database_url: str) -> None:
    async with Perdure(database_url) as app:
        await three.options(id="r")()
        with pytest.raises(SerializationError):
            await app.runs.set_output("r", "2", 5)
        with pytest.raises(PerdureError, match="no such step"):
            await app.runs.set_output("r", "9", "x")
        await parent_that_waits.options(id="p").start()
        await until_true(lambda: _is(app.handle("p"), "waiting"))
        with pytest.raises(PerdureError, match="perdure's own"):
            await app.runs.set_output("p", "1", "x")
        running = await perdure.start(waits_for_ever_blocking)
        await asyncio.to_thread(entered.wait, 30)
        with pytest.raises(PerdureError, match="is running"):
            await app.runs.set_output(running.id, "1", "x")
        go.set()
        await running.result(timeout=30)


# -- stopping at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("compensate", [True, False])
@on_loop
async def test_a_cancel_undoes_unless_told_not_to(compensate: bool, database_url: str) -> None:
    async with Perdure(database_url):
        handle = await waits_for_ever.start()
        await until_true(lambda: _told("waits"))
        assert await handle.cancel(compensate=compensate)
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
        assert ("took back a" in calls) is compensate
        assert await handle.status() == "cancelled"


async def _told(what: str) -> bool:
    return what in calls


@on_loop
async def test_stopped_at_once_blocking_code_makes_no_further_durable_call(database_url: str) -> None:
    async with Perdure(database_url):
        handle = await perdure.start(waits_for_ever_blocking)
        await asyncio.to_thread(entered.wait, 30)
        assert await handle.cancel(compensate=False)
        go.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
        assert calls == ["a"]


@step
async def hangs() -> None:
    calls.append("hangs")
    await asyncio.Event().wait()


@workflow
async def hanging(*, twice: bool) -> None:
    if twice:
        await asyncio.gather(hangs(), hangs())
    await hangs()


@pytest.mark.parametrize("twice", [False, True])
@on_loop
async def test_stopped_at_once_a_body_that_hangs_is_taken_off_the_stack(
    twice: bool, database_url: str
) -> None:
    async with Perdure(database_url):
        handle = await hanging.start(twice=twice)
        await until_true(lambda: _told("hangs"))
        assert await handle.cancel(compensate=False)
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=20)


@on_loop
async def test_who_was_asked_to_stop_can_still_be_stopped_at_once(database_url: str) -> None:
    async with Perdure(database_url):
        handle = await perdure.start(waits_for_ever_blocking)
        await asyncio.to_thread(entered.wait, 30)
        assert await handle.cancel()
        assert await handle.cancel(compensate=False)
        go.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
        assert calls == ["a"]


def test_a_run_whose_worker_died_is_stopped_at_once_without_its_code(database_url: str) -> None:
    """Told while nobody runs it: whoever claims it ends it and runs nothing."""
    with sync.Perdure(database_url, worker=False) as app:
        handle = app.start(says_that_it_runs.definition.name, id="r")
        rows(database_url, "update perdure.live set begun = true, status = 3, worker = 4711")
        assert handle.cancel(compensate=False)
        assert rows(database_url, "select cancel, status from perdure.live") == [(2, 3)]
        with sync.Perdure(database_url, lease=1) as worker, pytest.raises(WorkflowCancelled):
            worker.handle("r").result(timeout=30)
    assert calls == []


# -- deadlines, audit, bulk ------------------------------------------------------------------------


@on_loop
async def test_set_timeout_gives_takes_and_moves_a_deadline(database_url: str) -> None:
    async with Perdure(database_url, lease=1) as app:
        handle = await waits_for_ever.options(timeout=3600).start()
        await until_true(lambda: _told("waits"))
        assert await app.runs.set_timeout(handle.id, timeout=None) == 1
        assert (await handle.describe()).deadline is None
        assert await app.runs.set_timeout(handle.id, timeout=0.1) == 1
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=30)


def test_every_verb_has_a_blocking_form_and_takes_keywords(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        for number in range(3):
            app.start(three.definition.name, ["a"], id=f"r{number}").result(timeout=30)
        assert app.runs.restart(prefix="r", reason="again") == 3
        until(lambda: app.runs.count(status="succeeded") == 3)
        assert app.runs.fork("r0", from_step="2", new_id="f").result(timeout=30) == [
            "a done",
            "b done",
            "c done",
        ]
        assert app.runs.resume(prefix="r") == 0
        assert app.runs.cancel(prefix="r") == 0
        assert app.runs.set_timeout(prefix="r", timeout=5) == 0
        assert app.runs.delete(prefix="r", status="succeeded") == 3
        assert {(note.verb, note.id) for note in app.runs.audit()} >= {
            ("restart", "r1"),
            ("delete", "r1"),
            ("fork", "f"),
        }
        with pytest.raises(TypeError):
            app.runs.cancel()
        with pytest.raises(TypeError):
            app.runs.delete("r0", status="failed")
        with pytest.raises(WorkflowNotFound):
            app.runs.restart("r0")


@on_loop
async def test_what_a_workflow_does_is_noted_in_its_name(database_url: str) -> None:
    async with Perdure(database_url) as app:
        await three.options(id="r")()
        assert await tidying.options(id="t")() == 1
        (note,) = await app.runs.audit("r")
        assert (note.who, note.verb) == ("run t", "delete")


@workflow
async def tidying() -> int:
    app = current_app()
    assert isinstance(app, Perdure)
    return await app.runs.delete("r")
