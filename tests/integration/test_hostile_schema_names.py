"""perdure's schema can have any name that Postgres takes: a whole workflow lives in it, hints included."""

from __future__ import annotations

import logging

import pytest
from psycopg import sql

from perdure import Connection, sync, transaction, workflow
from perdure.sync import Perdure
from tests.api_tools import rows, until

NAMES = [
    "two words",
    'double " quote',
    "single ' quote",
    "back \\ slash \\' and \\\\",
    "100% %s %(id)s %%",
    "$$ $perdure$ $1",
    "{schema} {schema_literal} {0}",
    "ünïcödé 🐘 名前",
    "-- comment\n/* line */ ; drop schema public",
    "CamelCase",
    "select",
    "x" * 63,
    "ä" * 31,
]


@transaction(name="schema.write")
def write(conn: Connection, text: str) -> str:
    conn.execute("insert into public.notes values (%s)", (text,))
    return text


@workflow(name="schema.child")
def child(text: str) -> str:
    sync.sleep(0.01)
    return write(text)


@workflow(name="schema.flow")
def flow(text: str) -> str:
    return child(text)


@pytest.mark.session
@pytest.mark.parametrize("name", NAMES, ids=[name.encode("unicode_escape").decode()[:20] for name in NAMES])
def test_a_whole_workflow_runs_in_it(name: str, database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Started, queued, claimed, slept, waited for a child, written in a transaction, listed and cancelled."""
    rows(database_url, "create table public.notes (text text)")
    with caplog.at_level(logging.WARNING), Perdure(database_url, schema=name, lease=5, grace=0) as app:
        assert sync.start(flow.options(id="'; drop", queue="default"), "x").result(10) == "x"
        handle = sync.start(flow.options(delay=3600), "y")
        assert handle.cancel()
        assert {run.id for run in app.runs.list(workflow="schema.flow")} == {"'; drop", handle.id}
        until(lambda: rows(database_url, "select 1 from pg_stat_activity where query ilike 'listen%'"))
    assert rows(database_url, "select text from public.notes") == [("x",)]
    assert [record.getMessage() for record in caplog.records] == []
    steps = sql.SQL("select count(*) from {}.steps").format(sql.Identifier(name)).as_string()
    assert rows(database_url, steps)[0][0] > 0


@pytest.mark.parametrize("name", ["", "x" * 64, "ä" * 32, "nul\0", "lone \ud800"])
def test_a_name_that_postgres_cannot_hold_is_refused(name: str, database_url: str) -> None:
    """Too long, empty or not text: a ValueError at once, not a shorter name."""
    with pytest.raises(ValueError, match="name"):
        Perdure(database_url, schema=name).open()
