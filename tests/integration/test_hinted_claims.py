"""A hint has the worker claim where there was work before it looks again; and no claim is wrong because a look is old."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from perdure import Queue, sync, workflow
from perdure.store import queues
from perdure.store.claiming import Claimant, Look
from perdure.worker.claimer import Claimer
from tests.api_tools import rows, until
from tests.protocol_tools import RawWorker, start_of

OPTIONS = (
    '{"queue": "default"}',
    """{"queue": "other", "key": "a", "priority": -3, "delay": 60, "timeout": 90, "expires": 70, "version": "7",
        "tags": {"tenant": "a"}, "context": {"trace": "1"}}""",
    '{"home": "other", "timeout": 90, "version": "7", "tags": {}}',
)
BORN = """
select r.id, r.workflow, r.input, r.parent, r.position, r.queue, r.queue_key, r.version, r.tags, r.context,
       l.workflow, l.status, l.worker = r.worker, l.queue, l.queue_key, l.dedup, l.priority, l.arrival > 0,
       round(extract(epoch from l.ready - r.created)), round(extract(epoch from l.deadline - r.created)),
       round(extract(epoch from l.expires - r.created)), l.begun, l.version, l.parent
from perdure.runs r join perdure.live l using (key)
"""


@workflow(name="hinted.job")
def job(number: int) -> int:
    return number


@pytest.mark.parametrize("options", OPTIONS)
def test_one_start_writes_the_same_in_both_forms(options: str, database_url: str) -> None:
    """As one statement, and as a batch of any kind."""
    born = []
    for single in (True, False):
        with RawWorker(database_url, single=single) as owner:
            record = start_of(owner.key(), "the-run", options=options)
            owner.write(record)
            born.append(rows(database_url, BORN))
            owner.connection.execute("delete from perdure.live")
            owner.connection.execute("delete from perdure.runs")
    assert born[0] == born[1]
    assert len(born[0]) == 1


def test_client_starts_without_a_fence_and_a_dead_worker_not_at_all(database_url: str) -> None:
    """The one statement of a start holds the fence, where its writer has one."""
    with RawWorker(database_url) as owner, sync.Perdure(database_url, worker=False) as client, client.bind():
        sync.start(job.options(id="by-client"), 1)
        owner.expire()
        owner.bury()
        with pytest.raises(psycopg.Error, match="no longer alive"):
            owner.write(start_of(owner.key(), "by-dead", options=OPTIONS[0]))
    assert rows(database_url, "select id, worker from perdure.runs") == [("by-client", None)]


@pytest.mark.session
def test_hinted_work_is_claimed_before_the_next_look(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that find nothing any more: what is like the last run is claimed all the same."""
    with sync.Perdure(database_url) as worker, sync.Perdure(database_url, worker=False) as client:
        producer = worker.engine.producer
        with client.bind():
            assert sync.start(job, 1).result(20) == 1  # a look found it
        until(lambda: producer._drained)
        look, looked = producer.claimer.look, threading.Event()

        def blind(*args: Any, **how: Any) -> Look:
            looked.set()
            return replace(look(*args, **how), groups={})

        monkeypatch.setattr(producer.claimer, "look", blind)
        with client.bind():
            handle = sync.start(job, 2)
            assert handle.result(20) == 2
        assert looked.wait(20), "after it, it looks"


def test_old_look_does_not_claim_past_new_limits(database_url: str) -> None:
    """Limits that came after the look: nothing is claimed until they are counted."""
    with RawWorker(database_url) as owner:
        for number in range(5):
            owner.write(start_of(owner.key(), f"r{number}", options='{"queue": "q"}'))
        claimer, who = Claimer(owner.database), Claimant(owner.number, ["attacked"], None)
        found = claimer.look(owner.connection, owner.number, ["q"])
        queues.declare(owner.database, [Queue("q", concurrency=2)])
        assert not claimer.claim(owner.connection, who, found, 10)
        found = claimer.look(owner.connection, owner.number, ["q"])
        assert len(claimer.claim(owner.connection, who, found, 10)) == 2


@pytest.mark.session
def test_a_hint_while_work_waits_does_not_change_its_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place becomes free and a hint comes at once, after something urgent of which no look knows: that goes first."""
    order: list[str] = []
    door, inside = threading.Event(), threading.Event()

    @workflow(name="hinted.ordered")
    def ordered(name: str) -> None:
        order.append(name)
        inside.set()
        door.wait(20)

    with (
        sync.Perdure(database_url, concurrency=1) as worker,
        sync.Perdure(database_url, worker=False) as client,
        client.bind(),
    ):
        producer = worker.engine.producer
        monkeypatch.setattr(producer, "freed", producer.hint)
        monkeypatch.setattr(producer, "interval", 60.0)
        # A quick look would not find the urgent one.
        monkeypatch.setattr("perdure.worker.producer.SLOW_LOOK", 60.0)
        handles = [sync.start(ordered, "first")]
        assert inside.wait(20)
        handles.append(sync.start(ordered, "later"))
        until(lambda: [*producer._last.groups.values()] == [2])  # type: ignore[union-attr]
        monkeypatch.setattr(client.engine.hints, "wake", lambda: None)
        handles.append(sync.start(ordered.options(priority=-1), "urgent"))
        door.set()
        for handle in handles:
            handle.result(20)
    assert order == ["first", "urgent", "later"]
