"""Through PgBouncer in transaction mode everything works: sessions change under us, nothing is prepared, nobody listens."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest

import perdure
from perdure import Retention, Topic, WorkflowCancelled, step, sync, transaction, workflow
from perdure.testing import Clock
from tests.api_tools import on_loop, rows, until
from tests.cli_tools import perdure as command
from tests.cli_tools import worker

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).resolve().parents[1]
words = Topic("words", str)


@step
async def double(number: int) -> int:
    return 2 * number


@transaction
async def note(conn: perdure.AsyncConnection, number: int) -> None:
    await conn.execute("insert into noted values (%s)", (number,))


@transaction
def note_blocking(conn: perdure.Connection, number: int) -> None:
    conn.execute("insert into noted values (%s)", (number,))


@workflow(name="pooled.all")
async def everything(number: int) -> str:
    await note(await double(number))
    word = await perdure.receive(words)
    await perdure.sleep(0.01)
    return f"{word} {number}"


@workflow(name="pooled.blocking")
def everything_blocking(number: int) -> str:
    note_blocking(number)
    return sync.receive(words)


@workflow(name="pooled.parent")
async def parent(count: int) -> int:
    return sum(await asyncio.gather(*(child(number) for number in range(count))))


@workflow(name="pooled.child")
async def child(number: int) -> int:
    return await double(number)


@pytest.fixture
def url(pooled_url: str) -> str:
    rows(pooled_url, "create table noted (number integer)")
    return pooled_url


@on_loop
async def test_runs_of_all_kinds_share_few_connections(url: str) -> None:
    """A hundred runs with steps, transactions, messages and children, on ten connections to the server."""
    async with perdure.Perdure(url, transaction_pooler=True) as app:
        handles = [await everything.start(number) for number in range(100)]
        for handle in handles:
            await handle.send(words, "hello")
        results = [await handle.result(timeout=60) for handle in handles]
        assert results == [f"hello {number}" for number in range(100)]
        assert await parent(50) == sum(2 * number for number in range(50))
        assert sorted(rows(url, "select number from noted")) == [(2 * number,) for number in range(100)]
        cancelled = await everything.start(1000)
        await cancelled.cancel()
        with pytest.raises(WorkflowCancelled):
            await cancelled.result(timeout=60)
        assert await app.runs.count(status="succeeded") == 151


def test_blocking_code_works_too(url: str) -> None:
    with sync.Perdure(url, transaction_pooler=True):
        handles = [everything_blocking.start(number) for number in range(30)]
        for handle in handles:
            handle.send(words, "hello")
        assert [handle.result(timeout=60) for handle in handles] == ["hello"] * 30
        assert len(rows(url, "select number from noted")) == 30


def test_a_killed_worker_is_taken_over(url: str, tmp_path: Path) -> None:
    """A kill -9 in the middle of a step: its fences are found through the pooler as well."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    settings = {"PERDURE_TRANSACTION_POOLER": "yes", "PERDURE_LEASE": "1"}
    with sync.Perdure(url, worker=False, transaction_pooler=True) as client:
        with worker("cli_shop:app", url=url, cwd=TESTS, SHOP_HOLD=str(pipe), **settings) as first:
            handle = client.start("shop.deliver", [7])
            first.wait_for("packing 7")
            first.kill()
        with worker("cli_shop:blocking_app", url=url, cwd=TESTS, **settings) as second:
            assert handle.result(timeout=60) != first._process.pid
            second.wait_for("goes on here, after 1 crashes")


def test_nothing_is_listened_for_and_nothing_is_prepared(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a session would keep is asked of none: no server connection has it, and no service has failed."""
    with caplog.at_level(logging.WARNING, "perdure"), sync.Perdure(url, transaction_pooler=True) as app:
        for number in range(20):
            handle = everything_blocking.start(number)
            handle.send(words, "hello")
            assert handle.result(timeout=60) == "hello"
        assert rows(url, "select * from pg_listening_channels()") == []
        assert rows(url, "select * from pg_prepared_statements") == []
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        until(lambda: app.runs.count(status="succeeded") == 20)


def test_who_forgets_to_say_so_is_told_at_once(url: str) -> None:
    with pytest.raises(perdure.DatabaseUnavailable, match="say transaction_pooler=True"):
        sync.Perdure(url).open()


def test_pruning_works_through_it(url: str) -> None:
    with sync.Perdure(url, transaction_pooler=True, retention=Retention(succeeded=60)) as app:
        handle = everything_blocking.start(1)
        handle.send(words, "hello")
        handle.result(timeout=60)
        with Clock(url) as clock:
            clock.advance(timedelta(days=1))
            assert app.runs.prune().runs == 1


def test_the_command_line_migrates_and_starts_through_a_pooler(pooled_url: str) -> None:
    """Told by the variable, as everything else is."""
    for arguments in (["migrate"], ["start", "pooled.nobody", "--id", "one"], ["show", "one"]):
        ended = command(*arguments, url=pooled_url, PERDURE_TRANSACTION_POOLER="yes")
        assert (ended.returncode, ended.stderr) == (0, "")
