"""Fixtures of the whole suite: one real server a session, one fresh database a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from perdure.store.database import Database
from perdure.store.migrate import migrate
from tests.poolers import Pooler
from tests.servers import TestServer, name_of, start_server

POOLED = os.environ.get("PERDURE_TEST_POOLER") == "1"
"""Whether tests are to reach their databases through PgBouncer, where they can."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what a transaction pooler cannot give, where the suite goes through one."""
    for item in items if POOLED else ():
        if item.get_closest_marker("session"):
            item.add_marker(pytest.mark.skip("a transaction pooler gives nobody a session"))


@pytest.fixture(scope="session")
def server() -> Iterator[TestServer]:
    """A running server of the major version that PERDURE_TEST_POSTGRES names (default 18)."""
    major = int(os.environ.get("PERDURE_TEST_POSTGRES", "18"))
    try:
        running = start_server(major)
    except LookupError as missing:
        pytest.skip(f"PERDURE_TEST_POSTGRES={major}: {missing}")
    yield running
    running.close()


@pytest.fixture(scope="session")
def pooler(server: TestServer) -> Iterator[Pooler]:
    """PgBouncer in transaction mode, in front of the server."""
    try:
        running = Pooler(server)
    except LookupError as missing:
        pytest.skip(str(missing))
    yield running
    running.close()


@pytest.fixture(scope="session")
def template(server: TestServer) -> str:
    """A database that has perdure's schema and nothing in it: a copy is there sooner than the schema is made."""
    url = server.create_database()
    database = Database(url)
    migrate(database)
    database.close()
    return name_of(url)


@pytest.fixture
def database_url(
    server: TestServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of a database that is this test's alone; without perdure's schema, if the test is marked `empty`."""
    if request.node.get_closest_marker("empty"):
        url = server.create_database()
    else:
        url = server.create_database(template=request.getfixturevalue("template"))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("update perdure.identity set id = gen_random_uuid()")
    if POOLED:
        monkeypatch.setenv("PERDURE_TRANSACTION_POOLER", "yes")
        # Tests that stand beneath the app open the database themselves.
        monkeypatch.setattr(Database.__init__, "__kwdefaults__", {"pooler": True, "configure": None})
        yield request.getfixturevalue("pooler").url(url)
    else:
        yield url
    server.drop_database(url)


@pytest.fixture
def pooled_url(server: TestServer, pooler: Pooler) -> Iterator[str]:
    """The same through PgBouncer, whatever the others use."""
    url = server.create_database()
    yield pooler.url(url)
    server.drop_database(url)
