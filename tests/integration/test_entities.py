"""Durable objects from outside of workflows: once for each id, one at a time, readable by SQL, in both colours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal

import pytest

from perdure import Entity, Perdure, PerdureError, command, step, sync, workflow
from tests.api_tools import on_loop, rows
from tests.entity_tools import Account, Diary, InsufficientFunds, asked, balances, carried_out


@on_loop
async def test_a_command_returns_its_result_and_is_there(database_url: str) -> None:
    """Async: result, state, version and history agree; arguments may be named."""
    async with Perdure(database_url, grace=0):
        assert await Account.deposit("a", Decimal(5)) == Decimal(5)
        assert await Account.withdraw("a", amount=Decimal(2)) == Decimal(3)
        assert await Account.get("a") == Account(balance=Decimal(3), entries=2)
        history = await Account.history("a")
    assert [(info.version, info.command, info.value) for info in history] == [
        (2, "bank.account.withdraw", b'"3"'),
        (1, "bank.account.deposit", b'"5"'),
    ]
    assert history[0].args == b'{"kwargs":{"amount":"2"}}'
    assert rows(database_url, "select version from perdure.entities") == [(2,)]


def test_a_command_in_blocking_code_is_the_same(database_url: str) -> None:
    """`sync.call` and `sync.get`: result, error and state."""
    with sync.Perdure(database_url, grace=0):
        assert sync.call(Account.deposit, "a", Decimal(5)) == Decimal(5)
        assert sync.call(Account.deposit.options(id="i"), "a", amount=Decimal(1)) == Decimal(6)
        assert sync.call(Account.deposit.options(id="i"), "a", amount=Decimal(1)) == Decimal(6)
        with pytest.raises(InsufficientFunds):
            sync.call(Account.withdraw, "a", Decimal(7))
        assert sync.get(Account, "a") == Account(balance=Decimal(6), entries=2)


@on_loop
async def test_an_object_without_commands_is_as_it_is_made(database_url: str) -> None:
    """`get` and `history` of it work, and leave no row."""
    async with Perdure(database_url, grace=0):
        assert await Account.get("nobody") == Account()
        assert await Account.history("nobody") == ()
    assert rows(database_url, "select 1 from perdure.entities") == []


@on_loop
async def test_a_command_that_raises_changes_nothing(database_url: str) -> None:
    """The error is of its class, with its fields; state, version and history are as they were."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(5))
        with pytest.raises(InsufficientFunds) as caught:
            await Account.withdraw("a", Decimal(6))
        assert caught.value.balance == Decimal(5)
        assert await Account.get("a") == Account(balance=Decimal(5), entries=1)
        with pytest.raises(InsufficientFunds):
            await Account.withdraw("new", Decimal(1))
    assert carried_out(database_url) == 1
    assert balances(database_url) == {"a": Decimal(5)}


@on_loop
async def test_an_id_is_carried_out_once_for_each_object(database_url: str) -> None:
    """The same id twice: one effect, the same result. On another key, with another id or without: again."""
    async with Perdure(database_url, grace=0):
        once = Account.deposit.options(id="pay-7")
        assert [await once("a", Decimal(5)) for _ in range(3)] == [Decimal(5)] * 3
        assert await once("b", Decimal(5)) == Decimal(5)
        assert await Account.deposit.options(id="pay-8")("a", Decimal(5)) == Decimal(10)
        together = await asyncio.gather(
            *(Account.deposit.options(id="t")("a", Decimal(1)) for _ in range(50))
        )
        assert together == [Decimal(11)] * 50
        assert await once("a", Decimal(5)) == Decimal(5), "the result of then, not of now"
    assert balances(database_url) == {"a": Decimal(11), "b": Decimal(5)}


@on_loop
async def test_an_id_whose_command_raised_can_be_given_again(database_url: str) -> None:
    """Nothing happened, so nothing is remembered."""
    async with Perdure(database_url, grace=0):
        once = Account.withdraw.options(id="w")
        with pytest.raises(InsufficientFunds):
            await once("a", Decimal(1))
        await Account.deposit("a", Decimal(1))
        assert await once("a", Decimal(1)) == Decimal(0)


@workflow(name="bank.deposit_one")
async def deposit_one(key: str) -> Decimal:
    return await Account.deposit(key, Decimal(1))


@on_loop
async def test_an_id_of_a_caller_is_never_the_one_of_a_workflow_s_command(database_url: str) -> None:
    """However it is spelt, it does not take the place of a command that a run is about to give."""
    async with Perdure(database_url, grace=0):
        assert await deposit_one("a") == Decimal(1)
        (pattern,) = rows(database_url, "select id from perdure.commands")[0]
        (last,) = rows(database_url, "select max(key) from perdure.runs")[0]
        for number in range(
            last + 20, last + 60
        ):  # each takes a key itself; the next run's is among the last
            spelt = pattern.replace(f"{last:x}", f"{number:x}")
            try:
                await Account.deposit.options(id=spelt)("b", Decimal(1000))
            except ValueError:
                break
        assert await deposit_one("b") % 1000 == 1, "the workflow's deposit was not carried out"


@on_loop
async def test_keys_and_ids_are_refused_where_no_index_could_hold_them(database_url: str) -> None:
    """The longest that are accepted can be stored, whatever their characters; longer ones raise in the caller."""
    wide = "".join(chr(0x10000 + (number * 7919) % 0xF000) for number in range(512))
    async with Perdure(database_url, grace=0):
        for length in (128, 256, 512):
            try:
                once = Account.deposit.options(id=wide[:length])
                coroutine = once(wide[-length:], Decimal(1))
            except ValueError:
                assert length > 128
            else:
                assert await coroutine == Decimal(1)


@on_loop
async def test_hundreds_on_one_key_are_one_after_the_other(database_url: str) -> None:
    """Every one sees what the one before it left, and no update is lost."""
    async with Perdure(database_url, grace=0):
        seen = await asyncio.gather(*(Account.deposit("hot", Decimal(1)) for _ in range(700)))
    assert sorted(seen) == [Decimal(number) for number in range(1, 701)]
    assert balances(database_url) == {"hot": Decimal(700)}
    assert carried_out(database_url) == 700


@on_loop
async def test_state_can_be_searched_in_sql(database_url: str) -> None:
    """By fields, with types: the state is JSON of the annotations."""
    async with Perdure(database_url, grace=0):
        await asyncio.gather(*(Account.deposit(f"k{n:02}", Decimal(f"{n}.50")) for n in range(20)))
        await Account.rename("k19", "Zoë")
    search = (
        "select key, state->>'owner' from perdure.entities"
        " where type = 'bank.account' and (state->>'balance')::numeric > 16.5 order by key"
    )
    assert rows(database_url, search) == [("k17", ""), ("k18", ""), ("k19", "Zoë")]


@on_loop
async def test_a_client_that_runs_nothing_can_give_commands(database_url: str) -> None:
    """`worker=False`: without a fence."""
    async with Perdure(database_url, worker=False):
        assert await Account.deposit("a", Decimal(5)) == Decimal(5)
        with pytest.raises(InsufficientFunds):
            await Account.withdraw("a", Decimal(6))


@step(name="bank.step")
async def in_a_step(amount: Decimal) -> Decimal:
    return await Account.deposit.options(id="from-a-step")("a", amount)


@workflow(name="bank.with_step")
async def with_step() -> list[Decimal]:
    return [await in_a_step(Decimal(1)), await in_a_step(Decimal(1))]


@on_loop
async def test_in_the_body_of_a_step_it_is_a_plain_call(database_url: str) -> None:
    """No step of its own; its id makes it once, however often the body runs."""
    async with Perdure(database_url, grace=0):
        handle = await with_step.start()
        assert await handle.result(20) == [Decimal(1)] * 2
        assert [info.kind for info in await handle.steps()] == ["step", "step"]
    assert balances(database_url) == {"a": Decimal(1)}


@workflow(name="bank.with_id")
async def with_id() -> str:
    try:
        await Account.deposit.options(id="x")("a", Decimal(1))
    except (PerdureError, ValueError) as error:
        return str(error)
    return "carried out"


@on_loop
async def test_an_id_in_a_workflow_is_refused(database_url: str) -> None:
    """There each call counts once as it is; an id that is ignored would promise more."""
    async with Perdure(database_url, grace=0):
        assert "outside of workflows" in await with_id()
    assert carried_out(database_url) == 0


@dataclass
class OldAccount(Entity, name="bank.evolving"):
    owner: str = "me"
    balance: int = 0

    @command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


@dataclass
class NewAccount(Entity, name="bank.evolving"):
    balance: int = 0
    currency: str = "EUR"

    @command
    def deposit(self, amount: int) -> str:
        self.balance += amount
        return f"{self.balance} {self.currency}"


@on_loop
async def test_newer_code_reads_the_state_of_older_code(database_url: str) -> None:
    """A new field has its default, a removed one is gone after the next command; history is kept."""
    async with Perdure(database_url, grace=0):
        await OldAccount.deposit("a", 5)
        assert await NewAccount.get("a") == NewAccount(5, "EUR")
        assert await NewAccount.deposit("a", 1) == "6 EUR"
        assert len(await NewAccount.history("a")) == 2
    assert rows(database_url, "select state from perdure.entities") == [({"balance": 6, "currency": "EUR"},)]


@on_loop
async def test_history_is_newest_first_and_bounded(database_url: str) -> None:
    """As many as asked for."""
    async with Perdure(database_url, grace=0):
        for number in range(5):
            await Diary.write("d", f"line {number}")
        assert [info.version for info in await Diary.history("d", limit=2)] == [5, 4]
    assert await asked(database_url, "select array_agg(version order by version) from perdure.commands") == [
        ([1, 2, 3, 4, 5],)
    ]
