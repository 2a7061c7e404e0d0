"""`kill -9` of Postgres in the middle of commits: what was acknowledged is there, what was not ends exactly once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from perdure import Connection, step, sync, transaction, workflow
from perdure.store.journal import Journal
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.protocol_tools import Background, in_thread
from tests.servers import TestServer, start_server

bodies: list[str] = []


@pytest.fixture
def mortal() -> Iterator[TestServer]:
    """A server of this test's own, to kill."""
    server = start_server(int(os.environ.get("PERDURE_TEST_POSTGRES", "18")))
    try:
        yield server
    finally:
        server.start()
        server.close()


@step(name="killed.plain")
def plain(number: int) -> int:
    bodies.append(f"plain {number}")
    return number


@transaction(name="killed.write")
def write(conn: Connection, number: int) -> int:
    conn.execute("insert into written values (%s)", (number,))
    return number


@workflow(name="killed.flow")
def flow(number: int) -> int:
    return plain(number) + write(number) + plain(-number)


def test_runs_that_postgres_left_in_the_middle_end_once(mortal: TestServer) -> None:
    """Sixty runs under way, the server killed twice and restarted: every one ends, every write is there once."""
    url = mortal.create_database()
    rows(url, "create table written (number int)")
    with Perdure(url, lease=5, grace=0):
        acknowledged: dict[str, sync.Handle[int]] = {}

        def keep_starting() -> None:
            for number in range(60):
                id = f"run-{number}"
                acknowledged[id] = sync.start(flow.options(id=id), number)

        starting = in_thread(keep_starting)
        for _ in range(2):
            enough = len(acknowledged) + 10
            until(partial(_reached, acknowledged, enough, starting))
            mortal.kill()
            mortal.start()
        starting.result(60)
        assert [handle.result(60) for handle in acknowledged.values()] == list(range(60))
    assert sorted(rows(url, "select number from written")) == [(number,) for number in range(60)]
    assert rows(url, "select count(*) from perdure.ends where status = 7") == [(60,)]
    assert rows(url, "select count(*) from perdure.live") == [(0,)]


def _reached(acknowledged: dict[str, sync.Handle[int]], enough: int, starting: Background) -> bool:
    return len(acknowledged) >= enough or not starting.going_on


def test_batch_under_way_when_postgres_dies_is_written_once(
    mortal: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies right before a batch is sent: its callers wait, and are answered after the restart."""
    url = mortal.create_database()
    rows(url, "create table written (number int)")
    killed: list[bool] = []
    connected = Journal._connected

    def kill_once(journal: Journal) -> object:
        connection = connected(journal)
        if not killed and journal.sent_at is not None and bodies:
            killed.append(True)
            mortal.kill()
            mortal.start()
        return connection

    bodies.clear()
    with Perdure(url, lease=5, grace=0):
        monkeypatch.setattr(Journal, "_connected", kill_once)
        assert sync.start(flow, 7).result(60) == 7
    assert killed
    assert rows(url, "select number from written") == [(7,)]
    assert bodies.count("plain 7") == 1
