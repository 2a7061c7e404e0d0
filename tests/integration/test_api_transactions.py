"""Transaction steps: exactly once, savepoints, isolation, locks, no COMMIT of the user's, in both colours."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import perdure
from perdure import (
    AsyncConnection,
    Connection,
    DefinitionError,
    Perdure,
    Retry,
    TransactionBroken,
    transaction,
    workflow,
)
from tests.api_tools import on_loop, rows, until

bodies: list[str] = []


@pytest.fixture
def ledger_url(database_url: str) -> str:
    """A database with a table of the user's."""
    bodies.clear()
    rows(database_url, "create table ledger (id serial primary key, text text not null, amount int)")
    return database_url


def booked(url: str) -> list[str]:
    return [text for (text,) in rows(url, "select text from ledger order by id")]


@transaction
async def book(conn: AsyncConnection, text: str, amount: int = 1) -> int:
    bodies.append(text)
    cursor = await conn.execute(
        "insert into ledger (text, amount) values (%s, %s) returning amount", (text, amount)
    )
    row = await cursor.fetchone()
    assert row
    return int(row[0])


@transaction
def book_blocking(conn: Connection, text: str, amount: int = 1) -> int:
    bodies.append(text)
    row = conn.execute(
        "insert into ledger (text, amount) values (%s, %s) returning amount", (text, amount)
    ).fetchone()
    assert row
    return int(row[0])


@transaction
async def fails_after_writing(conn: AsyncConnection, text: str) -> None:
    bodies.append(text)
    await conn.execute("insert into ledger (text) values (%s)", (text,))
    raise LookupError(text)


@transaction(retry=Retry(max_attempts=3, delay=0.01))
async def third_time(conn: AsyncConnection) -> int:
    attempt = perdure.info().attempt
    await conn.execute("insert into ledger (text) values (%s)", (f"attempt {attempt}",))
    if attempt < 3:
        raise LookupError(str(attempt))
    return attempt


@transaction
async def with_savepoint(conn: AsyncConnection) -> None:
    await conn.execute("insert into ledger (text) values ('outer')")
    try:
        async with conn.transaction():
            await conn.execute("insert into ledger (text) values ('inner')")
            await conn.execute("select 1 / 0")
    except psycopg.errors.DivisionByZero:
        await conn.execute("insert into ledger (text) values ('caught')")


@transaction
async def swallows(conn: AsyncConnection) -> None:
    await conn.execute("insert into ledger (text) values ('lost')")
    try:
        await conn.execute("select 1 / 0")
    except psycopg.errors.DivisionByZero:
        pass


@transaction
async def ends_it(conn: AsyncConnection, how: str) -> None:
    await conn.execute("insert into ledger (text) values ('before')")
    if how == "commit()":
        await conn.commit()
    elif how == "rollback()":
        await conn.rollback()
    else:
        await conn.execute(how.encode())


@transaction
def ends_it_blocking(conn: Connection, how: str) -> None:
    conn.execute("insert into ledger (text) values ('before')")
    if how == "commit()":
        conn.commit()
    else:
        conn.execute(how.encode())


@transaction(isolation="serializable")
async def isolation_of(conn: AsyncConnection) -> str:
    row = await (await conn.execute("show transaction_isolation")).fetchone()
    assert row
    return str(row[0])


@transaction
def blocking_isolation(conn: Connection) -> str:
    row = conn.execute("show transaction_isolation").fetchone()
    assert row
    return str(row[0])


@workflow
def shows_isolation() -> str:
    return blocking_isolation()


@transaction
async def plain_isolation(conn: AsyncConnection) -> str:
    row = await (await conn.execute("show transaction_isolation")).fetchone()
    assert row
    return str(row[0])


@transaction(isolation="serializable")
async def withdraw_if_rich(conn: AsyncConnection, text: str) -> int:
    """Write skew: two of these must not both see the sum before the other's row."""
    bodies.append(text)
    row = await (await conn.execute("select coalesce(sum(amount), 0) from ledger")).fetchone()
    assert row
    if row[0] >= 0:
        await conn.execute("insert into ledger (text, amount) values (%s, -1)", (text,))
        await asyncio.sleep(0.05)
    return int(row[0])


@transaction(lock={"ledger": "share row exclusive"})
async def count_then_book(conn: AsyncConnection) -> int:
    row = await (await conn.execute("select count(*) from ledger")).fetchone()
    assert row
    await asyncio.sleep(0.01)
    await conn.execute("insert into ledger (text) values (%s)", (str(row[0]),))
    return int(row[0])


@transaction
def deallocates(conn: Connection, how: str) -> None:
    bodies.append(how)
    conn.execute("insert into ledger (text) values (%s)", (how,), prepare=how != "secretly")
    if how == "savepoint":
        with conn.transaction(force_rollback=True):
            conn.execute("insert into ledger (text) values ('inner')")
    elif how == "drop":
        conn.execute("create temp table passing () on commit drop")
        conn.execute("drop table passing")
    else:
        conn.execute("do $$ begin deallocate all; end $$")


@workflow
def deallocates_often(how: str) -> None:
    for _ in range(3):
        book_blocking("between")  # so that both of our statements are there to be deallocated
        deallocates(how)


@workflow
async def calls(which: str) -> object:
    if which == "book":
        return [await book("one", 5), await book("two", amount=7)]
    if which == "error":
        try:
            await fails_after_writing("gone")
        except LookupError as error:
            return str(error)
    steps: dict[str, Any] = {
        "third_time": third_time,
        "savepoint": with_savepoint,
        "swallows": swallows,
        "isolation": isolation_of,
        "plain": plain_isolation,
        "locked": count_then_book,
    }
    result: object = await steps[which]()
    return result


@workflow
async def ends(how: str) -> None:
    await ends_it(how)


@workflow
def ends_blocking(how: str) -> None:
    ends_it_blocking(how)


@workflow
async def rich(text: str) -> int:
    return await withdraw_if_rich(text)


@workflow
def calls_blocking() -> list[int]:
    return [book_blocking("one", 5), book_blocking("two", amount=7), perdure.sync.run_step(book, "three", 9)]


@workflow
async def crosses() -> int:
    return await perdure.run_step(book_blocking, "from a thread", 3)


@on_loop
async def test_a_transaction_writes_once_and_returns(ledger_url: str) -> None:
    """Writes are committed with the record, and results come back."""
    async with Perdure(ledger_url):
        assert await calls("book") == [5, 7]
    assert booked(ledger_url) == ["one", "two"]


def test_a_blocking_transaction_writes_once_and_returns(ledger_url: str) -> None:
    """The same in blocking code, an `async def` transaction included."""
    with perdure.sync.Perdure(ledger_url):
        assert calls_blocking() == [5, 7, 9]
    assert booked(ledger_url) == ["one", "two", "three"]


@on_loop
async def test_an_async_workflow_runs_a_blocking_transaction(ledger_url: str) -> None:
    """`run_step` takes a `def` transaction into a thread."""
    async with Perdure(ledger_url):
        assert await crosses() == 3
    assert booked(ledger_url) == ["from a thread"]


@on_loop
async def test_a_transaction_that_raises_writes_nothing(ledger_url: str) -> None:
    """The user's error arrives as it was, and the writes before it are gone."""
    async with Perdure(ledger_url):
        assert await calls("error") == "gone"
    assert booked(ledger_url) == []


@on_loop
async def test_each_attempt_begins_a_new_transaction(ledger_url: str) -> None:
    """With a Retry only the writes of the attempt that succeeded are there."""
    async with Perdure(ledger_url):
        assert await calls("third_time") == 3
    assert booked(ledger_url) == ["attempt 3"]


@on_loop
async def test_an_inner_transaction_is_a_savepoint(ledger_url: str) -> None:
    """`conn.transaction()` inside rolls back alone, and the rest commits."""
    async with Perdure(ledger_url):
        await calls("savepoint")
    assert booked(ledger_url) == ["outer", "caught"]


@pytest.mark.parametrize(("how", "most"), [("savepoint", 3), ("drop", 3), ("secretly", 6)])
def test_statements_that_a_body_deallocates_are_prepared_again(how: str, most: int, ledger_url: str) -> None:
    """Psycopg does so when anything is rolled back or dropped: no body runs twice for it, as one does where nobody knows."""
    with perdure.sync.Perdure(ledger_url):
        deallocates_often(how)
    assert booked(ledger_url) == ["between", how] * 3
    assert bodies.count(how) <= most


def test_transaction_outside_of_a_run_survives_what_its_body_deallocates(ledger_url: str) -> None:
    """A step before it has prepared COMMIT, but not what such a transaction begins and ends with besides."""
    with perdure.sync.Perdure(ledger_url):
        deallocates_often("savepoint")
        deallocates("secretly")
    assert booked(ledger_url)[-1] == "secretly"
    assert booked(ledger_url).count("secretly") == 1


@on_loop
async def test_a_swallowed_sql_error_does_not_pass(ledger_url: str) -> None:
    """A function that goes on after an SQL error fails, instead of a COMMIT that silently rolls back."""
    async with Perdure(ledger_url):
        with pytest.raises(TransactionBroken, match=r"swallows.*savepoint"):
            await calls("swallows")
    assert booked(ledger_url) == []


@pytest.mark.parametrize("how", ["commit()", "rollback()"])
def test_commit_and_rollback_are_refused(how: str, ledger_url: str) -> None:
    """`conn.commit()` and `conn.rollback()` raise, and nothing is written."""

    async def main() -> None:
        async with Perdure(ledger_url):
            with pytest.raises((perdure.PerdureError, psycopg.Error)) as caught:
                await ends(how)
            assert how in str(caught.value)

    asyncio.run(main())
    assert booked(ledger_url) == []


@pytest.mark.parametrize("how", ["commit", "rollback", "commit; begin", "rollback; begin", "end; begin"])
def test_sql_that_ends_the_transaction_is_found(how: str, ledger_url: str) -> None:
    """COMMIT or ROLLBACK sent as SQL fails the step, with what to do instead; in both colours."""

    async def main() -> None:
        async with Perdure(ledger_url):
            with pytest.raises(TransactionBroken, match="savepoint"):
                await ends(how)

    asyncio.run(main())
    with perdure.sync.Perdure(ledger_url), pytest.raises(TransactionBroken, match="savepoint"):
        ends_blocking(how)


def test_the_blocking_commit_is_refused(ledger_url: str) -> None:
    """`conn.commit()` of a `def` transaction raises too."""
    with perdure.sync.Perdure(ledger_url), pytest.raises((perdure.PerdureError, psycopg.Error)):
        ends_blocking("commit()")
    assert booked(ledger_url) == []


@on_loop
async def test_isolation_is_as_asked(ledger_url: str) -> None:
    """`isolation=` holds for its transaction alone; the next one on the connection has the default again."""
    async with Perdure(ledger_url):
        assert await calls("isolation") == "serializable"
        assert await calls("plain") == "read committed"


def test_isolation_that_configure_has_set_holds(ledger_url: str) -> None:
    """What a connection is set to is what its transactions are, where the decorator does not say otherwise."""

    def configure(conn: psycopg.Connection[Any]) -> None:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with perdure.sync.Perdure(ledger_url, configure=configure):
        assert shows_isolation() == "repeatable read"


@on_loop
async def test_serialization_failures_are_tried_again(ledger_url: str) -> None:
    """Of two that would both overdraw only one books: the other is repeated and sees the first one's row."""
    async with Perdure(ledger_url):
        seen = await asyncio.gather(rich("left"), rich("right"))
    assert sorted(seen) == [-1, 0]
    assert len(bodies) > 2
    assert len(booked(ledger_url)) == 1


@on_loop
async def test_a_table_lock_keeps_other_writers_out(ledger_url: str) -> None:
    """Ten that count and then insert under `lock=` each see a different count."""
    async with Perdure(ledger_url):
        counts = await asyncio.gather(*(calls("locked") for _ in range(10)))
    assert sorted(counts) == list(range(10))  # type: ignore[type-var]


@on_loop
async def test_outside_a_workflow_a_transaction_is_one_on_the_current_app(ledger_url: str) -> None:
    """A plain call opens a transaction of the app's database, committed on return, rolled back on an error."""
    async with Perdure(ledger_url):
        assert await book("plain", 4) == 4
        with pytest.raises(LookupError):
            await fails_after_writing("gone")
        assert await isolation_of() == "serializable"
    assert booked(ledger_url) == ["plain"]


def test_outside_a_workflow_a_blocking_transaction_is_one_too(ledger_url: str) -> None:
    """The same in blocking code."""
    with perdure.sync.Perdure(ledger_url):
        assert book_blocking("plain", 4) == 4
    assert booked(ledger_url) == ["plain"]


@on_loop
async def test_outside_a_workflow_a_broken_transaction_says_so(ledger_url: str) -> None:
    """A plain call that swallows an SQL error, or ends its transaction, does not return as if it had committed."""
    async with Perdure(ledger_url):
        with pytest.raises(TransactionBroken):
            await swallows()
        with pytest.raises(TransactionBroken):
            await ends_it("commit; begin")


@on_loop
async def test_a_transaction_waits_for_a_lock_of_a_stranger(ledger_url: str) -> None:
    """A table lock held by somebody else delays the step, and does not fail it."""
    async with Perdure(ledger_url):
        with psycopg.connect(ledger_url) as stranger:
            stranger.execute("lock table ledger in access exclusive mode")
            handle = await calls.start("locked")
            waits = "select 1 from pg_locks where not granted"
            await asyncio.to_thread(until, lambda: rows(ledger_url, waits))
            assert await handle.status() == "running"
            stranger.rollback()
        assert await handle.result(timeout=20) == 0


def test_wrong_declarations_are_refused() -> None:
    """A lock mode or an isolation that does not exist, and a function without a connection, are refused."""
    with pytest.raises(DefinitionError, match="exclusiv"):
        transaction(lock={"ledger": "exclusiv"})(lambda conn: None)

    with pytest.raises(DefinitionError, match="connection"):

        @transaction  # type: ignore[arg-type]
        def no_connection() -> None: ...

    with pytest.raises((DefinitionError, ValueError), match="snapshot"):

        @transaction(isolation="snapshot")  # type: ignore[call-overload,untyped-decorator]
        def strange(conn: Connection) -> None: ...
