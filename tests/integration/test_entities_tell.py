"""Commands that tell other objects: committed with the one that tells, carried out exactly once, whoever dies."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import perdure
from perdure import Entity, Perdure, PerdureError, command, sync, workflow
from perdure.core.entities import order_of
from perdure.store.batch import Batch
from perdure.store.entities import CommandRecord
from perdure.store.records import Ticket
from tests.api_tools import on_loop, rows, until, until_true
from tests.cli_tools import environment
from tests.entity_tools import RawCommands
from tests.protocol_tools import RawWorker

ROOT = Path(__file__).parents[2]
ACCOUNTS = 5
START = 100


class TooPoor(Exception):
    """There is not so much."""


@dataclass
class Purse(Entity, name="tell.Purse"):
    """Money, of which none may be made or lost."""

    balance: int = START
    heard: list[int] = field(default_factory=list)

    @command
    def pay(self, to: str, amount: int) -> int:
        if amount > self.balance:
            raise TooPoor(self.balance)
        self.balance -= amount
        Purse.earn.tell(to, amount)
        return self.balance

    @command
    def earn(self, amount: int) -> None:
        if amount == 13:
            raise TooPoor("never thirteen")
        self.balance += amount
        self.heard.append(amount)

    @command
    def pass_on(self, path: list[str]) -> None:
        self.heard.append(len(path))
        if path:
            Purse.pass_on.tell(path[0], path[1:])

    @command
    def shout(self, to: str, count: int) -> None:
        for number in range(count):
            Purse.earn.tell(to, 1000 + number)


@workflow
async def pays(giver: str, to: str, amount: int) -> int:
    return await Purse.pay(giver, to, amount)


def total(url: str) -> int:
    ((total,),) = rows(url, "select coalesce(sum((state ->> 'balance')::bigint), 0) from perdure.entities")
    return int(total)


def none_left(url: str) -> bool:
    return rows(url, "select count(*) from perdure.told where error is null") == [(0,)]


@on_loop
async def test_what_is_told_is_carried_out_after_the_commit(database_url: str) -> None:
    async with Perdure(database_url):
        assert await Purse.pay("anna", "bert", 30) == 70
        assert await pays("anna", "bert", 20) == 50
        assert (await Purse.when("bert", lambda purse: purse.balance == 150, timeout=30)).heard == [30, 20]
        assert none_left(database_url)
        ids = [one.id for one in await Purse.history("bert")]
        assert all(id.startswith("!told/") for id in ids)


@on_loop
async def test_what_raises_tells_nobody(database_url: str) -> None:
    async with Perdure(database_url):
        with pytest.raises(TooPoor):
            await Purse.pay("anna", "bert", 101)
        assert rows(database_url, "select 1 from perdure.told") == []
        assert (await Purse.get("bert")).balance == START


@on_loop
async def test_one_that_is_told_and_raises_is_kept_with_its_error(database_url: str) -> None:
    async with Perdure(database_url):
        await Purse.pay("anna", "bert", 13)
        error = "select convert_from(error, 'UTF8') from perdure.told where error is not null"
        ((found,),) = await until_true(lambda: _rows(database_url, error))
        assert "never thirteen" in str(found)
        assert (await Purse.get("bert")).balance == START


async def _rows(url: str, statement: str) -> list[tuple[object, ...]]:
    return await asyncio.to_thread(rows, url, statement)


@on_loop
async def test_chains_and_order(database_url: str) -> None:
    async with Perdure(database_url):
        await Purse.pass_on("a", ["b", "c", "a", "d"])
        await Purse.when("d", lambda purse: purse.heard == [0], timeout=30)
        assert (await Purse.get("a")).heard == [4, 1]
        await Purse.shout("a", "z", 50)
        heard = (await Purse.when("z", lambda purse: len(purse.heard) == 50, timeout=30)).heard
        assert heard == list(range(1000, 1050))


def test_history_has_a_blocking_form(database_url: str) -> None:
    with sync.Perdure(database_url):
        sync.call(Purse.earn, "anna", 5)
        (one,) = sync.history(Purse, "anna")
        assert (one.command, one.version) == ("tell.Purse.earn", 1)


def test_outside_of_a_command_it_is_an_error(database_url: str) -> None:
    with pytest.raises(PerdureError, match="body of another command"):
        Purse.earn.tell("anna", 1)
    purse = Purse()
    with pytest.raises(PerdureError, match="body of another command"):
        purse.pay("bert", 1)  # a unit test without a database: what is told needs one
    with sync.Perdure(database_url), pytest.raises(TypeError):
        perdure.sync.call(Purse.shout, "anna")  # type: ignore[call-arg]


def test_what_a_dead_worker_told_is_carried_out_by_another_one_with_the_code(database_url: str) -> None:
    with sync.Perdure(database_url, worker=False):
        pass
    told = "insert into perdure.told (id, type, key, command, args, told) values (%s, %s, 'bert', %s, '{\"args\":[7]}', %s)"
    long_ago = "2026-01-01T00:00:00Z"
    rows(database_url, told, "one", "tell.Purse", "tell.Purse.earn", long_ago)
    rows(database_url, told, "two", "elsewhere", "elsewhere.earn", long_ago)
    rows(database_url, told, "three", "tell.Purse", "tell.Purse.no_more", long_ago)
    with sync.Perdure(database_url, lease=1):
        until(lambda: rows(database_url, "select count(*) from perdure.told") == [(2,)])
        assert total(database_url) == START + 7


def test_one_that_two_workers_find_at_a_time_is_carried_out_once(database_url: str) -> None:
    """Each takes it for left behind, before the other has carried it out."""
    with sync.Perdure(database_url, worker=False):
        pass
    told = "insert into perdure.told (id, type, key, command, args) values ('one', 'tell.Purse', 'bert', 'tell.Purse.earn', '{\"args\":[7]}')"
    rows(database_url, told)
    order = order_of("tell.Purse", "bert", "tell.Purse.earn", b'{"args":[7]}')
    assert order is not None
    for _ in range(2):
        with RawWorker(database_url) as worker:
            raw = RawCommands(worker)
            record = CommandRecord(
                worker.key(), order.place, "one", order.command.name, order.args, order.apply, is_told=True
            )
            raw.writer.write(raw.connection, Batch([Ticket(record)]), 5.0)
            raw.connection.close()
    assert total(database_url) == START + 7
    assert rows(database_url, "select count(*) from perdure.commands") == [(1,)]
    assert none_left(database_url)


PROGRAM = """
import asyncio, random, sys
from perdure import Perdure
from tests.integration.test_entities_tell import ACCOUNTS, Purse, TooPoor

async def main():
    async with Perdure(sys.argv[1], lease=2):
        print("ready", flush=True)
        while True:
            names = [f"p{number}" for number in range(ACCOUNTS)]
            async def one():
                giver, to = random.sample(names, 2)
                try:
                    await Purse.pay(giver, to, random.choice([1, 2, 3]))
                except TooPoor:
                    pass
            await asyncio.gather(*(one() for _ in range(20)))

asyncio.run(main())
"""


def test_no_money_is_made_or_lost_though_payers_are_killed(database_url: str) -> None:
    def carried_out() -> int:
        return int(rows(database_url, "select count(*) from perdure.commands")[0][0])

    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, database_url],
            cwd=ROOT,
            env=environment(None),
            stdout=subprocess.PIPE,
            text=True,
        ) as payer:
            assert payer.stdout is not None
            assert payer.stdout.readline() == "ready\n"
            enough = carried_out() + 50
            until(functools.partial(lambda enough: carried_out() > enough, enough))
            payer.kill()
    with sync.Perdure(database_url, lease=1):
        until(lambda: none_left(database_url), within=60)
        assert total(database_url) == ACCOUNTS * START
        assert carried_out() > 200
