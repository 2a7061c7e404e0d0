"""What tests of durable objects share: an account, a diary, workflows that use them, and a raw writer of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

import perdure
from perdure import Entity, command, sync, workflow
from perdure.store.connection import Connection
from perdure.store.entities import Applied, CommandRecord, CommandWriter
from perdure.store.records import StepRecord
from perdure.store.workers import COMMAND_SLOT
from tests.api_tools import rows
from tests.protocol_tools import RawWorker, stranger

COLOURS = ("async", "blocking")


class InsufficientFunds(Exception):
    """There is not so much."""

    def __init__(self, balance: Decimal) -> None:
        super().__init__(balance)
        self.balance = balance


@dataclass
class Account(Entity, name="bank.account"):
    owner: str = ""
    balance: Decimal = Decimal(0)
    entries: int = 0

    @command
    def deposit(self, amount: Decimal) -> Decimal:
        self.balance += amount
        self.entries += 1
        return self.balance

    @command
    def withdraw(self, amount: Decimal) -> Decimal:
        self.entries += 1
        if amount > self.balance:
            raise InsufficientFunds(self.balance)
        self.balance -= amount
        return self.balance

    @command
    def rename(self, owner: str) -> None:
        self.owner = owner


@dataclass
class Diary(Entity, name="bank.diary"):
    """Keeps any text, and gives back what cannot be stored."""

    lines: list[str] = field(default_factory=list)

    @command
    def write(self, line: str, times: int = 1) -> int:
        self.lines += [line] * times
        return len(self.lines)

    @command
    def answer(self, what: str) -> Any:
        self.lines.append(what)
        return {"object": object(), "text": "fine"}[what]


@workflow(name="bank.transfer")
async def transfer(source: str, target: str, amount: Decimal) -> str:
    try:
        await Account.withdraw(source, amount)
    except InsufficientFunds as error:
        return f"there is only {error.balance}"
    await Account.deposit(target, amount)
    return "done"


@workflow(name="bank.transfer_blocking")
def transfer_blocking(source: str, target: str, amount: Decimal) -> str:
    try:
        sync.call(Account.withdraw, source, amount)
    except InsufficientFunds as error:
        return f"there is only {error.balance}"
    sync.call(Account.deposit, target, amount)
    return "done"


@workflow(name="bank.wait_for")
async def wait_for(key: str, balance: Decimal, within: float | None = None) -> Decimal | str:
    try:
        found = await Account.when(key, lambda account: account.balance >= balance, timeout=within)
    except perdure.WaitTimeout as error:
        return str(error)
    return found.balance


@workflow(name="bank.wait_for_blocking")
def wait_for_blocking(key: str, balance: Decimal, timeout: float | None = None) -> Decimal | str:
    try:
        found = sync.when(Account, key, lambda account: account.balance >= balance, timeout=timeout)
    except perdure.WaitTimeout as error:
        return str(error)
    return found.balance


TRANSFER: dict[str, Any] = {"async": transfer, "blocking": transfer_blocking}
WAIT_FOR: dict[str, Any] = {"async": wait_for, "blocking": wait_for_blocking}


def balances(url: str) -> dict[str, Decimal]:
    """The balance of each account, as SQL reads it."""
    found = rows(
        url,
        "select key, (state->>'balance')::numeric from perdure.entities"
        " where type = 'bank.account' and jsonb_typeof(state->'balance') = 'string' order by key",
    )
    return dict(found)


def carried_out(url: str) -> int:
    """How many commands are recorded."""
    return int(rows(url, "select count(*) from perdure.commands")[0][0])


async def asked(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a statement, without standing in the loop's way."""
    return await asyncio.to_thread(rows, url, statement, *values)


@contextmanager
def holding(url: str, key: str, type: str = "bank.account") -> Iterator[psycopg.Connection[Any]]:
    """Somebody who has locked an object's row in a transaction that is still open; rolled back at the end."""
    rows(url, "insert into perdure.entities (type, key) values (%s, %s) on conflict do nothing", type, key)
    with stranger(url) as connection:
        connection.execute(
            "select 1 from perdure.entities where type = %s and key = %s for update", (type, key)
        )
        yield connection


class RawCommands:
    """Gives commands as a worker, one batch at a time, in the test's own thread."""

    def __init__(self, worker: RawWorker) -> None:
        self.worker = worker
        self.writer = CommandWriter(worker.database.statements, worker.number, COMMAND_SLOT)
        self.connection: Connection = worker.database.connect("raw commands")


def count_up(state: bytes | None) -> Applied:
    """A command on a counter whose state is a number."""
    number = int(state or 0) + 1
    return Applied(str(number).encode(), False, str(number).encode())


def counting(
    run: int,
    key: str = "c",
    id: str = "",
    step: StepRecord | None = None,
    apply: Callable[..., Applied] = count_up,
) -> CommandRecord:
    """The record of a command that counts up."""
    return CommandRecord(run, ("raw", key), id or f"{run:x}", "raw.count", b"{}", apply, step)
