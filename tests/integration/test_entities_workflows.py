"""Commands from workflows: each is a step, which counts once, is answered from the record, and can be cancelled only whole."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import Perdure, WorkflowCancelled, sync, workflow
from tests.api_tools import on_loop, rows, until_true
from tests.entity_tools import (
    COLOURS,
    TRANSFER,
    Account,
    Diary,
    InsufficientFunds,
    asked,
    balances,
    carried_out,
    holding,
)

both = pytest.mark.parametrize("colour", COLOURS)
executed: list[str] = []


@both
@on_loop
async def test_a_transfer_is_carried_out(colour: str, database_url: str) -> None:
    """Two commands, two steps; which run gave them is in the database."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(10))
        handle = await perdure.start(TRANSFER[colour].options(id="t"), "a", "b", Decimal(4))
        assert await handle.result(20) == "done"
        kinds = [(info.kind, info.name, info.failed) for info in await handle.steps()]
    assert kinds == [
        ("command", "bank.account.withdraw", False),
        ("command", "bank.account.deposit", False),
    ]
    assert balances(database_url) == {"a": Decimal(6), "b": Decimal(4)}
    by_run = "select count(*) from perdure.commands c join perdure.runs r on r.key = c.run where r.id = 't'"
    assert rows(database_url, by_run) == [(2,)]


@both
@on_loop
async def test_an_error_is_recorded_as_its_class(colour: str, database_url: str) -> None:
    """The workflow catches it with its fields; it is a failed step, and the object is as it was."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(3))
        handle = await perdure.start(TRANSFER[colour], "a", "b", Decimal(4))
        assert await handle.result(20) == "there is only 3"
        assert [info.failed for info in await handle.steps()] == [True]
    assert balances(database_url) == {"a": Decimal(3)}
    assert carried_out(database_url) == 1


@workflow(name="bank.rested")
async def rested(key: str) -> list[str]:
    seen = [str(await Account.deposit(key, Decimal(2)))]
    try:
        await Account.withdraw(key, Decimal(5))
    except InsufficientFunds as error:
        seen.append(f"only {error.balance}")
    seen.append(str((await Account.get(key)).balance))
    await perdure.receive("go on")
    executed.append("after the rest")
    return [*seen, str(await Account.deposit(key, Decimal(1)))]


@workflow(name="bank.rested_blocking")
def rested_blocking(key: str) -> list[str]:
    seen = [str(sync.call(Account.deposit, key, Decimal(2)))]
    try:
        sync.call(Account.withdraw, key, Decimal(5))
    except InsufficientFunds as error:
        seen.append(f"only {error.balance}")
    seen.append(str(sync.get(Account, key).balance))
    sync.receive("go on")
    executed.append("after the rest")
    return [*seen, str(sync.call(Account.deposit, key, Decimal(1)))]


RESTED: dict[str, Any] = {"async": rested, "blocking": rested_blocking}


@both
@on_loop
async def test_a_replay_sees_what_was_and_gives_nothing_again(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results, errors and what `get` found come from the record, although the object has changed meanwhile."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    executed.clear()
    async with Perdure(database_url, grace=0):
        handle = await perdure.start(RESTED[colour], "a")
        await until_true(lambda: asked(database_url, "select 1 from perdure.live where status = 4"))
        await Account.deposit("a", Decimal(100))
        assert executed == []
        await handle.send("go on", None)
        assert await handle.result(20) == ["2", "only 2", "2", "103"]
    assert balances(database_url) == {"a": Decimal(103)}
    assert carried_out(database_url) == 3


@workflow(name="bank.branches")
async def branches(keys: list[str]) -> list[str]:
    async def one(key: str) -> str:
        try:
            return str(await Account.withdraw(key, Decimal(1)))
        except InsufficientFunds:
            return "none"

    return await asyncio.gather(*(one(key) for key in keys))


@workflow(name="bank.branches_blocking")
def branches_blocking(keys: list[str]) -> list[str]:
    def one(key: str) -> str:
        try:
            return str(sync.call(Account.withdraw, key, Decimal(1)))
        except InsufficientFunds:
            return "none"

    return sync.gather(*(partial(one, key) for key in keys))


BRANCHES: dict[str, Any] = {"async": branches, "blocking": branches_blocking}


@both
@on_loop
async def test_branches_give_commands_side_by_side(colour: str, database_url: str) -> None:
    """On one object and on others, with failures between: each once, and one place in the order for each."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(6))
        await Account.deposit("b", Decimal(2))
        handle = await perdure.start(BRANCHES[colour], ["a", "b"] * 8)
        result = await handle.result(20)
        groups = [(info.group, info.failed) for info in await handle.steps()]
    assert sorted(result[::2]) == ["0", "1", "2", "3", "4", "5", "none", "none"]
    assert sorted(result[1::2]) == ["0", "1", *["none"] * 6]
    assert len({group for group, _ in groups}) == 16
    assert sum(failed for _, failed in groups) == 8
    assert balances(database_url) == {"a": Decimal(0), "b": Decimal(0)}


@workflow(name="bank.raced")
async def raced(slow: str, fast: str) -> list[str]:
    """A branch whose command waits for a stranger is cancelled by the code; the others go on."""
    first = asyncio.create_task(Account.deposit(slow, Decimal(1)))
    await asyncio.sleep(0)
    first.cancel()
    seen = []
    try:
        await first
    except asyncio.CancelledError:
        seen.append("cancelled")
    seen.append(str(await Account.deposit(fast, Decimal(1))))
    await perdure.receive("go on")
    return [*seen, str(await Account.deposit(fast, Decimal(1)))]


@on_loop
async def test_a_cancelled_branch_s_command_counts_once_or_not_at_all(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever it is, the code saw that it was cancelled, and a replay sees the same."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    async with Perdure(database_url, grace=0):
        with holding(database_url, "slow"):
            handle = await raced.start("slow", "fast")
            await until_true(lambda: asked(database_url, "select 1 from perdure.live where status = 4"))
        await handle.send("go on", None)
        assert await handle.result(20) == ["cancelled", "1", "2"]
    assert balances(database_url).pop("slow", Decimal(0)) in (Decimal(0), Decimal(1))


@workflow(name="bank.cancelled")
async def cancelled(key: str) -> None:
    try:
        executed.append(str(await Account.deposit(key, Decimal(1))))
    except asyncio.CancelledError:
        executed.append("cancelled at the command")
        raise
    await Account.deposit(key, Decimal(10))


@workflow(name="bank.cancelled_blocking")
def cancelled_blocking(key: str) -> None:
    try:
        executed.append(str(sync.call(Account.deposit, key, Decimal(1))))
    except perdure.Cancelled:
        executed.append("cancelled at the command")
        raise
    sync.call(Account.deposit, key, Decimal(10))


@both
@on_loop
async def test_a_cancel_waits_for_a_command_on_its_way(colour: str, database_url: str) -> None:
    """It cannot be called back, so the code is told at its next call: what it saw of the command is what is there."""
    executed.clear()
    flow: Any = {"async": cancelled, "blocking": cancelled_blocking}[colour]
    async with Perdure(database_url, grace=0):
        with holding(database_url, "a"):
            handle = await perdure.start(flow, "a")
            waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name ~ 'commands'"
            await until_true(lambda: asked(database_url, waits))
            assert await handle.cancel()
            await until_true(lambda: asked(database_url, waits))
        with pytest.raises(WorkflowCancelled):
            await handle.result(20)
    assert executed == ["1"]
    assert balances(database_url) == {"a": Decimal(1)}


@workflow(name="bank.shared_turn")
async def shared_turn(count: int) -> int:
    last = 0
    for number in range(count):
        last = await Diary.write("shared", f"{perdure.info().run_id} {number}")
    return last


@on_loop
async def test_many_runs_on_one_object_each_keep_their_order(database_url: str) -> None:
    """Fifty runs write twenty lines each into one diary: a thousand lines, those of a run in its order."""
    async with Perdure(database_url, grace=0):
        await asyncio.gather(*(shared_turn.options(id=f"r{number}")(20) for number in range(50)))
        lines = (await Diary.get("shared")).lines
    assert len(lines) == 1000
    for number in range(50):
        own = [line.split()[1] for line in lines if line.startswith(f"r{number} ")]
        assert own == [str(place) for place in range(20)]
