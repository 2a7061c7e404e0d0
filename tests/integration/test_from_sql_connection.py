"""`connection=`: a start in the caller's own transaction of psycopg, in both colours; what it does not allow, it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import perdure
from perdure import (
    AsyncConnection,
    Connection,
    Perdure,
    PerdureError,
    RunEnded,
    WorkflowConflict,
    WorkflowNotFound,
    WrongColour,
    step,
    sync,
    transaction,
    workflow,
)
from tests.api_tools import on_loop, rows, until

attempts: list[str] = []


@workflow(name="borrowed.add")
def add(a: int, b: int = 10) -> int:
    return a + b


@workflow(name="borrowed.add_async", timeout=3600)
async def add_async(a: int, b: int = 10) -> int:
    return a + b


@workflow(name="borrowed.hear")
async def hear() -> Any:
    return await perdure.receive("t")


@contextmanager
def own(url: str, **settings: Any) -> Iterator[psycopg.Connection[Any]]:
    """The caller's connection, to the database in which the orders are."""
    with psycopg.connect(url, **settings) as connection:
        yield connection
        if not connection.closed:
            connection.rollback()


@pytest.fixture
def shop_url(database_url: str) -> str:
    """A database with a table of the user's."""
    rows(database_url, "create table orders (id integer primary key)")
    return database_url


def test_row_and_run_are_committed_together(shop_url: str) -> None:
    """In blocking code: after a rollback neither is there, after a commit both, and the handle has the result."""
    with sync.Perdure(shop_url, grace=0) as app, own(shop_url) as conn:
        handles: list[Any] = []
        for end in ("rollback", "commit"):
            conn.execute("insert into orders values (1)")
            handles = [
                add.options(connection=conn).start(1),
                sync.start(add_async.options(connection=conn, id="a"), 1, b=2),
                app.start("borrowed.add", [1], {"b": 3}, connection=conn),
            ]
            assert [handle.created for handle in handles] == [True] * 3
            assert rows(shop_url, "select * from perdure.runs") == []
            deadlines = conn.execute("select count(deadline) from perdure.live").fetchone()
            assert deadlines == (1,)  # that of the decorator, which Python knows
            getattr(conn, end)()
            if end == "rollback":
                assert rows(shop_url, "select * from orders") == []
                for handle in handles:
                    with pytest.raises(WorkflowNotFound, match="was not committed"):
                        handle.result(10)
        assert [handle.result(30) for handle in handles] == [11, 3, 4]
        assert app.runs.count() == 3


@on_loop
async def test_row_and_run_are_committed_together_in_async_code(shop_url: str) -> None:
    """The same, awaited."""
    async with (
        Perdure(shop_url, grace=0) as app,
        await psycopg.AsyncConnection.connect(shop_url) as conn,
    ):
        handles: list[Any] = []
        for end in ("rollback", "commit"):
            await conn.execute("insert into orders values (1)")
            handles = [
                await add_async.options(connection=conn).start(1),
                await perdure.start(add.options(connection=conn, id="a"), 1, b=2),
                await app.start("borrowed.add", [1], {"b": 3}, connection=conn),
            ]
            await getattr(conn, end)()
            if end == "rollback":
                for handle in handles:
                    with pytest.raises(WorkflowNotFound, match="was not committed"):
                        await handle.result(10)
        assert [await handle.result(30) for handle in handles] == [11, 3, 4]


def test_a_handle_says_to_commit_first(shop_url: str) -> None:
    """While the transaction is open, whatever the handle is asked for; then all of it works."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        handle = sync.start(hear.options(connection=conn, id="a"))
        asked: list[Any] = [
            handle.result,
            handle.status,
            handle.describe,
            handle.steps,
            handle.events,
            handle.cancel,
            lambda: handle.send("t", 1),
            lambda: handle.update("u", 1),
            lambda: handle.get_event("e"),
            lambda: next(iter(handle.stream("s"))),
        ]
        for ask in asked:
            with pytest.raises(
                PerdureError, match="run a was started in a transaction that is still open: commit"
            ):
                ask()
        conn.commit()
        conn.execute("select 1")  # another transaction is open on it now: that is nothing to the run
        assert handle.status().final is False
        handle.send("t", "heard")
        assert handle.result(30) == "heard"


@on_loop
async def test_a_handle_of_async_code_says_so_too(shop_url: str) -> None:
    """Each of its calls when it is awaited, its stream when it is read."""
    async with Perdure(shop_url, grace=0), await psycopg.AsyncConnection.connect(shop_url) as conn:
        handle = await hear.options(connection=conn).start()
        calls: list[Any] = [
            handle.result(),
            handle.status(),
            handle.describe(),
            handle.steps(),
            handle.events(),
            handle.cancel(),
            handle.send("t", 1),
            handle.update("u", 1),
            handle.get_event("e"),
            anext(handle.stream("s")),
        ]
        for call in calls:
            with pytest.raises(PerdureError, match="still open: commit it first"):
                await call
        await conn.commit()
        await handle.send("t", 1)
        assert await handle.result(30) == 1


def test_a_run_that_is_there_already_can_be_waited_for(shop_url: str) -> None:
    """A start that attached to a run which others see: its handle need not wait for the commit."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        assert add.options(id="a").start(1).result(30) == 11
        handle = add.options(connection=conn, id="a").start(1)
        assert (handle.created, handle.result(30)) == (False, 11)


def test_a_connection_in_autocommit_mode_commits_at_once(shop_url: str) -> None:
    """Outside of a transaction; inside of one it is that which decides."""
    with sync.Perdure(shop_url, grace=0), own(shop_url, autocommit=True) as conn:
        assert add.options(connection=conn).start(1).result(30) == 11
        with conn.transaction(force_rollback=True):
            handle = add.options(connection=conn).start(1)
            with pytest.raises(PerdureError, match="still open"):
                handle.result()
        with pytest.raises(WorkflowNotFound):
            handle.result()


def test_a_closed_connection_is_no_open_transaction(shop_url: str) -> None:
    """Its transaction is gone, and so is the run."""
    with sync.Perdure(shop_url, grace=0):
        with own(shop_url) as conn:
            handle = add.options(connection=conn).start(1)
            conn.close()
        with pytest.raises(WorkflowNotFound, match="was not committed"):
            handle.result()


def test_the_connection_stays_as_it_is(shop_url: str) -> None:
    """Its rows are dictionaries, its cursors are the client's own, and neither is changed."""
    settings: Any = {"row_factory": dict_row, "cursor_factory": psycopg.ClientCursor}
    with sync.Perdure(shop_url, grace=0), own(shop_url, **settings) as conn:
        handle = add.options(connection=conn, tags={"a": "%s"}).start(1)
        assert conn.execute("select 1 as one").fetchone() == {"one": 1}
        with conn.pipeline():
            second = add.options(connection=conn).start(2)
        conn.commit()
        assert (handle.result(30), second.result(30)) == (11, 12)


def test_conflicts_leave_the_transaction_whole(shop_url: str) -> None:
    """A taken id raises as ever, and the caller can go on and commit."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        add.options(id="a").start(1).result(30)
        with pytest.raises(WorkflowConflict, match="there is a run with the id 'a' already"):
            add.options(connection=conn, id="a", on_conflict="reject").start(1)
        with pytest.raises(
            WorkflowConflict, match=r"belongs to a run of borrowed\.add, not of borrowed\.hear"
        ):
            sync.start(hear.options(connection=conn, id="a"))
        conn.execute("insert into orders values (1)")
        conn.commit()
        assert rows(shop_url, "select * from orders") == [(1,)]


def test_a_message_goes_with_it(shop_url: str) -> None:
    """In the same commit; to one that has ended it cannot be sent."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        handle = sync.start(hear.options(connection=conn, id="a", send=("t", {"x": None})))
        conn.commit()
        assert handle.result(30) == {"x": None}
        with pytest.raises(RunEnded, match="run a has ended"):
            sync.start(hear.options(connection=conn, id="a", send=("t", 1)))


def test_wrong_calls_are_refused_before_anything_is_sent(shop_url: str) -> None:
    """Arguments, options, colours and things that are no connection: the transaction is as it was."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        wrong: Any = add
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            wrong.options(connection=conn).start()
        with pytest.raises(perdure.SerializationError, match="argument 'a'"):
            wrong.options(connection=conn).start("one")
        for thing in ("postgresql://", object(), psycopg):
            with pytest.raises(
                TypeError, match=r"connection= takes an open psycopg.Connection .* `select perdure.start"
            ):
                wrong.options(connection=thing)
        with pytest.raises(ValueError, match="has no parent"):
            add.options(connection=conn, parent_close="abandon")
        with pytest.raises(PerdureError, match=r"connection= is for `\.start"):
            add.options(connection=conn)(1)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@on_loop
async def test_the_colour_of_a_connection_is_that_of_the_code(shop_url: str) -> None:
    """Either way round, and a direct call is refused in async code too."""
    async with Perdure(shop_url, grace=0), await psycopg.AsyncConnection.connect(shop_url) as conn:
        with pytest.raises(PerdureError, match=r"connection= is for `\.start"):
            await add_async.options(connection=conn)(1)
        asks = pytest.raises(WrongColour, match=r"takes a psycopg.AsyncConnection in async code")
        with own(shop_url) as blocking, asks:
            await add_async.options(connection=blocking).start(1)
        with pytest.raises(WrongColour, match=r"takes a psycopg.Connection in blocking code"):
            await asyncio.to_thread(lambda: add.options(connection=conn).start(1))


def test_another_database_is_refused(shop_url: str, server: Any) -> None:
    """One without perdure, and one with it: nothing is started there."""
    elsewhere = server.create_database()
    try:
        with sync.Perdure(shop_url, grace=0):
            with own(elsewhere) as conn, pytest.raises(PerdureError, match="there is no schema 'perdure'"):
                add.options(connection=conn).start(1)
            with sync.Perdure(elsewhere, worker=False):
                pass
            with own(elsewhere) as conn:
                with pytest.raises(PerdureError, match="leads to another database"):
                    add.options(connection=conn).start(1)
                conn.commit()
            assert rows(elsewhere, "select * from perdure.runs") == []
    finally:
        server.drop_database(elsewhere)


def test_a_broken_transaction_is_the_callers_own_error(shop_url: str) -> None:
    """What psycopg says of it comes out as it is."""
    with sync.Perdure(shop_url, grace=0), own(shop_url) as conn:
        with pytest.raises(psycopg.errors.UndefinedTable):
            conn.execute("select * from nowhere")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            add.options(connection=conn).start(1)


# -- inside a run --------------------------------------------------------------------------------------


@transaction
def ordered(conn: Connection, number: int) -> str:
    attempts.append("blocking")
    conn.execute("insert into orders values (%s)", (number,))
    handle = add.options(connection=conn).start(number)
    if len(attempts) == 1:
        raise psycopg.errors.SerializationFailure("again")
    with pytest.raises(PerdureError, match="still open"):
        handle.result()
    return handle.id


@transaction
async def ordered_async(conn: AsyncConnection, number: int) -> str:
    attempts.append("async")
    await conn.execute("insert into orders values (%s)", (number,))
    handle = await perdure.start(add.options(connection=conn), number)
    if len(attempts) == 1:
        raise psycopg.errors.SerializationFailure("again")
    with pytest.raises(PerdureError, match="still open"):
        await handle.result()
    return handle.id


@workflow(name="borrowed.order")
def order(number: int) -> str:
    id = ordered(number)
    sync.receive("go")
    return id


@workflow(name="borrowed.order_async")
async def order_async(number: int) -> str:
    id = await ordered_async(number)
    await perdure.receive("go")
    return id


@pytest.mark.parametrize("flow", [order, order_async])
def test_a_transaction_step_starts_it_exactly_once(flow: Any, shop_url: str) -> None:
    """An attempt that is rolled back starts nothing; one that is committed is not repeated by a replay."""
    attempts.clear()
    with sync.Perdure(shop_url, grace=0):
        handle = sync.start(flow.options(id="parent"), 1)
        until(lambda: rows(shop_url, "select 1 from perdure.waits where topic = 'go'"))
    assert len(attempts) == 2
    with sync.Perdure(shop_url, grace=0) as app:
        app.handle(handle.id).send("go", 1)
        id = app.handle("parent").result(30)
        assert app.handle(id).result(30) == 11
        assert len(attempts) == 2
        assert [run.id for run in app.runs.list(workflow="borrowed.add")] == [id]
        assert app.runs.get(id).info.parent is None
    assert rows(shop_url, "select * from orders") == [(1,)]


connections: dict[str, Any] = {}


@workflow(name="borrowed.wrong")
def wrong_place() -> str:
    try:
        add.options(connection=connections["blocking"]).start(1)
    except PerdureError as error:
        return str(error)
    return "started"


@workflow(name="borrowed.wrong_async")
async def wrong_place_async() -> str:
    try:
        await perdure.start(add.options(connection=connections["async"]), 1)
    except PerdureError as error:
        return str(error)
    return "started"


@step
def started_in_a_step(url: str) -> str:
    with psycopg.connect(url) as conn:
        return add.options(connection=conn, id="from a step").start(1).id


@workflow(name="borrowed.by_a_step")
def by_a_step(url: str) -> str:
    return started_in_a_step(url)


@on_loop
async def test_a_workflows_own_code_is_refused(shop_url: str) -> None:
    """A replay would start it again; the error names the way."""
    async with Perdure(shop_url, grace=0) as app, await psycopg.AsyncConnection.connect(shop_url) as conn:
        with own(shop_url) as blocking:
            connections.update({"async": conn, "blocking": blocking})
            for flow in (wrong_place, wrong_place_async):
                handle: Any = await perdure.start(flow)
                assert "Do it in a @transaction" in await handle.result(30)
            connections.clear()
        assert await app.runs.count(workflow="borrowed.add") == 0


def test_the_body_of_a_plain_step_may(shop_url: str) -> None:
    """On a connection of its own: at least once, so the id makes it once."""
    with sync.Perdure(shop_url, grace=0) as app:
        assert by_a_step(shop_url) == "from a step"
        assert app.handle("from a step").result(30) == 11
