"""Waiting until something holds for an object: at once, later, not in time; hints only save time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal

import pytest

import perdure
from perdure import Perdure, SerializationError, WaitTimeout, sync, workflow
from tests.api_tools import on_loop, rows, until_true
from tests.entity_tools import COLOURS, WAIT_FOR, Account
from tests.message_tools import silence

both = pytest.mark.parametrize("colour", COLOURS)


def rich(account: Account) -> bool:
    return account.balance >= 10


async def watched(app: Perdure) -> None:
    """Wait until somebody waits for an object here."""
    watching = app.engine.mail.entities

    async def look() -> bool:
        return bool(watching)

    await until_true(look)


@on_loop
async def test_what_holds_already_is_returned_at_once(database_url: str) -> None:
    """Also of an object that had no command; a timeout of 0 is enough."""
    async with Perdure(database_url, grace=0):
        assert await Account.when("nobody", lambda account: not account.balance, timeout=0) == Account()
        await Account.deposit("a", Decimal(10))
        assert (await Account.when("a", rich, timeout=0)).balance == Decimal(10)


@on_loop
async def test_what_comes_to_hold_later_ends_the_wait(database_url: str) -> None:
    """Changes that do not meet the condition are looked at, and the wait goes on; many can wait for one object."""
    seen: list[Decimal] = []

    def looked_at(account: Account) -> bool:
        seen.append(account.balance)
        return rich(account)

    async with Perdure(database_url, grace=0) as app:
        waiting = [asyncio.create_task(Account.when("a", looked_at, timeout=30))]
        waiting += [asyncio.create_task(Account.when("a", rich, timeout=30)) for _ in range(20)]
        await watched(app)
        await Account.deposit("a", Decimal(4))
        await until_true(lambda: asyncio.sleep(0, Decimal(4) in seen))
        await Account.deposit("a", Decimal(8))
        assert {account.balance for account in await asyncio.gather(*waiting)} == {Decimal(12)}
        assert not app.engine.mail.entities, "a watch is left behind"


@both
def test_what_does_not_come_to_hold_is_a_timeout(colour: str, database_url: str) -> None:
    """`WaitTimeout`, with type and key, in both colours; nobody watches any more."""
    with sync.Perdure(database_url, grace=0) as app:
        with pytest.raises(WaitTimeout, match=r"bank\.account 'a' was not so within 0\.05 s"):
            WAIT_BRIEFLY[colour]()
        assert not app.engine.mail.entities


async def wait_briefly() -> Account:
    return await Account.when("a", rich, timeout=0.05)


WAIT_BRIEFLY: dict[str, Callable[[], Account]] = {
    "async": lambda: asyncio.run(wait_briefly()),
    "blocking": lambda: sync.when(Account, "a", rich, timeout=0.05),
}


@both
@on_loop
async def test_a_change_by_another_is_found_without_hints(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens and nobody hints: the poll finds it, from a workflow of either colour and from outside."""
    silence(monkeypatch)
    async with Perdure(database_url, grace=0) as app, Perdure(database_url, worker=False) as other:
        with app.bind():
            handle = await perdure.start(WAIT_FOR[colour], "a", Decimal(10))
            outside = asyncio.create_task(Account.when("a", rich, timeout=30))
            await watched(app)
            with other.bind():
                await Account.deposit("a", Decimal(11))
            assert await handle.result(20) == Decimal(11)
            assert (await outside).balance == Decimal(11)


@both
@on_loop
async def test_a_workflow_waits_and_the_answer_is_recorded(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step; a timeout is caught in the code as `WaitTimeout`."""
    async with Perdure(database_url, grace=0) as app:
        handle = await perdure.start(WAIT_FOR[colour], "a", Decimal(10), 30)
        await watched(app)
        await Account.deposit("a", Decimal(10))
        assert await handle.result(20) == Decimal(10)
        assert [(info.kind, info.name) for info in await handle.steps()] == [("command", "bank.account/a")]
        late = await perdure.start(WAIT_FOR[colour], "b", Decimal(10), 0.05)
        assert await late.result(20) == "bank.account 'b' was not so within 0.05 s"
        assert [info.failed for info in await late.steps()] == [True]


@both
@on_loop
async def test_a_wait_goes_on_where_its_run_goes_on(colour: str, database_url: str) -> None:
    """The app closes in the middle of it; another one takes the run over, and finds the change."""
    async with Perdure(database_url, grace=0) as app:
        await perdure.start(WAIT_FOR[colour].options(id="w"), "a", Decimal(10))
        await watched(app)
    async with Perdure(database_url, grace=0) as app:
        await Account.deposit("a", Decimal(10))
        assert "'10'" in str(await app.handle("w").result(20))


@workflow(name="bank.wait_badly")
async def wait_badly(branches: int) -> list[str]:
    async def one() -> str:
        try:
            await Account.when("a", lambda account: bool(1 / (account.balance - 1)))
        except Exception as error:
            return type(error).__name__
        return "fine"

    if branches == 1:
        return [await one()]
    return await asyncio.gather(*(one() for _ in range(branches)))


@pytest.mark.parametrize("branches", [1, 3])
@on_loop
async def test_a_condition_that_raises_is_recorded(branches: int, database_url: str) -> None:
    """The code gets its error, in a branch too; it is a failed step, which a replay finds."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(1))
        handle = await wait_badly.start(branches)
        assert await handle.result(20) == ["DivisionByZero"] * branches
        assert [info.failed for info in await handle.steps()] == [True] * branches


@pytest.mark.parametrize("branches", [1, 3])
@on_loop
async def test_an_object_that_cannot_be_read_is_an_error_in_the_code(
    branches: int, database_url: str
) -> None:
    """Its state was written by hand: the run sees `SerializationError` and is not parked; so do `get` and `when`."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(5))
        rows(database_url, """update perdure.entities set state = '{"balance": []}'""")
        assert await wait_badly(branches) == ["SerializationError"] * branches
        with pytest.raises(SerializationError, match="balance"):
            await Account.get("a")
        with pytest.raises(SerializationError, match="balance"):
            await Account.when("a", rich, timeout=5)


@on_loop
async def test_an_object_whose_state_was_taken_away_is_as_it_is_made(database_url: str) -> None:
    """`state = null` by hand: `get`, `when` and commands find a new object, and others' waits are not disturbed."""
    async with Perdure(database_url, grace=0) as app:
        await Account.deposit("a", Decimal(5))
        other = asyncio.create_task(Account.when("b", rich, timeout=30))
        waiting = asyncio.create_task(Account.when("a", lambda account: account.balance == 0, timeout=30))
        await watched(app)
        rows(database_url, "update perdure.entities set state = null, version = version + 1 where key = 'a'")
        assert await waiting == Account()
        assert await Account.get("a") == Account()
        await Account.deposit("b", Decimal(10))
        await other
        assert await Account.deposit("a", Decimal(1)) == Decimal(1)


@on_loop
async def test_a_cancelled_wait_leaves_nothing_behind(database_url: str) -> None:
    """Neither outside nor in a run that is cancelled."""
    async with Perdure(database_url, grace=0) as app:
        outside = asyncio.create_task(Account.when("a", rich))
        handle = await perdure.start(WAIT_FOR["async"], "a", Decimal(10))
        await watched(app)
        outside.cancel()
        assert await handle.cancel()
        with pytest.raises(perdure.WorkflowCancelled):
            await handle.result(20)
        await until_true(lambda: asyncio.sleep(0, not app.engine.mail.entities))


@on_loop
async def test_thousands_can_wait(database_url: str) -> None:
    """More objects than are looked at in one go: each wait ends, in seconds."""
    count = 2500
    async with Perdure(database_url, grace=0) as app:
        waiting = [asyncio.create_task(Account.when(f"k{n}", rich, timeout=60)) for n in range(count)]
        await watched(app)
        began = time.monotonic()
        await asyncio.gather(*(Account.deposit(f"k{n}", Decimal(10)) for n in range(count)))
        assert len(await asyncio.gather(*waiting)) == count
        assert time.monotonic() - began < 30
