"""An answer to a COMMIT that is lost is never taken for a failure, and what was written is never written twice.

For each kind of record, in the general form and in the single one: the server commits, the answer is lost, and the
writer, asking again over a new connection, recognises its own rows and hands out the same outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure import step, sync, workflow
from perdure.store.batch import Batch
from perdure.store.records import (
    AnsweredWait,
    EndRecord,
    HandOver,
    IntentRecord,
    Outcome,
    Park,
    PutAway,
    Record,
    Ticket,
    WaitRecord,
)
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.protocol_tools import Proxy, RawWorker, start_of, step_of
from tests.servers import TestServer


@pytest.fixture
def proxy(server: TestServer, database_url: str) -> Iterator[Proxy]:
    with Proxy(server, database_url) as made:
        yield made


def child_of(worker: RawWorker, parent: int, id: str) -> list[Record]:
    options = f'{{"parent": {parent}, "position": "1"}}'
    return [step_of(parent), start_of(worker.key(), id, options=options, parent=(parent, "1"))]


def put_away(worker: RawWorker, run: int) -> list[Record]:
    worker.write(WaitRecord(run, "1", seconds=3600))
    return [PutAway(run, {"1": None})]


def answered(worker: RawWorker, run: int) -> list[Record]:
    worker.write(WaitRecord(run, "1", seconds=3600))
    return [step_of(run), AnsweredWait(run, "1")]


Make = Callable[[RawWorker, int], list[Record]]
RECORDS: dict[str, tuple[Make, str]] = {
    "a start": (lambda w, _: [start_of(w.key(), "other")], "select count(*) from perdure.runs"),
    "a step": (lambda _, run: [step_of(run)], "select count(*) from perdure.steps"),
    "an end": (lambda _, run: [EndRecord(run, 7, b"1")], "select count(*) from perdure.ends"),
    "a step and an end": (
        lambda _, run: [step_of(run), EndRecord(run, 7, b"1")],
        "select count(*) from perdure.steps, perdure.ends",
    ),
    "a queued start": (
        lambda w, _: [start_of(w.key(), "other", options='{"queue": "default"}')],
        "select count(*) from perdure.live where status = 2",
    ),
    "a child": (
        lambda w, run: child_of(w, run, "child"),
        "select count(*) from perdure.runs where parent > 0",
    ),
    "a wait": (lambda _, run: [WaitRecord(run, "1", seconds=9)], "select count(*) from perdure.waits"),
    "an answered wait": (answered, "select count(*) from perdure.steps"),
    "an intent": (lambda _, run: [IntentRecord(run, "1", "pay")], "select count(*) from perdure.intents"),
    "a put-away": (put_away, "select count(*) from perdure.live where status = 4"),
    "a hand-over": (lambda _, run: [HandOver(run)], "select count(*) from perdure.live where status = 2"),
    "a park": (lambda _, run: [Park(run, "why")], "select count(*) from perdure.live where status = 6"),
}
SINGLE_TAGS = "INSERT 0 1|COMMIT"


@pytest.mark.parametrize("single", [True, False], ids=["single form", "pipeline"])
@pytest.mark.parametrize("kind", RECORDS)
def test_a_lost_answer_is_found_again(kind: str, single: bool, proxy: Proxy, database_url: str) -> None:
    """Committed, answer lost, sent again: WON, written once; and sent a third time it is still the same."""
    make, count = RECORDS[kind]
    with RawWorker(proxy.url) as owner:
        run = owner.start("the-run")
        before = rows(database_url, count)[0][0]
        records = make(owner, run)
        journal = _journal_of(owner, single=single)
        loss = proxy.lose_answer("perdure journal", SINGLE_TAGS if single else "COMMIT")
        ticket = Ticket(*records)
        journal.submit([ticket])
        assert ticket.wait_blocking(20)
        ticket.check()
        assert loss.happened.is_set(), "the test lost no answer"
        assert [record.outcome for record in records] == [Outcome.WON] * len(records)
        assert rows(database_url, count)[0][0] - before == 1
        journal.stop()


@pytest.mark.parametrize("single", [True, False], ids=["single form", "pipeline"])
def test_a_silent_connection_is_given_up_in_time(single: bool, proxy: Proxy, database_url: str) -> None:
    """The answer never comes and the connection stays open: after its bound the batch is sent over another one."""
    with RawWorker(proxy.url) as owner:
        run = owner.start("the-run")
        journal = _journal_of(owner, single=single, answer_within=0.3)
        proxy.lose_answer("perdure journal", SINGLE_TAGS if single else "COMMIT", cut=False)
        ticket = Ticket(step_of(run), EndRecord(run, 7, b"1"))
        journal.submit([ticket])
        assert ticket.wait_blocking(5)
        ticket.check()
        assert [record.outcome for record in ticket.records] == [Outcome.WON] * 2
        journal.stop()


def test_a_start_that_finds_its_id_taken_stays_attached(proxy: Proxy, database_url: str) -> None:
    """Created by somebody else before: the repeated start answers the same as the lost one."""
    with RawWorker(proxy.url) as owner:
        first = owner.start("taken")
        journal = _journal_of(owner, single=False)
        proxy.lose_answer("perdure journal")
        record = start_of(owner.key(), "taken")
        ticket = Ticket(record)
        journal.submit([ticket])
        assert ticket.wait_blocking(20)
        assert (record.outcome, record.found) == (Outcome.ATTACHED, (first, "attacked"))
        journal.stop()


def test_what_a_connection_lost_on_its_way_is_written_once(proxy: Proxy, database_url: str) -> None:
    """Cut before the server saw the batch, it is simply sent again."""
    with RawWorker(proxy.url) as owner:
        run = owner.start("the-run")
        journal = _journal_of(owner, single=True)
        warm = Ticket(step_of(run, "0"))
        journal.submit([warm])
        assert warm.wait_blocking(20)
        proxy.refuse("perdure journal")
        ticket = Ticket(step_of(run), EndRecord(run, 7, b"1"))
        journal.submit([ticket])
        assert not ticket.wait_blocking(0.1)
        proxy.release()
        assert ticket.wait_blocking(20)
        assert {record.outcome for record in ticket.records} == {Outcome.WON}
        journal.stop()


def _journal_of(owner: RawWorker, *, single: bool, answer_within: float = 10) -> Any:
    """A journal that writes as this worker."""
    from perdure.store.batch import BatchWriter
    from perdure.store.journal import Journal
    from perdure.store.writing import JournalHooks

    writer = BatchWriter(owner.database.statements, owner.number, 0, single_form=single)
    hooks = JournalHooks(owner.database.connect, lambda: None, _ignore)
    journal = Journal(writer, hooks, name="journal", answer_within=answer_within)
    journal.start()
    return journal


def _ignore(_: Batch) -> None:
    return None


# -- a run in two lives ------------------------------------------------------------------------------

bodies: list[str] = []


@step(name="lost.after")
def after() -> str:
    bodies.append(threading.current_thread().name)
    return "done"


@workflow(name="lost.sleeper")
def sleeper() -> str:
    sync.sleep(1)
    return after()


def test_put_away_whose_answer_is_lost_does_not_leave_the_run_running_twice(
    proxy: Proxy, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is put away, woken and claimed again before the answer is missed: its first life stays over."""
    bodies.clear()
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.3)
    with Perdure(proxy.url, lease=2, grace=0) as app:
        handle = sync.start(sleeper)
        until(lambda: rows(database_url, "select 1 from perdure.waits"))
        loss = proxy.lose_answer("perdure journal", cut=False)
        assert loss.happened.wait(10)
        assert rows(database_url, "select status from perdure.live") == [(4,)], "it was not the put-away's"
        assert handle.result(20) == "done"
        until(lambda: not app.engine.executor.count)
    assert bodies == bodies[:1], "the body ran in both lives"
    assert rows(database_url, "select count(*) from perdure.steps where name = 'lost.after'") == [(1,)]
