"""What people do to runs, where it meets what the runs and other people do: one of the two comes first, and nothing is torn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import Topic, WorkflowCancelled, WorkflowNotFound, step, sync, workflow
from perdure.models import CancelReason, Status
from perdure.serial import encode_failure
from perdure.store import claims, operations
from perdure.store.records import EndRecord, Outcome, PutAway, StepRecord, WaitRecord
from tests.api_tools import rows, until
from tests.protocol_tools import Proxy, RawWorker, in_thread, stranger
from tests.servers import TestServer

NOTE = operations.Note("a test", "to see")
ERROR = encode_failure(WorkflowCancelled("the run was cancelled before it began"))
words = Topic("words", str)
TABLES = ("steps", "waits", "intents", "messages", "events", "streams", "ends", "live", "takeovers")


@step
async def work(number: int) -> int:
    return number


@workflow
async def worker(number: int) -> int:
    await work(number)
    await perdure.receive(words)
    return number


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url) as worker:
        yield worker


def no_orphans(url: str) -> None:
    """Nothing belongs to a run that is not there."""
    for table in TABLES:
        key = "key" if table in ("ends", "live") else "run"
        left = rows(
            url,
            f"select * from perdure.{table} t where not exists (select 1 from perdure.runs r where r.key = t.{key})",
        )
        assert left == [], table
    assert (
        rows(
            url,
            "select * from perdure.waits w where not exists (select 1 from perdure.live l where l.key = w.run)",
        )
        == []
    )


def state(url: str, run: int) -> tuple[list[Any], list[Any]]:
    return (
        rows(url, "select status from perdure.live where key = %s", run),
        rows(url, "select status from perdure.ends where key = %s", run),
    )


VERBS: dict[str, Callable[[RawWorker, int], list[int]]] = {
    "restart": lambda owner, run: operations.restart(owner.database, {run: (-run, None)}, NOTE),
    "resume": lambda owner, run: operations.resume(owner.database, [run], NOTE),
    "delete": lambda owner, run: operations.delete(owner.database, [run], NOTE, children=True),
    "cancel": lambda owner, run: operations.cancel(owner.database, [run], CancelReason.AT_ONCE, ERROR, NOTE),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_meets_an_end_comes_after_it_or_leaves_the_run_alone(
    verb: str, owner: RawWorker, database_url: str
) -> None:
    """The end is written, not committed: the verb waits for its lock, and then sees how it ended."""
    run = owner.start("one")
    with stranger(database_url) as ending:
        ending.execute("delete from perdure.live where key = %s", (run,))
        ending.execute(
            "insert into perdure.ends (key, status, value, worker) values (%s, 8, %s, %s)",
            (run, ERROR, owner.number),
        )
        acting = in_thread(partial(VERBS[verb], owner, run))
        until(
            lambda: (
                rows(database_url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'")
                or not acting.going_on
            )
        )
        ending.commit()
    reached = acting.result()
    match verb:
        case "restart":
            assert reached == [-run]
            assert state(database_url, -run) == ([(2,)], [])
        case "resume":
            assert reached == [run]
            assert state(database_url, run) == ([(2,)], [])
        case "cancel":
            assert (reached, state(database_url, run)) == ([], ([], [(8,)]))
        case _:
            assert reached in ([], [run])
    no_orphans(database_url)


@pytest.mark.parametrize("verb", VERBS)
def test_a_running_run_is_never_written_over(verb: str, owner: RawWorker, database_url: str) -> None:
    run = owner.start("one")
    reached = VERBS[verb](owner, run)
    assert state(database_url, run) == ([(3,)], [])
    assert reached == ([run] if verb == "cancel" else [])
    end = EndRecord(run, Status.SUCCEEDED.code, b"1")
    owner.write(end)
    assert end.outcome is (Outcome.CANCELLED if verb == "cancel" else Outcome.WON)


@pytest.mark.parametrize("verb", VERBS)
def test_two_at_once_do_it_once(verb: str, owner: RawWorker, database_url: str) -> None:
    run = owner.start("one")
    owner.write(EndRecord(run, Status.FAILED.code, ERROR))
    with stranger(database_url) as other:
        other.execute("select 1 from perdure.ends where key = %s for update", (run,))
        first = in_thread(partial(VERBS[verb], owner, run))
        second = (
            in_thread(partial(VERBS[verb], owner, run))
            if verb != "restart"
            else in_thread(lambda: operations.restart(owner.database, {run: (-run - 1, None)}, NOTE))
        )
        if verb != "cancel":
            until(
                lambda: (
                    len(rows(database_url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
                    >= 2
                )
            )
        other.commit()
    reached = [*first.result(), *second.result()]
    assert len(reached) == (0 if verb == "cancel" else 1)
    assert len(rows(database_url, "select 1 from perdure.runs where not superseded")) == (
        0 if verb == "delete" else 1
    )
    no_orphans(database_url)


@pytest.mark.parametrize("verb", ["restart", "resume", "fork"])
def test_a_delete_that_comes_first_leaves_nothing_to_do(
    verb: str, owner: RawWorker, database_url: str
) -> None:
    run = owner.start("one")
    owner.write(StepRecord(run, "1", 1, 0, 1, "work", False, b"1"))
    owner.write(EndRecord(run, Status.FAILED.code, ERROR))
    fork = operations.Fork(
        run, -run, "fork", operations.find_cut(owner.database, run, "1"), {}, None, None, None, None
    )
    acts: dict[str, Callable[[], Any]] = VERBS_ON(owner, run) | {
        "fork": lambda: operations.fork(owner.database, fork, NOTE)
    }
    with stranger(database_url) as deleting:
        deleting.execute("select 1 from perdure.ends where key = %s for update", (run,))
        deleting.execute("delete from perdure.steps where run = %s", (run,))
        deleting.execute("delete from perdure.ends where key = %s", (run,))
        deleting.execute("delete from perdure.runs where key = %s", (run,))
        acting = in_thread(acts[verb])
        until(lambda: rows(database_url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        deleting.commit()
    if verb == "fork":
        with pytest.raises(operations.Deleted):
            acting.result()
    else:
        assert acting.result() == []
    assert rows(database_url, "select 1 from perdure.runs") == []
    no_orphans(database_url)


def VERBS_ON(owner: RawWorker, run: int) -> dict[str, Callable[[], Any]]:  # noqa: N802 - a table
    return {name: partial(verb, owner, run) for name, verb in VERBS.items()}


def test_a_fork_is_whole_while_the_owner_records_on(owner: RawWorker, database_url: str) -> None:
    """Each fork has the groups before its cut, and no more, whatever is recorded meanwhile."""
    run = owner.start("one")
    for number in range(1, 6):
        owner.write(StepRecord(run, str(number), number, 0, 1, "work", False, b"1"))
    cut = operations.find_cut(owner.database, run, "4")

    def record() -> None:
        for number in range(6, 60):
            owner.write(StepRecord(run, str(number), number, 0, 1, "work", False, b"1"))

    recording = in_thread(record)
    for place in range(20):
        fork = operations.Fork(run, -1 - place, f"fork {place}", cut, {}, None, None, None, None)
        assert operations.fork(owner.database, fork, NOTE)
    recording.result()
    kept = rows(database_url, "select count(*) from perdure.steps where run < 0 group by run")
    assert kept == [(3,)] * 20


def test_stopped_at_once_a_run_that_is_put_away_ends_and_waits_for_nothing(
    owner: RawWorker, database_url: str
) -> None:
    run = owner.start("one")
    owner.write(WaitRecord(run, "1", 3600.0))
    owner.write(PutAway(run, {"1": None}))
    assert VERBS["cancel"](owner, run) == [run]
    assert state(database_url, run) == ([], [(9,)])
    no_orphans(database_url)


def test_a_resumed_run_hears_nothing_of_a_zombie(owner: RawWorker, database_url: str) -> None:
    """The worker was declared dead and its run parked and resumed: what it still writes counts for nothing."""
    run = owner.start("one")
    rows(database_url, "delete from perdure.fences where worker = %s", owner.number)
    rows(database_url, "delete from perdure.workers where id = %s", owner.number)
    rows(database_url, "update perdure.live set status = 6, worker = null, reason = 'its workers died'")
    assert VERBS["resume"](owner, run) == [run]
    with pytest.raises(Exception, match="no longer alive"):
        owner.write(
            StepRecord(run, "1", 1, 0, 1, "work", False, b"1"), EndRecord(run, Status.SUCCEEDED.code, b"1")
        )
    assert state(database_url, run) == ([(2,)], [])
    assert rows(database_url, "select 1 from perdure.steps") == []


@pytest.mark.parametrize("verb", ["restart", "resume", "cancel", "delete", "fork"])
def test_an_answer_that_is_lost_is_not_done_twice(verb: str, server: TestServer, database_url: str) -> None:
    with sync.Perdure(database_url, worker=False) as app:
        app.start("nowhere", id="r")
        if verb != "cancel":
            value = ERROR.decode()
            rows(
                database_url,
                "with gone as (delete from perdure.live returning key) insert into perdure.ends select key, 8, convert_to(%s, 'UTF8') from gone",
                value,
            )
    with Proxy(server, database_url) as proxy, sync.Perdure(proxy.url, worker=False) as app:
        loss = proxy.lose_answer("perdure query")
        match verb:
            case "restart":
                assert app.runs.restart("r") == 1
            case "resume":
                assert app.runs.resume("r") == 1
            case "cancel":
                assert app.runs.cancel("r") == 1
            case "delete":
                assert app.runs.delete("r") == 1
            case _:
                assert app.runs.fork("r", new_id="f").id == "f"
        assert loss.happened.is_set()
    assert rows(database_url, "select count(*) from perdure.audit") == [(1,)]
    lives = rows(database_url, "select count(*) from perdure.runs where not superseded")
    assert lives == [({"delete": 0, "fork": 2}.get(verb, 1),)]
    assert len(rows(database_url, "select 1 from perdure.runs")) <= 2
    no_orphans(database_url)


def test_a_hostile_export_is_refused_whole(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        app.start(worker.definition.name, [1], id="r").send(words, "go")
        app.handle("r").result(timeout=30)
        good = json.loads(app.runs.export("r"))
        app.runs.delete("r")

        def spoil(change: Callable[[dict[str, Any]], object]) -> str:
            document = json.loads(json.dumps(good))
            change(document["runs"][0])
            return json.dumps(document)

        spoilt: list[Callable[[dict[str, Any]], object]] = [
            lambda run: run["steps"][0].update(kind="nonsense"),
            lambda run: run["steps"].append(run["steps"][0]),
            lambda run: run["messages"].append(run["messages"][0]),
            lambda run: run["steps"][0].update(group=2**40),
            lambda run: run["end"].update(status="fine"),
            lambda run: run.update(key=None),
        ]
        for change in spoilt:
            with pytest.raises(ValueError, match=r"export|damaged|fine"):
                app.runs.load(spoil(change))
            assert app.runs.count() == 0
        assert app.runs.load(json.dumps(good)) == ("r",)
        with pytest.raises(WorkflowNotFound):
            app.runs.export("nobody")


def test_a_history_that_is_looked_at_is_of_one_moment(
    owner: RawWorker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded between two of its statements is in none of them: a replay of half of it would seem to diverge."""
    run = owner.start("one")
    owner.write(StepRecord(run, "1", 1, 0, 1, "work", False, b"1"))
    plainly = claims.load_histories

    def meanwhile(connection: Any, database: Any, runs: Any) -> None:
        owner.write(StepRecord(run, "0", 2, 0, 1, "work", False, b"1"))
        plainly(connection, database, runs)

    monkeypatch.setattr(claims, "load_histories", meanwhile)
    ((found, end),) = claims.look_at(owner.database, [run])
    assert ([told[0] for told in found.steps], end) == (["1"], None)
    assert rows(database_url, "select count(*) from perdure.steps") == [(2,)]
