"""kill -9 at random points of hundreds of transfers between accounts: no money is made or lost, in both colours.

Workers in processes of their own carry out transfers and give commands from outside, all over the same few accounts,
which is as contended as it gets. After each of some random numbers of commands in the database one process is killed
and another started.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import pytest

from perdure import Entity, Perdure, command, sync
from tests.api_tools import on_loop, rows, until
from tests.entity_tools import TRANSFER, Account, asked, balances
from tests.process_tools import Process, Processes, processes, say

ACCOUNTS = ("Anna", "ben", "carl", "Zoë")
START = Decimal(1000)
TRANSFERS = 240
KILLS = 4
LEASE = 1.5
SEEDS = (11, 1997)


def work(url: str) -> None:
    """Carry out what is in the queue, until somebody kills this process."""
    with sync.Perdure(url, lease=LEASE, grace=0):
        say("works")
        signal.pause()


def hammer(url: str, first: str, second: str, rounds: str) -> None:
    """Give commands to two accounts in this order, fifty at a time, each with an id; say when all are done."""

    async def go() -> None:
        async with Perdure(url, worker=False):
            for number in range(int(rounds)):
                once = Account.deposit.options(id=f"{first}-{number}")
                await asyncio.gather(
                    once(first, Decimal(1)), once(second, Decimal(1)), once("hot", Decimal(1))
                )
            batch = [Account.deposit(key, Decimal(1)) for _ in range(200) for key in (first, second, "hot")]
            await asyncio.gather(*batch)

    asyncio.run(go())
    say("all done")


@dataclass
class Door(Entity, name="kills.door"):
    passed: int = 0

    @command
    def stand_still(self, who: int) -> int:
        """Stop the whole process that carries this out, if it is that one."""
        if os.getpid() == who:
            say("in the door")
            os.kill(who, signal.SIGSTOP)
        self.passed += 1
        return self.passed


def stand_in_the_door(url: str) -> None:
    """Hold an object's lock in a process that stands still, as a worker with a short lease."""
    with sync.Perdure(url, lease=LEASE, grace=0):
        say("answered", sync.call(Door.stand_still, "door", os.getpid()))


@contextmanager
def workers(url: str, count: int) -> Iterator[tuple[Processes, list[Process]]]:
    """Some worker processes, which are at work."""
    with processes() as family:
        mine = [family.start(__name__, "work", url) for _ in range(count)]
        for each in mine:
            each.wait_for("^works$")
        yield family, mine


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("colour", TRANSFER)
def test_the_sum_is_right_whoever_is_killed_when(colour: str, seed: int, database_url: str) -> None:
    """Each transfer's two commands and its record are carried out once, whatever was under way at each kill."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    queue_transfers(database_url, chance, colour)
    with workers(database_url, 2) as (family, mine):
        given = 0
        for _ in range(KILLS):
            given += chance.randrange(5, TRANSFERS // 3)
            until(lambda wanted=given: commands(database_url) >= wanted or ended(database_url) == TRANSFERS)  # type: ignore[misc]
            victim = mine.pop(chance.randrange(len(mine)))
            victim.kill()
            mine.append(family.start(__name__, "work", database_url))
        until(lambda: ended(database_url) == TRANSFERS, within=60)
        assert all(each.alive for each in mine)
    check_the_books(database_url)


def queue_transfers(url: str, chance: random.Random, colour: str) -> None:
    """Queue all transfers, from a client."""
    name = {"async": "bank.transfer", "blocking": "bank.transfer_blocking"}[colour]
    with sync.Perdure(url, worker=False) as app:
        for account in ACCOUNTS:
            sync.call(Account.deposit, account, START)
        for number in range(TRANSFERS):
            source, target = chance.sample(ACCOUNTS, 2)
            app.start(
                name,
                args=[source, target, Decimal(chance.randrange(1, 50))],
                id=f"t{number}",
                queue="default",
            )


def check_the_books(url: str) -> None:
    """The sum, each run's commands against its result, and each object's history against its state."""
    assert sum(balances(url).values()) == START * len(ACCOUNTS)
    assert rows(url, "select count(*) from perdure.ends where status = 7") == [(TRANSFERS,)]
    by_run = rows(url, "select count(*) from perdure.commands where run is not null group by run")
    assert {count for (count,) in by_run} == {2}
    steps = rows(
        url, "select count(*) filter (where not failed), count(*) filter (where failed) from perdure.steps"
    )
    assert steps == [(2 * len(by_run), TRANSFERS - len(by_run))]
    gaps = "select key from perdure.commands group by type, key having max(version) <> count(*)"
    assert rows(url, gaps) == []


def commands(url: str) -> int:
    return int(rows(url, "select count(*) from perdure.commands where run is not null")[0][0])


def ended(url: str) -> int:
    return int(rows(url, "select count(*) from perdure.ends")[0][0])


def test_two_processes_on_the_same_objects_lose_no_update(database_url: str) -> None:
    """One hot key, and two keys in opposite orders: everybody ends, and every command counts once."""
    rounds = 60
    with processes() as family:
        one = family.start(__name__, "hammer", database_url, "a", "b", rounds)
        two = family.start(__name__, "hammer", database_url, "b", "a", rounds)
        for each in (one, two):
            each.wait_for("^all done$")
            assert each.wait() == 0
            assert "deadlock" not in each.text()
    expected = Decimal(2 * (rounds + 200))
    assert balances(database_url) == {"a": expected, "b": expected, "hot": expected}
    versions = rows(database_url, "select key, version from perdure.entities order by key")
    assert versions == [("a", expected), ("b", expected), ("hot", expected)]


@on_loop
async def test_a_worker_that_stands_still_with_a_lock_is_buried_with_it(database_url: str) -> None:
    """Its lease runs out, its backend is ended, others go on; come back, it carries the command out as a new life."""
    async with Perdure(database_url, lease=LEASE, grace=0):
        with processes() as family:
            zombie = family.start(__name__, "stand_in_the_door", database_url)
            await asyncio.to_thread(zombie.wait_for, "^in the door$")
            assert await asyncio.wait_for(Door.stand_still("door", 0), 20) == 1
            assert await asked(database_url, "select version from perdure.entities") == [(1,)]
            zombie.go_on()
            await asyncio.to_thread(zombie.wait)
            assert not any(line.startswith("answered") for line in zombie.lines)
            assert "DatabaseUnavailable" in zombie.text(), "it is told that nobody knows"
        assert (await Door.get("door")).passed == 1
