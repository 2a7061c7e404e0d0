"""A transaction step is exactly once, with a clear error where it cannot be, whatever happens to its connection.

Its answer lost while the backend still commits, a serialization failure at COMMIT, a swallowed error, a COMMIT of the
user's own, a cancel in the middle: the writes are there together with the record, or neither is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
from perdure import AsyncConnection, Connection, Retry, TransactionBroken, sync, transaction, workflow
from perdure.sync import Perdure
from tests.api_tools import on_loop, rows, until, until_true
from tests.protocol_tools import Proxy, RawWorker, stranger
from tests.servers import TestServer

entered = threading.Semaphore(0)
door = threading.Event()
attempts: list[str] = []

SLOW_COMMIT = """
create table entries (id serial primary key, text text not null);
create function wait_at_commit() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(77);
    return null;
end $$;
create constraint trigger slow after insert on entries deferrable initially deferred
    for each row when (new.text = 'slow') execute function wait_at_commit();
"""


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """A database with a table whose rows called `slow` make COMMIT wait for an advisory lock."""
    attempts.clear()
    door.clear()
    while entered.acquire(blocking=False):
        pass
    rows(database_url, SLOW_COMMIT)
    yield database_url
    door.set()


@pytest.fixture
def proxy(server: TestServer, url: str) -> Iterator[Proxy]:
    with Proxy(server, url) as made:
        yield made


def entries(url: str) -> list[str]:
    return [text for (text,) in rows(url, "select text from entries order by id")]


def recorded(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "select failed, convert_from(value, 'UTF8') from perdure.steps where kind = 2")


@transaction(name="attack.write", retry=None)
def write(conn: Connection, text: str) -> int:
    attempts.append(text)
    conn.execute("insert into entries (text) values (%s)", (text,))
    return len(attempts)


@transaction(name="attack.write_async")
async def write_async(conn: AsyncConnection, text: str) -> int:
    attempts.append(text)
    await conn.execute("insert into entries (text) values (%s)", (text,))
    return len(attempts)


@workflow(name="attack.writes")
def writes(text: str) -> int:
    return write(text)


@workflow(name="attack.writes_async")
async def writes_async(text: str) -> int:
    return await write_async(text)


@pytest.mark.parametrize("flow", [writes, writes_async], ids=["blocking", "async"])
def test_commit_whose_answer_is_lost_is_found(flow: Any, proxy: Proxy, url: str) -> None:
    """Committed, and the answer lost: the next attempt finds the record; the body ran once, and counts once."""
    with Perdure(proxy.url, lease=5, grace=0):
        loss = proxy.lose_answer("perdure transaction")
        assert sync.start(flow, "one").result(20) == 1
        assert loss.happened.is_set()
    assert (entries(url), attempts) == (["one"], ["one"])
    assert recorded(url) == [(False, "1")]


def test_backend_that_still_commits_is_waited_for(proxy: Proxy, url: str) -> None:
    """Cut while the backend is in the middle of COMMIT: the next attempt waits for it, and rolls its own writes back."""
    with Perdure(proxy.url, lease=5, grace=0), stranger(url) as holder:
        holder.execute("select pg_advisory_xact_lock(77)")
        handle = sync.start(writes, "slow")
        until(lambda: waiting_at_commit(url))
        proxy.cut("perdure transaction")
        until(lambda: len(attempts) > 1)
        holder.rollback()
        result = handle.result(20)
    assert entries(url) == ["slow"]
    assert recorded(url) == [(False, str(result))]


def waiting_at_commit(url: str) -> bool:
    return bool(rows(url, "select 1 from pg_locks where locktype = 'advisory' and not granted"))


@transaction(name="attack.fails_second")
def fails_second(conn: Connection) -> str:
    attempts.append("fails_second")
    if len(attempts) > 1:
        raise LookupError("the second attempt")
    conn.execute("insert into entries (text) values ('slow')")
    return "committed"


@workflow(name="attack.fails_later")
def fails_later() -> str:
    return fails_second()


def test_failure_after_a_commit_without_answer_tells_what_was_committed(proxy: Proxy, url: str) -> None:
    """The first attempt's backend still commits while the second one raises: what the code sees is what is there."""
    with Perdure(proxy.url, lease=5, grace=0), stranger(url) as holder:
        holder.execute("select pg_advisory_xact_lock(77)")
        handle = sync.start(fails_later)
        until(lambda: waiting_at_commit(url))
        proxy.cut("perdure transaction")
        until(lambda: len(attempts) > 1)
        holder.rollback()
        try:
            saw = handle.result(20)
        except LookupError:
            saw = "error"
    wrote = entries(url) == ["slow"]
    assert (saw == "committed") == wrote, f"the code saw {saw!r}, and the writes are {entries(url)}"


@transaction(name="attack.fails_at_the_door")
def fails_at_the_door(conn: Connection) -> str:
    attempts.append("fails_at_the_door")
    if len(attempts) > 1:
        door.wait(20)
        raise LookupError("the second attempt")
    conn.execute("insert into entries (text) values ('slow')")
    return "committed"


@workflow(name="attack.fails_at_last")
def fails_at_last() -> str:
    return fails_at_the_door()


def test_failure_whose_own_commit_has_no_answer_is_found_as_a_failure(proxy: Proxy, url: str) -> None:
    """The first attempt has no answer, the second raises, and the COMMIT of that failure has no answer either."""
    with Perdure(proxy.url, lease=5, grace=0), stranger(url) as holder:
        holder.execute("select pg_advisory_xact_lock(77)")
        handle = sync.start(fails_at_last)
        until(lambda: waiting_at_commit(url))
        proxy.cut("perdure transaction")
        until(lambda: len(attempts) > 1)
        rows(
            url, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted"
        )
        until(lambda: not waiting_at_commit(url))
        loss = proxy.lose_answer("perdure transaction")
        door.set()
        with pytest.raises(LookupError, match="second attempt"):
            handle.result(20)
    assert loss.happened.is_set()
    assert entries(url) == []
    assert [failed for failed, _ in recorded(url)] == [True]


@transaction(name="attack.leaves_a_task")
async def leaves_a_task(conn: AsyncConnection) -> str:
    await conn.execute("insert into entries (text) values ('slow')")
    left.append(asyncio.create_task(ask_for_itself(conn)))
    return "committed"


async def ask_for_itself(conn: AsyncConnection) -> None:
    """What a body has left behind asks in the middle of the COMMIT."""
    while not conn.lock.locked():  # noqa: ASYNC110  (which tells nobody)
        await asyncio.sleep(0)
    door.set()
    with suppress(psycopg.Error):
        await conn.execute("select 1")


left: list[asyncio.Task[None]] = []


@workflow(name="attack.leaves_much")
async def leaves_much() -> str:
    return await leaves_a_task()


def test_what_a_body_leaves_behind_waits_for_the_commit(url: str) -> None:
    """It neither takes the answer to it nor sends anything in its middle."""
    with Perdure(url, grace=0), stranger(url) as holder:
        holder.execute("select pg_advisory_xact_lock(77)")
        handle = sync.start(leaves_much)
        assert door.wait(20)
        until(lambda: waiting_at_commit(url))
        holder.rollback()
        assert handle.result(20) == "committed"
    assert entries(url) == ["slow"]


kept: list[Any] = []


@transaction(name="attack.pipes", retry=None)
def pipes(conn: Connection) -> None:
    kept.append(conn.pipeline())
    pipeline = kept[-1].__enter__()
    conn.execute("insert into entries (text) values ('piped')")
    pipeline.sync()


@workflow(name="attack.piping")
def piping() -> None:
    pipes()


def test_pipeline_that_a_body_leaves_open_is_refused(url: str) -> None:
    """Some of its statements may have failed without anybody having heard of it; the next step has another connection."""
    with Perdure(url, grace=0):
        with pytest.raises(TransactionBroken, match="pipeline"):
            sync.start(piping).result(20)
        for _ in range(3):
            assert sync.start(writes, "after").result(20)
    assert entries(url) == ["after"] * 3
    kept.clear()


def test_names_are_what_they_are_in_any_encoding(url: str) -> None:
    """Whatever encoding the user's URL asks for."""
    separator = "&" if "?" in url else "?"
    with Perdure(f"{url}{separator}client_encoding=latin1", grace=0):
        assert sync.start(umlauts).result(20) == 1
    assert rows(url, "select name from perdure.steps") == [("attack.büch",)]
    assert entries(url) == ["Bücher"]


@transaction(name="attack.büch")
def umlaut(conn: Connection) -> int:
    return conn.execute("insert into entries (text) values ('Bücher')").rowcount


@workflow(name="attack.umlauts")
def umlauts() -> int:
    return umlaut()


@transaction(name="attack.serializable", isolation="serializable")
def counts(conn: Connection, name: str) -> int:
    attempts.append(name)
    number = len(conn.execute("select 1 from entries").fetchall())
    entered.release()
    if len(attempts) <= 2:
        door.wait(20)
    conn.execute("insert into entries (text) values (%s)", (name,))
    return number


@workflow(name="attack.counts")
def counting(name: str) -> int:
    return counts(name)


def test_serialization_failure_at_commit_repeats_the_whole(url: str) -> None:
    """Two that read the same and then write: one gets 40001, at its COMMIT at the latest, and sees the other's row."""
    with Perdure(url, lease=5, grace=0):
        handles = [sync.start(counting, name) for name in ("a", "b")]
        assert entered.acquire(timeout=10)
        assert entered.acquire(timeout=10)
        door.set()
        assert sorted(handle.result(20) for handle in handles) == [0, 1]
    assert sorted(entries(url)) == ["a", "b"]
    assert len(attempts) == 3


def test_deferred_error_at_commit_is_the_steps_own(url: str) -> None:
    """A constraint that only COMMIT checks fails the step with its own error, and no record says otherwise."""
    rows(url, "create table parents (id int primary key)")
    rows(url, "alter table entries add parent int references parents deferrable initially deferred")
    with Perdure(url, lease=5, grace=0), pytest.raises(psycopg.errors.ForeignKeyViolation):
        sync.start(orphaned).result(20)
    assert entries(url) == []
    assert [failed for failed, _ in recorded(url)] == [True]


@transaction(name="attack.orphan")
def orphan(conn: Connection) -> None:
    conn.execute("insert into entries (text, parent) values ('orphan', 5)")


@workflow(name="attack.orphaned")
def orphaned() -> None:
    orphan()


@transaction(name="attack.ends_itself")
def ends_itself(conn: Connection, how: str) -> None:
    conn.execute("insert into entries (text) values ('inside')")
    if how == "swallowed":
        try:
            conn.execute("select 1/0")
        except psycopg.Error:
            return
    else:
        conn.execute(how.encode())
    if "begin" not in how:
        return
    conn.execute("insert into entries (text) values ('in another')")


@transaction(name="attack.counts_rows")
def counts_rows(conn: Connection) -> int:
    row = conn.execute("select count(*) from entries").fetchone()
    assert row
    return int(row[0])


@workflow(name="attack.breaks")
def breaks(how: str) -> str:
    try:
        ends_itself(how)
    except TransactionBroken as error:
        # More steps than the pool has connections so early: one of them meets that of the broken step.
        return f"{error} / {max(counts_rows() for _ in range(5))}"
    return "no error"


ENDINGS = {
    "commit": 1,
    "commit; begin": 1,
    "commit and chain": 1,
    "rollback; begin": 0,
    "rollback": 0,
    "swallowed": 0,
}


@pytest.mark.parametrize("how", ENDINGS)
def test_connection_of_a_broken_step_does_not_break_the_next(how: str, url: str) -> None:
    """A step that breaks or ends its transaction gets a clear error, and the next step works, on a clean connection."""
    with Perdure(url, lease=5, grace=0):
        text, _, count = sync.start(breaks, how).result(20).rpartition(" / ")
    assert "rolled back" in text if how == "swallowed" else "ended its transaction" in text
    assert int(count) == ENDINGS[how] == len(entries(url))
    assert sorted(failed for failed, _ in recorded(url)) == [False] * 5 + [True]


@transaction(name="attack.dicts")
def dicts(conn: Connection) -> int:
    conn.row_factory = dict_row
    return 1


@workflow(name="attack.two_factories")
def two_factories() -> int:
    return dicts() + sum(counts_rows() for _ in range(5))


def test_row_factory_of_one_step_does_not_reach_the_next(url: str) -> None:
    """What a step sets on its connection is gone when the next step has it."""
    with Perdure(url, lease=5, grace=0):
        assert sync.start(two_factories).result(20) == 1


@transaction(name="attack.two_writes")
def two_writes(conn: Connection) -> None:
    conn.execute("insert into entries (text) values ('first')")
    entered.release()
    door.wait(20)
    try:
        conn.execute("insert into entries (text) values ('second')")
    finally:
        entered.release()


@workflow(name="attack.blocking_in_async")
async def blocking_in_async() -> None:
    await perdure.run_step(two_writes)


@on_loop
async def test_cancelled_blocking_body_writes_nothing_more(url: str) -> None:
    """Cancelled while its body runs in a thread: neither what it wrote before nor what it writes after stays."""
    async with perdure.Perdure(url, lease=5, grace=0):
        handle = await perdure.start(blocking_in_async)
        assert await asyncio.to_thread(entered.acquire, timeout=10)
        assert await handle.cancel()
        cancelling = "select 1 from perdure.steps where kind = 7"
        await until_true(lambda: asyncio.to_thread(rows, url, cancelling))
        await asyncio.to_thread(
            until,
            lambda: not rows(url, "select 1 from pg_stat_activity where state = 'idle in transaction'"),
            5,
        )
        door.set()
        assert await asyncio.to_thread(entered.acquire, timeout=10)
        with pytest.raises(perdure.WorkflowCancelled):
            await handle.result(10)
    assert entries(url) == []
    assert recorded(url) == []


@transaction(name="attack.locked", lock={"entries": "share row exclusive"})
def locked(conn: Connection) -> int:
    attempts.append("locked")
    conn.execute("insert into entries (text) values ('locked')")
    entered.release()
    if len(attempts) == 1:
        door.wait(20)
        conn.execute("insert into entries (text) values ('zombie')")
    return len(attempts)


@workflow(name="attack.locks")
def locks() -> int:
    return locked()


def test_table_lock_of_a_stopped_worker_is_freed(url: str) -> None:
    """Declared dead while its body stands still under a table lock: the next life gets the lock, and counts once."""
    with Perdure(url, lease=30, grace=0) as app, RawWorker(url) as reaper:
        handle = sync.start(locks)
        assert entered.acquire(timeout=10)
        expired = "update perdure.workers set expires = perdure.clock() - interval '1 s' where id = %s"
        rows(url, expired, app.runtime.worker)
        reaper.bury()
        reaper.requeue()
        # The zombie's body still stands at its door; only its heartbeat tells the process that this life is over.
        app.engine._heartbeat.wake()
        assert handle.result(8) == 2, "within the 20 s for which the zombie stands at its door"
        door.set()
    assert entries(url) == ["locked"]
    assert recorded(url) == [(False, "2")]


@transaction(name="attack.retried", retry=Retry(max_attempts=3, delay=0))
def retried(conn: Connection) -> int:
    conn.execute("insert into entries (text) values ('retried')")
    attempts.append("retried")
    if len(attempts) < 3:
        raise LookupError
    return len(attempts)


@workflow(name="attack.retries")
def retries() -> int:
    return retried()


def test_cut_in_the_middle_of_every_statement_counts_once(proxy: Proxy, url: str) -> None:
    """The connection dies at BEGIN, in the body and at COMMIT, one after the other: the step still counts once."""
    with Perdure(proxy.url, lease=5, grace=0):
        losses = [proxy.lose_answer("perdure transaction", tag) for tag in ("BEGIN", "INSERT 0 1", "COMMIT")]
        assert sync.start(writes, "one").result(20) >= 1
        assert all(loss.happened.is_set() for loss in losses)
    assert entries(url) == ["one"]
    assert len(recorded(url)) == 1
