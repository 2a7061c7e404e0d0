"""`perdure.cancel` in SQL: what `handle.cancel()` does, in the caller's transaction."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import perdure
from perdure import WorkflowCancelled, sync, workflow
from tests.api_tools import rows, until
from tests.protocol_tools import in_thread, stranger

said: list[str] = []


@workflow(name="cancel.wait")
async def wait(id: str) -> None:
    try:
        await perdure.receive("go")
    except BaseException:
        said.append(id)
        raise


@workflow(name="cancel.patient")
def patient(id: str) -> str:
    try:
        sync.sleep(3600)
    except perdure.Cancelled:
        said.append(id)
        raise
    return "slept"


@workflow(name="cancel.quick")
def quick() -> int:
    return 1


def cancel(url: str, id: str, reason: str | None = None) -> bool:
    """Cancel a run from SQL, committed at once."""
    ((reached,),) = rows(url, "select perdure.cancel(%s, %s)", id, reason)
    return bool(reached)


def ends(url: str) -> list[tuple[Any, ...]]:
    """How runs ended, by id."""
    return rows(
        url,
        "select r.id, e.status, convert_from(e.value, 'UTF8') from perdure.ends e join perdure.runs r using (key) order by id",
    )


@pytest.mark.parametrize("options", [{"queue": "nobody"}, {"delay": 3600}])
def test_one_that_has_not_begun_ends_as_it_does_in_python(options: Any, database_url: str) -> None:
    """Queued or scheduled: the stored end is the same, byte for byte, and whoever waits hears of it."""
    with sync.Perdure(database_url, grace=0) as app:
        handles = [app.start("none", id=id, **options) for id in ("run-1", "run-2")]
        waiter = in_thread(lambda: handles[1].result(30))
        assert handles[0].cancel()
        assert cancel(database_url, "run-2")
        with pytest.raises(WorkflowCancelled, match="run run-2: the run was cancelled before it began"):
            waiter.result()
        (a, b) = ends(database_url)
        assert a[1:] == b[1:]
        assert not cancel(database_url, "run-2")
        assert rows(database_url, "select * from perdure.live") == []


def test_the_reason_is_in_the_error(database_url: str) -> None:
    """Whatever characters it has."""
    with sync.Perdure(database_url, grace=0) as app:
        handle = app.start("none", queue="nobody")
        reason = "the \"customer\"\\ said:\n'no' \u00e4\U0001f418 \x01"
        assert cancel(database_url, handle.id, reason)
        with pytest.raises(WorkflowCancelled) as caught:
            handle.result(30)
        assert reason in str(caught.value)


@pytest.mark.parametrize("flow", [wait, patient])
def test_the_code_of_one_that_has_begun_is_told(flow: Any, database_url: str) -> None:
    """In memory, in both colours: it hears of it, and ends as cancelled; while it does, the reason can be read."""
    said.clear()
    with sync.Perdure(database_url, grace=0) as app:
        handle = sync.start(flow.options(id="a"), "a")
        until(lambda: app.runs.count(status=["running", "waiting"]))
        with stranger(database_url) as connection:
            connection.execute("select perdure.cancel('a', 'enough')")
            assert said == []
            connection.commit()
        with pytest.raises(WorkflowCancelled):
            handle.result(30)
        assert said == ["a"]
        assert not cancel(database_url, "a")


def test_one_that_waits_without_memory_is_woken(database_url: str) -> None:
    """Put away when the cancel is committed, claimed for it, told, ended."""
    said.clear()
    with sync.Perdure(database_url, grace=0) as app:
        handle = sync.start(wait.options(id="a"), "a")
        until(lambda: rows(database_url, "select 1 from perdure.live where status = 4"))
        said.clear()
        assert cancel(database_url, "a", "enough")
        with pytest.raises(WorkflowCancelled):
            handle.result(30)
        assert app.runs.count() == 1


def test_the_reason_can_be_read_until_it_ends(database_url: str) -> None:
    """In `describe().reason`; the request for a cancel too."""
    with sync.Perdure(database_url, grace=0):
        sync.start(wait.options(id="a"), "a")
    assert cancel(database_url, "a", "enough")
    assert cancel(database_url, "a")  # asked for again, it is not too late either
    with sync.Perdure(database_url, worker=False) as app:
        info = app.handle("a").describe()
        assert (info.reason, info.cancel_requested) == ("enough", True)


def test_a_parked_one_ends(database_url: str) -> None:
    """It has no code that could be told."""
    with sync.Perdure(database_url, grace=0) as app:
        handle = app.start("cancel.quick", queue="default", kwargs=None)
        handle.result(30)
        rows(database_url, "select perdure.start('cancel.quick', '[1, 2, 3]', '{\"id\": \"p\"}')")
        with pytest.raises(perdure.WorkflowParked):
            app.handle("p").result(30)
        assert cancel(database_url, "p")
        with pytest.raises(WorkflowCancelled):
            app.handle("p").result(30)


def test_a_rollback_cancels_nothing(database_url: str) -> None:
    """The run is as it was."""
    with sync.Perdure(database_url, worker=False) as app:
        app.start("none", id="a")
        with stranger(database_url) as connection:
            assert connection.execute("select perdure.cancel('a')").fetchone() == (True,)
        assert ends(database_url) == []
        assert rows(database_url, "select status, cancel from perdure.live") == [(2, 0)]


def test_too_late_and_unknown(database_url: str) -> None:
    """False for a run that has ended, an error for one that never was."""
    with sync.Perdure(database_url, grace=0):
        sync.start(quick.options(id="a")).result(30)
        assert not cancel(database_url, "a")
        for id in ("nobody", None):
            with pytest.raises(psycopg.Error) as caught:
                rows(database_url, "select perdure.cancel(%s)", id)
            assert caught.value.sqlstate == "PD003"


def test_one_that_goes_on_as_new_meanwhile_is_cancelled_in_its_next_life(database_url: str) -> None:
    """The cancel waits for the lock of the one life, and finds the other."""
    with sync.Perdure(database_url, worker=False) as app, stranger(database_url) as mover:
        app.start("none", id="a")
        ((key,),) = rows(database_url, "select key from perdure.runs")
        mover.execute("delete from perdure.live where key = %s", (key,))
        mover.execute("update perdure.runs set superseded = true where key = %s", (key,))
        mover.execute("insert into perdure.ends (key, status, value) values (%s, 10, '7')", (key,))
        mover.execute("insert into perdure.runs (key, id, workflow, input) values (7, 'a', 'none', '{}')")
        mover.execute("insert into perdure.live (key, workflow, status) values (7, 'none', 2)")
        waits = in_thread(lambda: cancel(database_url, "a"))
        until(lambda: rows(database_url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        mover.commit()
        assert waits.result()
        assert rows(database_url, "select key from perdure.ends where status = 9") == [(7,)]


def test_a_cancel_leaves_a_row_in_the_audit(database_url: str) -> None:
    """As one from Python does: who, what and why."""
    with sync.Perdure(database_url, worker=False) as app:
        app.start("nowhere", id="r")
        assert rows(database_url, "select perdure.cancel('r', 'no longer wanted')") == [(True,)]
        (note,) = app.runs.audit("r")
        assert (note.verb, note.reason, "(SQL)" in note.who) == ("cancel", "no longer wanted", True)
