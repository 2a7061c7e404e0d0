"""Queue options in SQL and on a connection: the same rules as from Python."""

from __future__ import annotations

import psycopg
import pytest

from perdure import Deduplicated, Perdure, Queue, QueueFull, workflow
from tests.api_tools import on_loop, rows


@workflow(name="queues_sql.echo")
async def echo(text: str) -> str:
    return text


def start(url: str, options: str) -> str:
    ((id,),) = rows(url, "select perdure.start('queues_sql.echo', '[\"x\"]', %s)", options)
    return str(id)


@on_loop
async def test_key_dedup_and_expiry_are_stored(database_url: str) -> None:
    async with Perdure(database_url, worker=False):
        start(database_url, '{"queue": "q", "key": "acme", "dedup": "once", "expires": 60}')
    stored = rows(
        database_url, "select queue, queue_key, dedup, expires - perdure.clock() > '50 s' from perdure.live"
    )
    assert stored == [("q", "acme", "once", True)]


@on_loop
async def test_dedup_is_refused_in_sql_and_on_a_connection(database_url: str) -> None:
    async with Perdure(database_url, worker=False):
        first = start(database_url, '{"queue": "q", "dedup": "once"}')
        with pytest.raises(psycopg.Error, match=first) as refused:
            start(database_url, '{"queue": "q", "dedup": "once"}')
        assert refused.value.sqlstate == "PD007"
        start(database_url, '{"queue": "other", "dedup": "once"}')
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute("select 1")
            with pytest.raises(Deduplicated, match=first):
                await echo.options(queue="q", dedup="once", connection=connection).start("x")


@on_loop
async def test_size_is_kept_in_sql_and_on_a_connection(database_url: str) -> None:
    async with Perdure(database_url, queues=[Queue("small", size=2)], worker=False):
        start(database_url, '{"queue": "small", "id": "a"}')
        start(database_url, '{"queue": "small"}')
        with pytest.raises(psycopg.Error, match="small") as refused:
            start(database_url, '{"queue": "small"}')
        assert refused.value.sqlstate == "PD008"
        assert start(database_url, '{"queue": "small", "id": "a"}') == "a"
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute("select 1")
            with pytest.raises(QueueFull, match="small"):
                await echo.options(queue="small", connection=connection).start("x")


@on_loop
async def test_open_transaction_of_a_starter_keeps_no_worker_from_claiming(database_url: str) -> None:
    async with Perdure(database_url, queues=[Queue("small", size=5, concurrency=1)]):
        with psycopg.connect(database_url) as connection:
            connection.execute(
                'select perdure.start(\'queues_sql.echo\', \'["x"]\', \'{"queue": "small", "id": "mine"}\')'
            )
            start(database_url, '{"queue": "other"}')
            rows(
                database_url,
                "insert into perdure.runs (key, id, workflow, input, queue) "
                "values (-99, 'beside', 'queues_sql.echo', '{\"args\":[\"x\"]}', 'small')",
            )
            rows(
                database_url,
                "insert into perdure.live (key, workflow, status, queue, arrival) "
                "values (-99, 'queues_sql.echo', 2, 'small', nextval('perdure.arrivals'))",
            )
            assert await echo.handle("beside").result(timeout=30) == "x"
        assert await echo.handle("mine").result(timeout=30) == "x"


@on_loop
async def test_depth_is_one_integer_for_each_queue(database_url: str) -> None:
    async with Perdure(database_url, worker=False) as app:
        for queue in ("a", "a", "b"):
            await echo.options(queue=queue).start("x")
        await app.queues.pause("b")
    assert rows(database_url, "select * from perdure.queue_depth order by queue") == [
        ("a", 2, 0),
        ("b", 0, 0),
    ]
