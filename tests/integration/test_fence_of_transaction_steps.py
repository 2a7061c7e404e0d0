"""Law 5: a transaction step takes the fence at its beginning, and with it nobody declares its worker dead until its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from perdure import Connection, sync, transaction, workflow
from perdure.sync import Perdure
from tests.api_tools import rows
from tests.protocol_tools import RawWorker

entered = threading.Semaphore(0)
door = threading.Event()
bodies: list[str] = []


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    bodies.clear()
    door.clear()
    while entered.acquire(blocking=False):
        pass
    rows(database_url, "create table entries (text text not null)")
    yield database_url
    door.set()


@transaction(name="fenced.write")
def write(conn: Connection) -> None:
    bodies.append("write")
    conn.execute("insert into entries values ('written')")


@workflow(name="fenced.late")
def late() -> None:
    entered.release()
    door.wait(20)
    write()


def test_step_of_a_worker_that_was_declared_dead_does_not_begin(url: str) -> None:
    """It has no record to write before: its own fence is the first that tells the zombie."""
    with Perdure(url, lease=30, grace=0) as app, RawWorker(url) as reaper:
        zombie = app.engine.incarnation
        handle = sync.start(late)
        assert entered.acquire(timeout=10)
        expired = "update perdure.workers set expires = perdure.clock() - interval '1 s' where id = %s"
        rows(url, expired, zombie.worker)
        assert reaper.bury() == [zombie.worker]
        assert zombie.alive()
        door.set()
        reaper.requeue()
        handle.result(20)
        assert app.engine.incarnation is not zombie
        assert rows(url, "select worker from perdure.steps where kind = 2") == [
            (app.engine.incarnation.worker,)
        ]
    assert bodies == ["write"]
    assert rows(url, "select text from entries") == [("written",)]


def _held(conn: Connection) -> None:
    conn.execute("savepoint one")
    conn.execute("insert into entries values ('undone')")
    conn.execute("rollback to savepoint one")
    conn.execute("insert into entries values ('held')")
    entered.release()
    door.wait(20)


held = {
    isolation: transaction(name=f"fenced.{isolation}", isolation=isolation)(_held)
    for isolation in (None, "repeatable read", "serializable")
}


@workflow(name="fenced.standing")
def standing(isolation: str | None) -> None:
    held[isolation]()


@pytest.mark.parametrize("isolation", held)
def test_nobody_is_declared_dead_while_a_transaction_step_is_open(isolation: str | None, url: str) -> None:
    """Not even after the body has gone back to a savepoint: the fence was taken before it."""
    with Perdure(url, lease=30) as app:
        handle = sync.start(standing, isolation)
        assert entered.acquire(timeout=10)
        with psycopg.connect(url) as reaper:
            reaper.execute("set local lock_timeout = 300")
            unfenced = "delete from perdure.fences where worker = %s"
            with pytest.raises(psycopg.errors.LockNotAvailable):
                reaper.execute(unfenced, (app.engine.incarnation.worker,))
            reaper.rollback()
            door.set()
            handle.result(20)
    assert rows(url, "select text from entries") == [("held",)]
