"""A batch or a transaction step of a worker that was declared dead meanwhile leaves nothing behind, starts included.

It may stand still anywhere: on somebody's lock, before its fence, between its last statement and COMMIT. Either
the funeral ends it, or it comes to the fence too late; in no order does anything of it count.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from perdure import Connection, sync, transaction, workflow
from perdure.store import workers
from perdure.store.records import EndRecord, Ticket, WaitRecord
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.claim_tools import poll as poll_by_hand
from tests.protocol_tools import Proxy, RawWorker, in_thread, start_of, step_of, stranger, take_id
from tests.servers import TestServer


@pytest.fixture(autouse=True)
def impatient_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FUNERAL_LOCK_TIMEOUT", 0.1)


@pytest.fixture
def zombie(database_url: str) -> Iterator[RawWorker]:
    """A worker that is about to be declared dead, and owns one run."""
    with RawWorker(database_url) as worker:
        worker.start("mine")
        yield worker


def batch_of_everything(worker: RawWorker, mine: int) -> list[Ticket]:
    """A start whose id a stranger may hold, a start, a step, a wait and an end."""
    return [
        Ticket(start_of(worker.key(), "a-contested")),
        Ticket(start_of(worker.key(), "b-free")),
        Ticket(step_of(mine), WaitRecord(mine, "2", seconds=5)),
        Ticket(EndRecord(mine, 7, b"1")),
    ]


def what_counts(url: str) -> tuple[list[Any], ...]:
    return (
        rows(url, "select id from perdure.runs where id !~ '^mine'"),
        rows(url, "select position from perdure.steps"),
        rows(url, "select position from perdure.waits"),
        rows(url, "select key from perdure.ends"),
    )


NOTHING: tuple[list[Any], ...] = ([], [], [], [])


def blocked(url: str, application: str) -> bool:
    return bool(
        rows(
            url,
            "select 1 from pg_stat_activity where application_name = %s and wait_event_type = 'Lock'",
            application,
        )
    )


def test_batch_that_waits_for_a_lock_is_ended_by_the_funeral(zombie: RawWorker, database_url: str) -> None:
    """A batch with the fence in its hands, stalled on a stranger's id: nothing of it is committed."""
    (mine,) = zombie.database.run("owned_runs", {"worker": zombie.number})[0]
    with stranger(database_url) as somebody:
        take_id(somebody, "a-contested")
        batch = in_thread(lambda: zombie.write_tickets(batch_of_everything(zombie, mine)))
        until(lambda: blocked(database_url, "perdure raw"))
        zombie.expire()
        zombie.bury()
        assert isinstance(batch.error(), psycopg.OperationalError)
    assert what_counts(database_url) == NOTHING
    assert zombie.requeue() == [mine]


def test_batch_that_reaches_its_fence_too_late_is_refused(server: TestServer, database_url: str) -> None:
    """A batch kept back on its way until its worker is dead gets PD001, as a pipeline and in each single form."""
    with Proxy(server, database_url) as proxy, RawWorker(proxy.url) as zombie:
        mine = [zombie.start(f"mine-{number}") for number in range(4)]
        batches: list[tuple[Ticket, ...]] = [
            tuple(batch_of_everything(zombie, mine[0])),
            (Ticket(start_of(zombie.key(), "single")),),
            (Ticket(step_of(mine[1])),),
            (Ticket(EndRecord(mine[2], 7, b"1")),),
            (Ticket(step_of(mine[3]), EndRecord(mine[3], 7, b"1")),),
        ]
        proxy.hold("perdure raw")
        first = in_thread(lambda: zombie.write_tickets(list(batches[0])))
        with RawWorker(database_url) as reaper:
            zombie.expire()
            assert reaper.bury() == [zombie.number]
        proxy.release()
        errors = [first.error()] + [
            in_thread(partial(zombie.write_tickets, list(batch))).error() for batch in batches[1:]
        ]
    assert [getattr(error, "sqlstate", None) for error in errors] == ["PD001"] * 5
    assert what_counts(database_url) == NOTHING


def test_pipeline_that_stops_before_its_commit_is_ended_by_the_funeral(
    server: TestServer, database_url: str
) -> None:
    """Everything but COMMIT has reached the server, and the client stands still: no timeout of Postgres ends that."""
    with Proxy(server, database_url) as proxy, RawWorker(proxy.url, single=False) as zombie:
        mine = zombie.start("mine")
        proxy.hold("perdure raw", before=b"commit")
        # The first batch prepared its COMMIT; a new connection has to name it again.
        zombie.connection.close()
        zombie.connection = zombie.database.connect("raw")
        batch = in_thread(lambda: zombie.write_tickets(batch_of_everything(zombie, mine)))
        holds_fence = (
            "select 1 from pg_stat_activity where application_name = 'perdure raw' and state = 'active' "
            "and backend_xid is not null"
        )
        until(lambda: rows(database_url, holds_fence))
        with RawWorker(database_url) as reaper:
            zombie.expire()
            reaper.bury()
            assert reaper.requeue() == [mine]
        proxy.release()
        assert isinstance(batch.error(), psycopg.OperationalError)
    assert what_counts(database_url) == NOTHING


def test_funeral_waits_for_a_commit_that_is_under_way(zombie: RawWorker, database_url: str) -> None:
    """A batch that commits before the funeral counts in full: its run is requeued with the step in its history."""
    (mine,) = zombie.database.run("owned_runs", {"worker": zombie.number})[0]
    zombie.write(step_of(mine))
    zombie.expire()
    assert zombie.bury() == [zombie.number]
    assert zombie.requeue() == [mine]
    assert rows(database_url, "select position from perdure.steps") == [("1",)]
    assert rows(database_url, "select recoveries from perdure.live") == [(1,)]


def test_dead_worker_claims_nothing(zombie: RawWorker, database_url: str) -> None:
    """A claim by a worker without a fence takes no run."""
    zombie.expire()
    zombie.bury()
    zombie.requeue()
    found = poll_by_hand(zombie, "attacked")
    assert not found
    assert rows(database_url, "select status from perdure.live") == [(2,)]


# -- transaction steps -------------------------------------------------------------------------------

entered = threading.Semaphore(0)
doors: list[threading.Event] = []


def book(conn: Connection, isolation: str) -> int:
    conn.execute("insert into bookings values (%s)", (isolation,))
    entered.release()
    if doors:
        doors.pop().wait(30)
    return len(conn.execute("select 1 from bookings").fetchall())


def body_of(isolation: Any) -> Any:
    @transaction(name=f"zombie.{isolation}", isolation=isolation)
    def booked(conn: Connection, isolation: str) -> int:
        return book(conn, isolation)

    return booked


LEVELS = ("read committed", "repeatable read", "serializable")
BODIES = {level: body_of(level) for level in LEVELS}


@workflow(name="zombie.books")
def books(level: str) -> int:
    count: int = BODIES[level](level)
    return count


@pytest.mark.parametrize("level", LEVELS)
def test_transaction_step_of_a_dead_worker_writes_nothing(level: str, database_url: str) -> None:
    """Declared dead in the middle of its body, at any isolation: only the next life's writes are there, once."""
    rows(database_url, "create table bookings (level text)")
    door = threading.Event()
    doors.append(door)
    with Perdure(database_url, lease=30, grace=0) as app:
        first_life = app.runtime.worker
        handle = sync.start(books, level)
        assert entered.acquire(timeout=30)
        with RawWorker(database_url) as reaper:
            rows(
                database_url,
                "update perdure.workers set expires = perdure.clock() - interval '1 s' where id = %s",
                first_life,
            )
            reaper.bury()
            reaper.requeue()
        door.set()
        assert handle.result(timeout=20) == 1
        assert app.runtime.worker != first_life
        (step,) = handle.steps()
        assert step.worker != first_life
    assert rows(database_url, "select count(*) from bookings") == [(1,)]
    assert entered.acquire(timeout=1), "the second life ran the body too"
