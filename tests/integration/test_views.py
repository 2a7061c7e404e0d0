"""The views: what SQL may rely on. Their columns are those of the documentation, their words those of Python."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

import perdure
from perdure import Perdure, workflow
from perdure.models import Kind, Status
from perdure.store.database import Database
from perdure.store.migrate import migrate
from tests.api_tools import on_loop, rows
from tests.entity_tools import Account

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "sql.md"


class Refused(Exception):
    """Of this module."""


@workflow(name="views.talks")
async def talks(fails: bool) -> dict[str, int]:
    await perdure.receive("go on")
    await perdure.set_event("seen", {"n": 1})
    await perdure.write_stream("log", "line")
    await perdure.sleep(0)
    if fails:
        raise Refused('it said "no"')
    return {"total": 5}


@workflow(name="views.parent")
async def parent() -> None:
    await talks.options(id="child", send=("go on", [1])).start(False)
    await talks.handle("child").result()


@pytest.fixture
def migrated(database_url: str) -> str:
    """A database with perdure's schema."""
    database = Database(database_url)
    migrate(database)
    database.close()
    return database_url


def documented() -> list[tuple[str, str, str]]:
    found = []
    views = DOCUMENT.read_text("utf-8").partition("\n## Views")[2].partition("\n## Functions")[0]
    for part in re.split(r"^### ", views, flags=re.MULTILINE)[1:]:
        view = part.split("`")[1]
        columns = re.findall(r"^\| `(\w+)` \| ([\w\[\]]+) \|", part, flags=re.MULTILINE)
        found += [(view, column, type) for column, type in columns]
    return found


def test_columns_are_those_documented(migrated: str) -> None:
    """All views, all columns, in order, with their types."""
    statement = """select c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
        where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v' order by c.oid, a.attnum"""
    short = {"timestamp with time zone": "timestamptz"}
    assert [(v, c, short.get(t, t)) for v, c, t in rows(migrated, statement)] == documented()


def test_words_are_those_of_python(migrated: str) -> None:
    """Each status and each kind has its text; a number that is none has no text."""
    for function, words in (
        ("status_name", {status.code: status.value for status in Status}),
        ("kind_name", {kind.value: kind.name.lower() for kind in Kind}),
    ):
        asked = rows(migrated, f"select n, perdure.{function}(n::smallint) from generate_series(-1, 40) n")
        assert {number: word for number, word in asked if word} == words


def test_status_is_the_one_that_a_list_has(migrated: str) -> None:
    """Every status in `live`, asked to stop or not, and every end: as `app.runs.list` says."""
    states = [(status, cancel) for status in range(1, 7) for cancel in range(5)]
    for number, (status, cancel) in enumerate(states):
        rows(
            migrated,
            "with r as (insert into perdure.runs (key, id, workflow, input) values (%s, %s, 'w', '[]')) "
            "insert into perdure.live (key, workflow, status, cancel) values (%s, 'w', %s, %s)",
            *(number, f"l-{number}", number, status, cancel),
        )
    for code in (7, 8, 9):
        rows(
            migrated,
            "with r as (insert into perdure.runs (key, id, workflow, input) values (%s, %s, 'w', '[]')) "
            "insert into perdure.ends (key, status, value) values (%s, %s, 'no json')",
            *(code * 100, f"e-{code}", code * 100, code),
        )
    with perdure.sync.Perdure(migrated, worker=False) as app:
        listed = {run.id: run.status.value for run in app.runs.list()}
    assert len(set(listed.values())) == 9
    assert dict(rows(migrated, "select id, status from perdure.run_list")) == listed
    assert rows(migrated, "select count(*) from perdure.run_list where output is not null") == [(0,)]


@on_loop
async def test_views_show_what_runs_did(database_url: str) -> None:
    """One of each: a parent, its child, a failure, messages, events, streams, workers, commands."""
    async with Perdure(database_url, name="worker one", grace=0) as app:
        await parent.options(id="parent")()
        handle = await talks.options(id="sad", tags={"a": 1}, send=("go on", 2)).start(True)
        with pytest.raises(Refused):
            await handle.result(20)
        await Account.deposit.options(id="pay")("alice", Decimal(5))
        [alive] = rows(database_url, "select name, alive, ended from perdure.worker_list")
        [child] = rows(
            database_url,
            "select id, status, parent_id, worker_name, output, input is not null, error_type from perdure.run_list "
            "where id = 'child'",
        )
        [sad] = rows(
            database_url,
            "select status, error_type, error_message, output, tags from perdure.run_list where status = 'failed'",
        )
        assert [run.id for run in await app.runs.list(error='it said "no"')] == ["sad"]
    assert alive[0].startswith("worker one")
    assert alive[1:] == (True, None)
    assert child[:3] == ("child", "succeeded", "parent")
    assert child[3].startswith("worker one")
    assert child[4:] == ({"total": 5}, True, None)
    assert sad == ("failed", f"{__name__}.Refused", 'it said "no"', None, {"a": 1})
    for statement, expected in (
        ("kind from perdure.step_list where id = 'child' order by group_number",
         ["message", "set_event", "stream", "sleep"]),
        ("value from perdure.message_list where id = 'child' and consumed_at = '1'", [[1]]),
        ("value from perdure.event_list where id = 'child' and event = 'seen'", [{"n": 1}]),
        ("value from perdure.stream_list where id = 'child' and kind = 'item'", ["line"]),
        ("alive from perdure.worker_list where ended is not null", [False]),
        ("command from perdure.command_list where id = 'pay' and run_id is null", ["bank.account.deposit"]),
    ):  # fmt: skip
        assert [value for (value,) in rows(database_url, f"select {statement}")] == expected, statement


@pytest.mark.parametrize("payload", ["\\xff", "", "{", '"\\\\u0000"', "NaN", "\\x00"])
def test_what_is_no_json_is_null(payload: str, migrated: str) -> None:
    """Bytes of a codec, half a text, what jsonb cannot hold: null, and no error for the rows around it."""
    assert rows(migrated, "select perdure.as_json(%s::bytea), perdure.as_json('[1]')", payload) == [
        (None, [1])
    ]


def test_one_id_is_found_by_the_index(migrated: str) -> None:
    """`where id = ...` reads the rows of that run, in each view of runs."""
    insert = "insert into perdure.runs (key, id, workflow, input) select n, 'r-' || n, 'w', '[]' from "
    rows(migrated, insert + "generate_series(1, 5000) n")
    rows(
        migrated,
        "insert into perdure.steps (run, position, kind, name, failed, value, attempts, seconds, worker) "
        "select n, '1', 1, 's', false, '1', 1, 0, 1 from generate_series(1, 5000) n",
    )
    rows(migrated, "analyze")
    for view in ("run_list", "step_list", "message_list", "event_list", "stream_list"):
        plan = rows(migrated, f"explain select * from perdure.{view} where id = 'r-77'")
        text = "\n".join(line for (line,) in plan)
        assert "runs_id" in text
        assert "Seq Scan on runs" not in text
        assert "Seq Scan on steps" not in text
        assert "status_code" not in text  # it is part of the query, not called


@pytest.mark.parametrize("view", ["run_list", "step_list", "message_list"])
def test_views_work_under_a_hostile_schema_name(view: str, database_url: str) -> None:
    """The names inside of functions and views are quoted."""
    schema = "we\"ird $$ it's"
    database = Database(database_url, schema)
    migrate(database)
    database.close()
    quoted = schema.replace('"', '""')
    assert rows(database_url, f'select * from "{quoted}".{view}') == []
