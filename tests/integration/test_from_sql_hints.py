"""What SQL does is announced at its commit, on the channel that workers listen to; and the caller can turn that off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from perdure import sync, workflow
from perdure.store.database import Database
from perdure.store.migrate import migrate
from perdure.worker import producer
from tests.api_tools import rows, until
from tests.integration.test_hostile_schema_names import NAMES
from tests.protocol_tools import stranger

pytestmark = pytest.mark.session


@workflow(name="hints.quick")
def quick() -> str:
    return "done"


@pytest.fixture
def database(database_url: str) -> Database:
    """A migrated database in which nobody works."""
    found = Database(database_url)
    migrate(found, apply=True)
    found.close()
    return found


@contextmanager
def listening(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(sql.SQL("listen {}").format(sql.Identifier(database.channel)))
        yield connection


def heard(connection: psycopg.Connection[Any]) -> list[str]:
    """What has been said up to now: the mark is said by the listener itself, after all the rest."""
    channel = connection.execute("select perdure.channel()").fetchone()
    assert channel is not None
    connection.execute("select pg_notify(%s, 'mark')", (channel[0],))
    said: list[str] = []
    for notification in connection.notifies(timeout=10):
        if notification.payload == "mark":
            return said
        said.append(notification.payload)
    raise AssertionError("the mark was not heard")


@pytest.mark.parametrize("name", [*NAMES, "y" * 55, "y" * 56, "é" * 27 + "x", "é" * 28])
def test_sql_and_python_name_the_same_channel(name: str, database_url: str) -> None:
    """Whatever the schema is called."""
    database = Database(database_url, schema=name)
    migrate(database, apply=True)
    database.close()
    statement = sql.SQL("select {}.channel()").format(sql.Identifier(name))
    with listening(database) as connection:  # so it is none that Postgres finds too long
        assert connection.execute(statement).fetchone() == (database.channel,)


def test_each_says_what_there_is_to_do_at_its_commit(database: Database) -> None:
    """Not before, and not after a rollback."""
    with listening(database) as ear, stranger(database.url) as connection:
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        connection.rollback()
        assert heard(ear) == []
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        assert heard(ear) == []
        connection.commit()
        assert heard(ear) == ["0 work"]
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        connection.commit()
        assert heard(ear) == []  # it was there
        connection.execute("select perdure.send('a', 't', '1')")
        connection.commit()
        assert heard(ear) == ["0 mail work"]
        connection.execute("select perdure.cancel('a')")
        connection.commit()
        assert heard(ear) == ["0 cancel ended"]


@pytest.mark.parametrize(
    "how", ["set perdure.hints = off", "set local perdure.hints = 'No'", "set perdure.hints = 0"]
)
def test_it_can_be_turned_off(how: str, database: Database) -> None:
    """For a session or a transaction; then nothing is said, and all is done."""
    with listening(database) as ear, stranger(database.url) as connection:
        connection.execute(how.encode())
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        connection.execute("select perdure.send('a', 't', '1')")
        connection.execute("select perdure.cancel('a')")
        connection.commit()
        assert heard(ear) == []
        connection.execute("set perdure.hints = on")
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"b\"}')")
        connection.commit()
        assert heard(ear) == ["0 work"]


def test_an_idle_worker_needs_no_poll(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """With polls a minute apart, a run that was started by SQL is executed at once."""
    monkeypatch.setattr(producer, "POLL_SECONDS", 60.0)
    with sync.Perdure(database_url, grace=0) as app:
        until(lambda: rows(database_url, "select 1 from pg_stat_activity where query ilike 'listen%'"))
        app.start("hints.quick", queue="default").result(10)  # whatever its first looks were, they are over
        for _ in range(5):
            began = time.monotonic()
            ((id,),) = rows(database_url, "select perdure.start('hints.quick')")
            assert app.handle(id).result(20) == "done"
            assert time.monotonic() - began < 20


def test_without_hints_the_poll_finds_it(database_url: str) -> None:
    """NOTIFY is a hint, polling is the truth."""
    with sync.Perdure(database_url, grace=0) as app:
        ((_, id),) = rows(
            database_url, "select set_config('perdure.hints', 'off', false), perdure.start('hints.quick')"
        )
        assert app.handle(id).result(20) == "done"
