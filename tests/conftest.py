"""Fixtures of the whole suite: one real server a session, one fresh database a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import TestServer, start_server


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


@pytest.fixture
def database_url(server: TestServer) -> Iterator[str]:
    """The URL of a database that is empty and this test's alone."""
    url = server.create_database()
    yield url
    server.drop_database(url)
