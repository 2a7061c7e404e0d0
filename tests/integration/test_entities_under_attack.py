"""One bad command, one bad row or one slow stranger hurts nobody else, and no order of locks ends in a deadlock."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from perdure import (
    DatabaseUnavailable,
    Entity,
    PayloadTooLarge,
    Perdure,
    PerdureError,
    SerializationError,
    StepFailed,
    command,
    sync,
    workflow,
)
from perdure.store.batch import Batch
from perdure.store.entities import CommandRecord
from perdure.store.records import Ticket
from tests.api_tools import on_loop, rows
from tests.entity_tools import Account, Diary, RawCommands, balances, counting, holding
from tests.protocol_tools import RawWorker, in_thread


@dataclass
class Trap(Entity, name="bank.trap_door"):
    count: int = 0

    @command
    def leave(self) -> None:
        raise SystemExit(3)

    @command
    def cancel(self) -> None:
        raise asyncio.CancelledError

    @command
    def nest(self) -> Decimal:
        return sync.call(Account.deposit, "nested", Decimal(1))


async def innocents(count: int = 50) -> None:
    """Give commands on other objects, all at once, and wait for them."""
    await asyncio.wait_for(
        asyncio.gather(*(Account.deposit(f"i{number}", Decimal(1)) for number in range(count))), 10
    )


POISON: dict[str, tuple[Any, type[Exception]]] = {
    "a state by hand": (lambda: Account.deposit("hand", Decimal(1)), SerializationError),
    "NUL in the state": (lambda: Diary.write("d", "a\0b"), SerializationError),
    "a result without a form": (lambda: Diary.answer("d", "object"), SerializationError),
    "a state too large": (lambda: Diary.write("d", "x" * 1000, 17_000), PayloadTooLarge),
    "an exit": (lambda: Trap.leave("t"), StepFailed),
    "a cancel": (lambda: Trap.cancel("t"), StepFailed),
    "a command in a command": (lambda: Trap.nest("t"), PerdureError),
}


@pytest.mark.parametrize("kind", POISON)
@on_loop
async def test_a_poison_command_fails_alone(kind: str, database_url: str) -> None:
    """In one batch with fifty others: it gets its error, they are carried out, and so is what comes after."""
    make, error = POISON[kind]
    async with Perdure(database_url, grace=0):
        await Account.deposit("i0", Decimal(0))
        bad = """insert into perdure.entities (type, key, state) values ('bank.account', 'hand', '{"balance": [1]}')"""
        rows(database_url, bad)
        poison: Coroutine[Any, Any, Any] = make()
        async with asyncio.TaskGroup() as group:
            before = group.create_task(innocents(25))
            bitten = group.create_task(outcome(poison))
            after = group.create_task(innocents(50))
        assert isinstance(bitten.result(), error)
        assert (before.done(), after.done()) == (True, True)
        await innocents(10)
    assert sum(balance for key, balance in balances(database_url).items() if key.startswith("i")) == 85


async def outcome(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await asyncio.wait_for(coroutine, 10)
    except Exception as error:
        return error


@workflow(name="bank.poisoned")
async def poisoned() -> list[str]:
    seen = []
    for make, _ in POISON.values():
        try:
            await make()
        except Exception as error:
            seen.append(type(error).__name__)
    return [*seen, str(await Account.deposit("fine", Decimal(1)))]


@on_loop
async def test_a_workflow_catches_what_its_commands_cannot_do(database_url: str) -> None:
    """Each poison is a recorded error of its class, and the run goes on."""
    async with Perdure(database_url, grace=0):
        bad = """insert into perdure.entities (type, key, state) values ('bank.account', 'hand', '{"balance": [1]}')"""
        rows(database_url, bad)
        handle = await poisoned.start()
        assert await handle.result(20) == [*(error.__name__ for _, error in POISON.values()), "1"]
        assert sum(info.failed for info in await handle.steps()) == len(POISON)


@pytest.mark.parametrize("stuck", [1, 100])
@on_loop
async def test_a_stranger_on_one_object_holds_up_nobody_else(stuck: int, database_url: str) -> None:
    """Its commands wait, however many; those on others go on, and wait no longer than for one lock."""
    async with Perdure(database_url, grace=0):
        await Account.deposit("i0", Decimal(0))
        with holding(database_url, "held"):
            waiting = [asyncio.create_task(Account.deposit("held", Decimal(1))) for _ in range(stuck)]
            await asyncio.sleep(0)
            began = time.monotonic()
            await innocents(100)
            for _ in range(20):
                await Account.deposit("i0", Decimal(1))
            assert time.monotonic() - began < 5
            assert not any(task.done() for task in waiting)
        assert sorted(await asyncio.gather(*waiting)) == [Decimal(number) for number in range(1, stuck + 1)]
    assert balances(database_url)["held"] == Decimal(stuck)


@on_loop
async def test_a_stranger_who_stays_is_an_error_that_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time the caller is told that nobody knows; a run waits for as long as it takes."""
    monkeypatch.setattr("perdure.store.journal.GIVE_UP_AFTER", 0.5)
    async with Perdure(database_url, grace=0):
        await Account.deposit("a", Decimal(5))
        with holding(database_url, "held"):
            handle = await deposits.start("held", 2)
            with pytest.raises(DatabaseUnavailable, match=r"bank\.account\.deposit .* 'held' is not known"):
                await Account.deposit.options(id="once")("held", Decimal(100))
            assert await handle.status() == "running"
        assert await handle.result(20) is not None
        await Account.deposit.options(id="once")("held", Decimal(100))
        assert (await Account.get("held")).balance == Decimal(102)


@workflow(name="bank.deposits")
async def deposits(key: str, count: int) -> Decimal:
    last = Decimal(0)
    for _ in range(count):
        last = await Account.deposit(key, Decimal(1))
    return last


def test_two_workers_with_batches_in_opposite_orders_never_deadlock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of batches over the same objects, old and new, given in any order: no error, no lost update."""
    rounds, size = 150, 12
    monkeypatch.setattr("perdure.store.entities.LOCK_TIMEOUT", 20.0)  # so that a deadlock is found as one

    def hammer(seed: int) -> list[str]:
        chance, errors = random.Random(seed), []
        with RawWorker(database_url) as worker:
            raw = RawCommands(worker)
            for number in range(rounds):
                keys = [f"key {number}", *(f"{'Kk'[place % 2]}ey{place}" for place in range(size - 1))]
                chance.shuffle(keys)
                records = [counting(worker.key(), key) for key in keys]
                try:
                    raw.writer.write(raw.connection, Batch([Ticket(record) for record in records]), 20)
                except psycopg.Error as error:
                    errors.append(repr(error))
            raw.connection.close()
        return errors

    workers = [in_thread(lambda seed=seed: hammer(seed)) for seed in (1, 2)]  # type: ignore[misc]
    assert [worker.result(90) for worker in workers] == [[], []]
    total = "select sum(version), sum((state)::int) from perdure.entities where type = 'raw'"
    assert rows(database_url, total) == [(2 * rounds * size, 2 * rounds * size)]


def test_a_command_of_the_dead_counts_for_nothing(database_url: str) -> None:
    """Declared dead between its lock and its write, or before: no state, no command, no step, no empty object."""
    with RawWorker(database_url) as zombie:
        raw = RawCommands(zombie)
        zombie.expire()
        assert zombie.bury() == [zombie.number]
        record: CommandRecord = counting(zombie.key())
        with pytest.raises(psycopg.Error, match=r"declared dead|fence"):
            raw.writer.write(raw.connection, Batch([Ticket(record)]), 5)
        raw.connection.close()
    assert rows(database_url, "select 1 from perdure.entities") == []
