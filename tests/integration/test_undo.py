"""What a run has done is undone when it fails, is cancelled or runs out of time: newest first, each step once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure import (
    AsyncConnection,
    Connection,
    Perdure,
    Retry,
    WorkflowCancelled,
    WorkflowTimeout,
    step,
    sync,
    transaction,
    workflow,
)
from tests.api_tools import on_loop, rows, until_true

log: list[str] = []
UNDONE = "select name from perdure.steps where position like '!undo/%' order by grp, ord"


def forget_a(result: str, name: str, *, loud: bool = False) -> None:
    log.append(f"plain {result} {name} {loud}")


@step(name="undo.forget_b")
async def forget_b(result: int, name: str) -> None:
    log.append(f"step {result} {name}")


@transaction(name="undo.forget_c")
async def forget_c(conn: AsyncConnection, result: list[str], name: str) -> None:
    await conn.execute("insert into undone values (%s)", (f"{result} {name}",))
    log.append("transaction")


@transaction(name="undo.forget_c_blocking")
def forget_c_blocking(conn: Connection, result: list[str], name: str) -> None:
    conn.execute("insert into undone values (%s)", (f"{result} {name}",))
    log.append("transaction")


@step(name="undo.do_a", compensate=forget_a)
async def do_a(name: str, *, loud: bool = False) -> str:
    return f"did {name}"


@step(name="undo.do_a_blocking", compensate=forget_a)
def do_a_blocking(name: str, *, loud: bool = False) -> str:
    return f"did {name}"


@step(name="undo.do_b", compensate=forget_b)
async def do_b(name: str) -> int:
    return len(name)


@step(name="undo.do_b_blocking", compensate=forget_b)
def do_b_blocking(name: str) -> int:
    return len(name)


@step(name="undo.do_c", compensate=forget_c)
async def do_c(name: str) -> list[str]:
    return [name]


@step(name="undo.do_c_blocking", compensate=forget_c_blocking)
def do_c_blocking(name: str) -> list[str]:
    return [name]


@workflow(name="undo.three")
async def three(how: str) -> str:
    await do_a("one", loud=True)
    await do_b("two")
    await do_c("three")
    if how == "fails":
        raise LookupError("in the end")
    await perdure.sleep(3600 if how == "waits" else 0)
    return "well"


@workflow(name="undo.three_blocking")
def three_blocking(how: str) -> str:
    do_a_blocking("one", loud=True)
    do_b_blocking("two")
    do_c_blocking("three")
    if how == "fails":
        raise LookupError("in the end")
    sync.sleep(3600 if how == "waits" else 0)
    return "well"


UNDO_OF_THREE = ["transaction", "step 3 two", "plain did one one True"]
flows = pytest.mark.parametrize("flow", [three, three_blocking], ids=["async", "blocking"])


@pytest.fixture(autouse=True)
def _fresh(database_url: str) -> None:
    log.clear()
    rows(database_url, "create table undone (what text)")


async def waits(url: str) -> None:
    await until_true(lambda: asyncio.to_thread(rows, url, "select 1 from perdure.steps having count(*) >= 3"))


@flows
@on_loop
async def test_a_failed_run_is_undone_newest_first(flow: Any, database_url: str) -> None:
    """With each step's result and arguments; by a function, a step, a transaction; the error is still the run's."""
    async with Perdure(database_url):
        handle = await perdure.start(flow, "fails")
        with pytest.raises(LookupError, match="in the end"):
            await handle.result(timeout=30)
    assert log == UNDO_OF_THREE
    assert rows(database_url, "select what from undone") == [("['three'] three",)]
    assert len(rows(database_url, UNDONE)) == 3


@flows
@on_loop
async def test_a_cancelled_run_is_undone(flow: Any, database_url: str) -> None:
    """The same, and it ends as cancelled; while it is undone it is `cancelling`."""
    async with Perdure(database_url):
        handle = await perdure.start(flow, "waits")
        await waits(database_url)
        assert await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)
        assert await handle.status() == "cancelled"
    assert log == UNDO_OF_THREE


@flows
@on_loop
async def test_a_run_that_is_out_of_time_is_undone(flow: Any, database_url: str) -> None:
    """The same for `timeout=`."""
    async with Perdure(database_url):
        handle = await perdure.start(flow.options(timeout=1), "waits")
        with pytest.raises(WorkflowTimeout):
            await handle.result(timeout=30)
    assert log == UNDO_OF_THREE


@flows
@on_loop
async def test_a_run_that_succeeds_is_not_undone(flow: Any, database_url: str) -> None:
    """Nothing is called, nothing is recorded of it."""
    async with Perdure(database_url):
        assert await (await perdure.start(flow, "succeeds")).result(timeout=30) == "well"
    assert log == []
    assert rows(database_url, UNDONE) == []


def stubborn(result: str, name: str) -> None:
    log.append(f"tried {name}")
    raise ConnectionError(f"{name} cannot be undone")


stubborn_step = step(name="undo.stubborn", retry=Retry(max_attempts=2, delay=0))(stubborn)


@step(name="undo.do_stubborn", compensate=stubborn_step)
async def do_stubborn(name: str) -> str:
    return name


@workflow(name="undo.partly")
async def partly() -> None:
    await do_a("first")
    await do_stubborn("second")
    await do_b("third")
    raise LookupError("in the end")


@on_loop
async def test_one_that_cannot_be_undone_keeps_no_other_from_it(database_url: str) -> None:
    """After all its attempts the next is undone, and the run's error says what was not."""
    async with Perdure(database_url):
        with pytest.raises(LookupError, match="in the end") as caught:
            await partly()
    assert log == ["step 5 third", "tried second", "tried second", "plain did first first False"]
    notes = "\n".join(caught.value.__notes__)
    assert "not undone: undo.stubborn failed" in notes
    assert "second cannot be undone" in notes


@workflow(name="undo.caught")
async def caught_inside() -> str:
    await do_a("kept")
    try:
        await refuse("x")
    except PermissionError:
        return "handled"
    return "never"


@step(name="undo.refuse", compensate=forget_a)
async def refuse(name: str) -> str:
    raise PermissionError(name)


@workflow(name="undo.refused")
async def refused() -> None:
    await do_a("kept")
    await refuse("x")


@on_loop
async def test_a_step_that_raised_has_nothing_to_undo(database_url: str) -> None:
    """What its body raises is its outcome; where the code handles that, the run succeeds and keeps all it did."""
    async with Perdure(database_url):
        assert await caught_inside() == "handled"
        assert log == []
        with pytest.raises(PermissionError):
            await refused()
    assert log == ["plain did kept kept False"]


@workflow(name="undo.branches")
async def branches() -> None:
    async def branch(name: str) -> None:
        await do_a(f"{name}1")
        await do_a(f"{name}2")

    await do_a("before")
    await asyncio.gather(branch("l"), branch("r"))
    raise LookupError("after them")


@workflow(name="undo.branches_blocking")
def branches_blocking() -> None:
    def branch(name: str) -> None:
        do_a_blocking(f"{name}1")
        do_a_blocking(f"{name}2")

    do_a_blocking("before")
    sync.gather(lambda: branch("l"), lambda: branch("r"))
    raise LookupError("after them")


@pytest.mark.parametrize("flow", [branches, branches_blocking], ids=["async", "blocking"])
@on_loop
async def test_steps_of_branches_are_undone_in_the_order_in_which_the_code_heard_of_them(
    flow: Any, database_url: str
) -> None:
    """Newest first over all branches: the record of results, read backwards."""
    async with Perdure(database_url):
        handle = await perdure.start(flow)
        with pytest.raises(LookupError):
            await handle.result(timeout=30)
    done = rows(
        database_url,
        "select convert_from(value, 'UTF8') from perdure.steps where name like 'undo.do_a%' order by grp, ord",
    )
    heard = [value.strip('"').removeprefix("did ") for (value,) in done]
    assert len(heard) == 5
    assert [line.split()[-2] for line in log] == heard[::-1]


@workflow(name="undo.child")
async def child() -> None:
    await do_a("in the child")
    raise LookupError("the child fails")


@workflow(name="undo.parent")
async def parent() -> None:
    await do_a("in the parent")
    await child()


@on_loop
async def test_a_failed_child_is_undone_before_its_parent(database_url: str) -> None:
    """Each run undoes its own steps; the parent hears of the failure after that."""
    async with Perdure(database_url):
        with pytest.raises(LookupError):
            await parent()
    assert [line.rsplit(" ", 1)[0] for line in log] == [
        "plain did in the child in the child", "plain did in the parent in the parent",
    ]  # fmt: skip


@step(name="undo.undoes_itself_undoable", compensate=forget_b)
async def undoes(result: str, name: str) -> int:
    log.append("undone")
    return 1


@step(name="undo.do_chain", compensate=undoes)
async def do_chain(name: str) -> str:
    return name


@workflow(name="undo.chain")
async def chain() -> None:
    await do_chain("x")
    raise LookupError("in the end")


@on_loop
async def test_what_undoes_is_not_undone_itself(database_url: str) -> None:
    """A compensation that has a `compensate=` of its own, for when it is called as a step, stands."""
    async with Perdure(database_url):
        with pytest.raises(LookupError):
            await chain()
    assert log == ["undone"]
