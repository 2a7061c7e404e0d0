"""The suite's own servers keep what they promise: fresh databases, real restarts, real kills, TCP."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.embedded_users import one, run
from tests.servers import TestServer, binaries_of, start_server


@pytest.fixture(scope="module", params=[18, 15])
def private(request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """A server that these tests may kill."""
    if binaries_of(request.param) is None:
        pytest.skip(f"no binaries of Postgres {request.param} on this machine")
    server = start_server(request.param)
    yield server
    server.close()


def test_database_is_empty(database_url: str) -> None:
    """A test's database has no tables."""
    assert one(database_url, "select count(*) from pg_tables where schemaname = 'public'") == 0


def test_databases_are_apart(server: TestServer) -> None:
    """What one database has, the next has not; dropping one works while it is in use."""
    first, second = server.create_database(), server.create_database()
    run(first, "create table mine ()")
    assert one(second, "select to_regclass('mine')") is None
    with psycopg.connect(first, autocommit=True):
        server.drop_database(first)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)
    server.drop_database(second)


def test_tcp_reaches_the_same_database(private: TestServer) -> None:
    """The URL over TCP names the same server and database."""
    url = private.create_database()
    run(url, "create table here ()")
    assert one(private.tcp(url), "select to_regclass('here')::text") == "here"
    assert one(private.tcp(url), "select inet_server_addr() is not null") is True


def test_server_waits_for_the_disk(private: TestServer) -> None:
    """The suite does not buy speed with durability."""
    assert [one(private.url, f"show {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_is_a_new_server_with_the_old_rows(private: TestServer, mode: str) -> None:
    """Both ways to end a server keep what was committed."""
    url = private.create_database()
    run(url, "create table kept as select 7 as value")
    before = private.pid()
    private.restart(mode)  # type: ignore[arg-type]
    assert private.pid() != before
    assert one(url, "select value from kept") == 7


def test_killed_server_refuses_until_started(private: TestServer) -> None:
    """After kill nobody answers, by no way; after start all is back."""
    url = private.create_database()
    run(url, "create table kept as select 7 as value")
    private.kill()
    for gone in (url, private.tcp(url)):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(gone)
    private.start()
    assert one(private.tcp(url), "select value from kept") == 7


def test_stopped_server_starts_again(private: TestServer) -> None:
    """Stop is orderly, and start brings back the same databases."""
    url = private.create_database()
    private.stop()
    private.start()
    assert one(url, "select 1") == 1
