"""A cancel and an end meet on one row: exactly one of them wins, and every answer agrees with the table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from perdure import step, sync, workflow
from perdure.errors import WorkflowCancelled
from perdure.models import CancelReason
from perdure.serial import encode_failure
from perdure.store import claims, operations
from perdure.store.records import EndRecord, Outcome, PutAway, WaitRecord
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.protocol_tools import Proxy, RawWorker, in_thread, stranger
from tests.servers import TestServer

ERROR = encode_failure(WorkflowCancelled("cancelled before it began"))


@pytest.fixture(params=[True, False], ids=["single form", "pipeline"])
def owner(request: pytest.FixtureRequest, database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url, single=request.param) as worker:
        yield worker


def cancel(owner: RawWorker, run: int) -> list[int]:
    return operations.cancel(owner.database, [run], CancelReason.ASKED, ERROR)


def test_cancel_before_the_end_makes_the_end_wait_for_its_answer(owner: RawWorker) -> None:
    """Asked first: the end does not stand, and says why; the end that answers the cancel does."""
    run = owner.start()
    assert cancel(owner, run) == [run]
    end = EndRecord(run, 7, b"1")
    owner.write(end)
    assert (end.outcome, end.cancel) == (Outcome.CANCELLED, int(CancelReason.ASKED))
    answer = EndRecord(run, 9, ERROR, regardless=True)
    owner.write(answer)
    assert answer.outcome is Outcome.WON
    assert rows(owner.database.url, "select status from perdure.ends") == [(9,)]


def test_cancel_after_the_end_is_too_late(owner: RawWorker) -> None:
    """Ended first: the cancel reaches nobody."""
    run = owner.start()
    owner.write(EndRecord(run, 7, b"1"))
    assert cancel(owner, run) == []
    assert rows(owner.database.url, "select status from perdure.ends") == [(7,)]


def test_cancel_while_the_end_is_open_waits_and_is_too_late(owner: RawWorker, database_url: str) -> None:
    """The end is written but not committed: the cancel waits for it."""
    run = owner.start()
    with owner.database.connect("ending") as ending:
        with ending.transaction():
            ending.execute("select 1 from perdure.live where key = %s for update", (run,))
            ending.execute("delete from perdure.live where key = %s and cancel = 0", (run,))
            cancelling = in_thread(lambda: cancel(owner, run))
            until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        assert cancelling.result() == []


def test_end_while_the_cancel_is_open_waits_and_is_refused(owner: RawWorker, database_url: str) -> None:
    """The cancel is written but not committed: the end waits for it, and does not stand."""
    run = owner.start()
    end = EndRecord(run, 7, b"1")
    statements = owner.database.statements
    with owner.database.connect("cancelling") as cancelling, cancelling.transaction():
        batch = {"keys": [run]}
        cancelling.execute(statements["lock_runs_for_cancel"], batch)
        cancelling.execute(statements["ask_cancel"], batch | {"cancel": 1})
        ending = in_thread(lambda: owner.write(end))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
    ending.result()
    assert end.outcome is Outcome.CANCELLED


def test_fifty_races_have_one_winner_each(owner: RawWorker, database_url: str) -> None:
    """End and cancel at once: the cancel was told that it was in time if, and only if, the end was refused."""
    for _ in range(50):
        run, end = owner.start(), EndRecord(0, 7, b"1")
        end.run = run
        cancelling = in_thread(partial(cancel, owner, run))
        owner.write(end)
        in_time = cancelling.result() == [run]
        assert in_time == (end.outcome is Outcome.CANCELLED)
        assert in_time == (rows(database_url, "select 1 from perdure.ends where key = %s", run) == [])


def test_cancel_before_the_put_away_keeps_the_run_awake(owner: RawWorker) -> None:
    """A run that is to be cancelled is not put away: its owner tells it."""
    run = owner.start()
    owner.write(WaitRecord(run, "1", seconds=3600))
    cancel(owner, run)
    away = PutAway(run, {"1": None})
    owner.write(away)
    assert away.outcome is Outcome.STAY
    assert rows(owner.database.url, "select status, cancel from perdure.live") == [(3, 1)]


def test_cancel_after_the_put_away_wakes_the_run(owner: RawWorker) -> None:
    """A waiting run is woken to be told, and the end of its child at the same time changes nothing of that."""
    child, run = owner.start(), owner.start()
    owner.write(WaitRecord(run, "1", target=child))
    owner.write(PutAway(run, {"1": None}))
    owner.write(EndRecord(child, 7, b"1"))
    assert cancel(owner, run) == [run]
    assert claims.wake_waiters(owner.database, [child]) == []
    assert rows(owner.database.url, "select status, cancel from perdure.live") == [(2, 1)]


@step(name="cancel.nothing")
def nothing() -> None:
    return None


@workflow(name="cancel.sleeper")
def sleeper() -> None:
    sync.sleep(3600)
    nothing()


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "unbegun"])
def test_cancel_whose_answer_is_lost_says_so(begun: bool, server: TestServer, database_url: str) -> None:
    """The COMMIT of the cancel is not answered: asked again, it still says that it was in time, and the run ends."""
    with Proxy(server, database_url) as proxy, Perdure(database_url, lease=5, grace=0) as app:
        with app.bind():
            handle = sync.start(sleeper if begun else sleeper.options(delay=3600))
            until(lambda: rows(database_url, "select 1 from perdure.live where status in (1, 4)"))
        with Perdure(proxy.url, worker=False) as client:
            loss = proxy.lose_answer("perdure query")
            assert client.handle(handle.id).cancel()
            assert loss.happened.is_set()
        with app.bind(), pytest.raises(WorkflowCancelled):
            handle.result(10)


def test_second_cancel_of_a_run_that_is_stopping_is_in_time_too(owner: RawWorker) -> None:
    """Whoever asks again before the run has ended hears that it was asked for, not that it is too late."""
    run = owner.start()
    assert cancel(owner, run) == [run]
    assert cancel(owner, run) == [run]


def test_cancel_of_a_run_that_a_stranger_holds_is_answered_in_the_end(
    owner: RawWorker, database_url: str
) -> None:
    """A stranger's lock on the run delays the cancel, and does not make it lie."""
    run = owner.start()
    with stranger(database_url) as somebody:
        somebody.execute("select 1 from perdure.live where key = %s for update", (run,))
        cancelling = in_thread(lambda: cancel(owner, run))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        assert cancelling.going_on
    assert cancelling.result() == [run]
