"""`perdure.start` in SQL: the same rows as a start from Python, in the caller's transaction, with clear errors."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import perdure
from perdure import Retry, step, sync, workflow
from tests.api_tools import rows, until
from tests.protocol_tools import in_thread, stranger


@workflow(name="sql.add")
def add(a: int, b: int = 10, *, sign: int = 1) -> int:
    return sign * (a + b)


@workflow(name="sql.hear")
async def hear(topic: str = "t") -> Any:
    return await perdure.receive(topic)


@step(retry=Retry(max_attempts=1))
def broken() -> None:
    raise LookupError("broken")


@workflow(name="sql.fail")
def fail() -> None:
    broken()


@pytest.fixture
def migrated(database_url: str) -> str:
    """A database with perdure's schema and no worker."""
    with sync.Perdure(database_url, worker=False):
        pass
    return database_url


def start(url: str, name: str, args: Any = None, options: Any = None) -> str:
    """Start a run from SQL, committed at once."""
    ((id,),) = rows(
        url,
        "select perdure.start(%s, %s, %s)",
        name,
        Jsonb([] if args is None else args),
        Jsonb({} if options is None else options),
    )
    return str(id)


def refusal(url: str, statement: str) -> tuple[str | None, str, str | None]:
    """The code, text and detail of the error that a statement raises."""
    with pytest.raises(psycopg.Error) as caught:
        rows(url, statement)
    return caught.value.sqlstate, caught.value.diag.message_primary or "", caught.value.diag.message_detail


@pytest.mark.parametrize(
    ("args", "result"),
    [("[1]", 11), ("[1, 2]", 3), ('{"a": 1}', 11), ('{"a": 1, "b": 2, "sign": -1}', -3)],
)
def test_an_array_is_positional_an_object_named(args: str, result: int, database_url: str) -> None:
    """Arguments arrive as the function's own."""
    with sync.Perdure(database_url, grace=0) as app:
        ((id,),) = rows(database_url, f"select perdure.start('sql.add', '{args}')")
        assert app.handle(id).result(30) == result


def test_arguments_that_do_not_fit_park_the_run(database_url: str) -> None:
    """Nobody can refuse them at the start, so the run says it."""
    with sync.Perdure(database_url, grace=0) as app:
        id = start(database_url, "sql.add", {"c": 1})
        with pytest.raises(perdure.WorkflowParked, match="the stored arguments do not fit"):
            app.handle(id).result(30)


def test_the_rows_are_those_of_a_start_from_python(migrated: str) -> None:
    """With every option: the births and the living differ in keys, times and arrival alone."""
    with sync.Perdure(migrated, worker=False) as app:
        app.start(
            "none",
            [1, "ä"],
            id="p1",
            queue="q",
            priority=-5,
            delay=60,
            timeout=120.5,
            version="7",
            tags={"a": [1, None]},
            send=("t", {"x": None}),
        )
        app.start("none", [1, "ä"], queue="default")
    options = {"id": "s1", "queue": "q", "priority": -5, "delay": 60, "timeout": 120.5, "version": "7"}
    options |= {"tags": {"a": [1, None]}, "send": {"topic": "t", "payload": {"x": None}}}
    start(migrated, "none", [1, "ä"], options)
    start(migrated, "none", [1, "ä"])
    found = rows(
        migrated,
        "select convert_from(r.input, 'UTF8')::jsonb, r.workflow, r.parent, r.position, r.queue, r.version, r.tags, "
        "r.context, r.superseded, l.workflow, l.status, l.worker, l.queue, l.priority, l.arrival > 0, "
        "l.ready - r.created, l.deadline - r.created, l.cancel, l.begun, l.recoveries, l.claims, l.version, l.reason, "
        "l.parent, (select (m.topic, convert_from(m.value, 'UTF8')::jsonb)::text from perdure.messages m where m.run = r.key) "
        "from perdure.runs r join perdure.live l using (key) order by r.created, r.key desc",
    )
    assert len(found) == 4
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert found[0][4:6] == ("q", "7")


def test_an_id_of_its_own_is_a_uuid_of_version_7(migrated: str) -> None:
    """In the order of time, and of the RFC's variant."""
    ids = [uuid.UUID(start(migrated, "none")) for _ in range(50)]
    assert {(id.version, id.variant) for id in ids} == {(7, uuid.RFC_4122)}
    assert sorted(id.int >> 80 for id in ids) == [id.int >> 80 for id in ids]


def test_nothing_is_seen_before_the_commit_nor_after_a_rollback(database_url: str) -> None:
    """A worker that polls meanwhile finds nothing."""
    with sync.Perdure(database_url, grace=0) as app, stranger(database_url) as connection:
        connection.execute("select perdure.start('sql.add', '[1]', '{\"id\": \"a\"}')")
        start(database_url, "sql.add", [1], {"id": "b"})
        assert app.handle("b").result(30) == 11
        assert [run.id for run in app.runs.list()] == ["b"]
        connection.rollback()
        for table in ("runs", "live", "ends"):
            kept = rows(database_url, f"select count(*) from perdure.{table}")
            assert kept == [(0 if table == "live" else 1,)]
        connection.execute("select perdure.start('sql.add', '[1]', '{\"id\": \"a\"}')")
        connection.commit()
        assert app.handle("a").result(30) == 11


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_of_two_starts_with_one_id_one_makes_it(end: str, migrated: str) -> None:
    """The second waits for the first one's end, then attaches to its run, or makes its own."""
    with stranger(migrated) as first:
        first.execute("select perdure.start('none', '[1]', '{\"id\": \"a\"}')")
        second = in_thread(lambda: start(migrated, "none", [2], {"id": "a"}))
        until(lambda: rows(migrated, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        getattr(first, end)()
        assert second.result() == "a"
    kept = rows(migrated, "select convert_from(input, 'UTF8') from perdure.runs")
    assert kept == [('{"args":[1]}' if end == "commit" else '{"args":[2]}',)]
    assert rows(migrated, "select count(*) from perdure.live") == [(1,)]


def test_a_snapshot_that_is_too_old_is_a_serialization_failure(migrated: str) -> None:
    """Under repeatable read a start that meets a later commit with its id is to be repeated, and then attaches."""
    with stranger(migrated) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select 1 from perdure.runs")
        start(migrated, "none", [], {"id": "a"})
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        connection.rollback()
        connection.execute("select perdure.start('none', '[]', '{\"id\": \"a\"}')")
        connection.commit()
    assert rows(migrated, "select count(*) from perdure.runs") == [(1,)]


def test_an_id_that_is_taken(migrated: str) -> None:
    """It attaches; is refused on demand, or to another workflow; also with `restart_if_failed` while the run goes on."""
    start(migrated, "none", [], {"id": "a"})
    assert start(migrated, "none", [], {"id": "a", "on_conflict": "restart_if_failed"}) == "a"
    taken = refusal(
        migrated, """select perdure.start('none', '[]', '{"id": "a", "on_conflict": "reject"}')"""
    )
    assert taken == ("PD006", "there is a run with the id 'a' already", None)
    other = refusal(migrated, "select perdure.start('other', '[]', '{\"id\": \"a\"}')")
    assert other == ("PD006", "the id 'a' belongs to a run of none, not of other", None)
    assert rows(migrated, "select count(*) from perdure.runs") == [(1,)]


def test_a_failed_run_is_restarted_on_demand(database_url: str) -> None:
    """`restart_if_failed` gives the id to a new run; a plain start attaches to the failed one."""
    with sync.Perdure(database_url, grace=0) as app:
        start(database_url, "sql.fail", [], {"id": "f"})
        with pytest.raises(LookupError):
            app.handle("f").result(30)
        start(database_url, "sql.fail", [], {"id": "f"})
        assert rows(database_url, "select count(*) from perdure.runs") == [(1,)]
        start(database_url, "sql.fail", [], {"id": "f", "on_conflict": "restart_if_failed"})
        with pytest.raises(LookupError):
            app.handle("f").result(30)
        assert rows(database_url, "select superseded from perdure.runs order by key desc") == [
            (True,),
            (False,),
        ]


def test_two_restarts_at_once_make_one_run(database_url: str) -> None:
    """The second one attaches to what the first has made."""
    with sync.Perdure(database_url, grace=0) as app:
        start(database_url, "sql.fail", [], {"id": "f"})
        with pytest.raises(LookupError):
            app.handle("f").result(30)
    again = {"id": "f", "on_conflict": "restart_if_failed"}
    with stranger(database_url) as first:
        first.execute("select perdure.start('sql.fail', '[]', %s)", (Jsonb(again),))
        second = in_thread(lambda: start(database_url, "sql.fail", [], again))
        until(lambda: rows(database_url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        first.commit()
        second.result()
    assert rows(database_url, "select count(*) from perdure.runs") == [(2,)]
    assert rows(database_url, "select count(*) from perdure.live") == [(1,)]


def test_a_run_and_its_message_in_one_transaction(database_url: str) -> None:
    """The send finds the run that only its own transaction sees; so does a cancel."""
    with sync.Perdure(database_url, grace=0) as app, stranger(database_url) as connection:
        for id in ("a", "b"):
            connection.execute("select perdure.start('sql.hear', '[]', %s)", (Jsonb({"id": id}),))
            connection.execute("select perdure.send(%s, 't', '\"hello\"')", (id,))
        assert connection.execute("select perdure.cancel('b'), perdure.cancel('b')").fetchone() == (
            True,
            False,
        )
        connection.commit()
        assert app.handle("a").result(30) == "hello"
        with pytest.raises(perdure.WorkflowCancelled):
            app.handle("b").result(30)


def test_a_message_with_the_start(database_url: str) -> None:
    """It is there when the run begins; a start that attaches just sends it, one that is refused does not."""
    message = {"topic": "t", "payload": None}
    with sync.Perdure(database_url, grace=0) as app:
        start(database_url, "sql.hear", [], {"id": "a", "send": message})
        assert app.handle("a").result(30) is None
        ended = refusal(
            database_url,
            """select perdure.start('sql.hear', '[]', '{"id": "a", "send": {"topic": "t", "payload": 1}}')""",
        )
        assert ended[:2] == ("PD004", "run a has ended")
        start(database_url, "sql.hear", ["go"], {"id": "b"})
        start(database_url, "sql.hear", [], {"id": "b", "send": {"topic": "go", "payload": [1]}})
        assert app.handle("b").result(30) == [1]


BAD = [
    ("''", "the name of a workflow must not be empty"),
    ("null", "the name of a workflow must not be empty"),
    ("repeat('x', 513)", "the name of a workflow has 513 characters, the most is 512"),
    ("'x', '1'", "args must be an array, of positional arguments, or an object, of named ones, not 1"),
    ("'x', 'null'", "args must be an array, of positional arguments, or an object, of named ones, not null"),
    ("'x', '[]', '[]'", 'options must be an object, such as {"id": "order-1"}, not []'),
    ("'x', '[]', 'null'", 'options must be an object, such as {"id": "order-1"}, not null'),
    ("""'x', '[]', '{"Id": "a"}'""", 'option "Id" is not known'),
    ("""'x', '[]', '{"context": {}}'""", "option context is not known"),
    ("""'x', '[]', '{"parent_close": "abandon"}'""", "option parent_close is not known"),
    ("""'x', '[]', '{"id": 7}'""", "option id must be a JSON string"),
    ("""'x', '[]', '{"id": ""}'""", "option id must have between 1 and 512 characters"),
    ("""'x', '[]', '{"queue": ""}'""", "option queue must have between 1 and 512 characters"),
    ("""'x', '[]', '{"version": 2}'""", "option version must be a JSON string"),
    ("""'x', '[]', '{"priority": "1"}'""", "option priority must be a JSON number"),
    ("""'x', '[]', '{"priority": 1.5}'""", "option priority must be a whole number of 32 bits"),
    ("""'x', '[]', '{"priority": 2147483648}'""", "option priority must be a whole number of 32 bits"),
    ("""'x', '[]', '{"priority": 1e300}'""", "option priority must be a whole number of 32 bits"),
    ("""'x', '[]', '{"delay": -0.1}'""", "option delay must be between 0 seconds and a century"),
    ("""'x', '[]', '{"delay": "1 h"}'""", "option delay must be a JSON number"),
    ("""'x', '[]', '{"timeout": 1e400}'""", "option timeout must be between 0 seconds and a century"),
    ("""'x', '[]', '{"tags": ["a"]}'""", "option tags must be a JSON object"),
    (
        """'x', '[]', '{"on_conflict": "replace"}'""",
        'option on_conflict is "attach", "reject" or "restart_if_failed"',
    ),
    ("""'x', '[]', '{"send": {"topic": "t"}}'""", 'option send must be {"topic": "...", "payload": ...}'),
    (
        """'x', '[]', '{"send": {"topic": "t", "payload": 1, "key": "k"}}'""",
        'option send must be {"topic": "...", "payload": ...}',
    ),
    (
        """'x', '[]', '{"send": {"topic": "!update/x", "payload": 1}}'""",
        "a topic does not begin with \"!\", as '!update/x' does",
    ),
    ("""'x', '[]', '{"send": {"topic": "", "payload": 1}}'""", "the topic must not be empty"),
]


@pytest.mark.parametrize(("call", "text"), BAD, ids=[text[:40] for _, text in BAD])
def test_bad_input_is_refused_by_name(call: str, text: str, migrated: str) -> None:
    """With the code PD005, and nothing started."""
    assert refusal(migrated, f"select perdure.start({call})")[:2] == ("PD005", text)
    assert rows(migrated, "select * from perdure.runs") == []


def test_what_is_null_is_left_out(migrated: str) -> None:
    """NULL arguments and options, and options that are JSON's null, are those that were not given."""
    rows(migrated, "select perdure.start('none', null, null)")
    rows(
        migrated,
        """select perdure.start(options => '{"id": null, "queue": null, "tags": null}', name => 'none')""",
    )
    found = rows(migrated, "select queue, tags, convert_from(input, 'UTF8') from perdure.runs")
    assert found == [("default", None, '{"args":[]}')] * 2


@pytest.mark.parametrize("call", ["null, 't', '1'", "'none', 't', '1'"])
def test_a_send_to_nobody(call: str, migrated: str) -> None:
    """An unknown id, and none at all, are refused."""
    assert refusal(migrated, f"select perdure.send({call})")[0] == "PD003"


@pytest.mark.parametrize("call", ["'a', '', '1'", "'a', null, '1'", "'a', '!x', '1'", "'a', 't', '1', ''"])
def test_a_send_that_cannot_be(call: str, migrated: str) -> None:
    """A topic or a key that Python would not take."""
    start(migrated, "none", [], {"id": "a"})
    assert refusal(migrated, f"select perdure.send({call})")[0] == "PD005"


def test_a_payload_that_is_null_is_jsons_null(database_url: str) -> None:
    """As a trigger has it, whose column is empty."""
    with sync.Perdure(database_url, grace=0) as app:
        start(database_url, "sql.hear", [], {"id": "a"})
        rows(database_url, "select perdure.send('a', 't', null)")
        assert app.handle("a").result(30) is None
