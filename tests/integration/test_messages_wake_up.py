"""No receiver sleeps for ever: sender and put-away see each other, in both orders, with hints and listener off.

The message comes before the run is put away, between the lock and the look of the put-away, while the put-away is
open, and after it; from a worker's journal and from SQL. Then the same with engines, where polling alone brings it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import perdure
from perdure import Perdure, sync
from perdure.store.records import EndRecord, MessageRecord, Outcome, PutAway, WaitRecord
from perdure.testing.clock import Clock
from tests.api_tools import on_loop, rows, until
from tests.message_tools import (
    COLLECT,
    COLOURS,
    WAIT_A_LITTLE,
    asked,
    collect,
    send_each,
    sent,
    silence,
    waiting,
)
from tests.protocol_tools import RawWorker, in_thread, stranger

STATUS = "select status from perdure.live where key = %s"
WAITING, QUEUED, RUNNING = 4, 2, 3


@pytest.fixture(autouse=True)
def notify_off(monkeypatch: pytest.MonkeyPatch) -> None:
    silence(monkeypatch)


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url, single=False) as worker:
        yield worker


def receiver(owner: RawWorker, topic: str = "t", seen: int = 0) -> tuple[int, PutAway]:
    """A run that waits for a message, by a committed row, and the record that would put it away."""
    run = owner.start("c")
    owner.write(WaitRecord(run, "1", topic=topic))
    return run, PutAway(run, {"1": seen})


def message(owner: RawWorker, key: str = "k", topic: str = "t") -> MessageRecord:
    return MessageRecord(owner.key(), "c", topic, b"1", key)


def from_journal(owner: RawWorker) -> None:
    """Send as a journal does, on a connection of its own."""
    with RawWorker(owner.database.url, single=False) as other:
        other.write(message(other))


def from_sql(owner: RawWorker) -> None:
    """Send as anybody can."""
    rows(owner.database.url, "select perdure.send('c', 't', '1')")


senders = pytest.mark.parametrize("send", [from_journal, from_sql])
wakers = pytest.mark.parametrize("send", [from_journal, from_sql])


def put_away(connection: psycopg.Connection[Any], owner: RawWorker, run: int) -> list[tuple[Any, ...]]:
    """The look of a put-away, whose lock is taken already."""
    parameters = {
        "keys": [run], "claims": [0], "worker": owner.number, "run": [run], "position": ["1"], "seen": [0],
    }  # fmt: skip
    return connection.execute(owner.database.statements["put_away"], parameters).fetchall()


@senders
def test_message_before_the_put_away_keeps_the_run(
    send: Callable[[RawWorker], None], owner: RawWorker
) -> None:
    """The message is there, unseen: the run is not put away."""
    run, away = receiver(owner)
    send(owner)
    owner.write(away)
    assert away.outcome is Outcome.STAY
    assert rows(owner.database.url, STATUS, run) == [(RUNNING,)]


@wakers
def test_message_after_the_put_away_wakes_the_run(
    send: Callable[[RawWorker], None], owner: RawWorker
) -> None:
    """The sender finds it waiting."""
    run, away = receiver(owner)
    owner.write(away)
    assert away.outcome is Outcome.WON
    send(owner)
    assert rows(owner.database.url, STATUS, run) == [(QUEUED,)]


@wakers
def test_message_while_the_put_away_is_open_wakes_the_run(
    send: Callable[[RawWorker], None], owner: RawWorker, database_url: str
) -> None:
    """Put away but not committed: the sender waits for that commit, and then wakes the run."""
    run, _ = receiver(owner)
    with owner.database.connect("second") as second, second.transaction():
        second.execute(owner.database.statements["lock_runs"], {"keys": [run]})
        assert put_away(second, owner, run) == [(run,)]
        sending = in_thread(lambda: send(owner))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
    sending.result()
    assert rows(database_url, STATUS, run) == [(QUEUED,)]
    assert sent(database_url) == ["1"]


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_put_away_while_the_message_is_open_waits_for_the_sender(
    commits: bool, owner: RawWorker, database_url: str
) -> None:
    """The sender holds the run's row: the put-away waits, looks after it, and stays only if the message stands."""
    run, away = receiver(owner)
    with stranger(database_url) as sender:
        sender.execute("select perdure.send('c', 't', '1')")
        putting = in_thread(lambda: owner.write(away))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        if commits:
            sender.commit()
        else:
            sender.rollback()
        putting.result()
    assert away.outcome is (Outcome.STAY if commits else Outcome.WON)
    assert rows(database_url, STATUS, run) == [(RUNNING if commits else WAITING,)]


def test_message_and_put_away_in_one_batch_keeps_the_run(owner: RawWorker) -> None:
    """Written together: the put-away looks last."""
    run, away = receiver(owner)
    owner.write(away, message(owner))
    assert away.outcome is Outcome.STAY
    assert rows(owner.database.url, STATUS, run) == [(RUNNING,)]


def test_a_message_that_was_seen_does_not_keep_the_run(owner: RawWorker, database_url: str) -> None:
    """Only a later one than the last that the run has seen is news; one that is put back is none."""
    run, _ = receiver(owner)
    owner.write(message(owner))
    seen = rows(database_url, "select seq from perdure.messages")[0][0]
    away = PutAway(run, {"1": seen})
    owner.write(away)
    assert away.outcome is Outcome.WON
    owner.write(message(owner, "k"))  # sent again, with its key: nothing new, but a wake-up does no harm
    owner.write(message(owner, "other"))
    assert rows(database_url, STATUS, run) == [(QUEUED,)]


def test_a_message_of_another_topic_wakes_nobody(owner: RawWorker) -> None:
    """A run sleeps on while what it does not wait for comes."""
    run, away = receiver(owner)
    owner.write(away)
    owner.write(message(owner, topic="other"))
    rows(owner.database.url, "select perdure.send('c', 'third', '1')")
    assert rows(owner.database.url, STATUS, run) == [(WAITING,)]


def test_a_message_in_the_batch_of_the_end_is_no_error(owner: RawWorker, database_url: str) -> None:
    """The run is alive when it is sent and has ended afterwards: it counts as sent just before."""
    run = owner.start("c")
    late = message(owner)
    owner.write(EndRecord(run, 7, b"1"), late)
    assert late.outcome is Outcome.WON
    after = message(owner, "after")
    owner.write(after)
    assert (after.outcome, after.ended) == (Outcome.LOST, True)


# -- with engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "put_away",
    [pytest.param(True, id="put away"), pytest.param(False, id="in memory")],
)
@pytest.mark.parametrize("colour", COLOURS)
@on_loop
async def test_polling_alone_brings_every_message(
    colour: str, put_away: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another process's engine, from a workflow and from SQL: found without a hint."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05 if put_away else 60)
    async with Perdure(database_url, grace=0), Perdure(database_url, worker=False) as client:
        with client.bind():
            handle = await perdure.start(COLLECT[colour].options(id="c", queue="default"), 3)
        if put_away:
            await waiting(database_url)
        with client.bind():
            await perdure.send("c", "t", 1)
        await until_received(database_url, 1)
        if put_away:
            await waiting(database_url)
        with client.bind():
            await perdure.start(send_each.options(queue="default"), "c", [2])
        await until_received(database_url, 2)
        if put_away:
            await waiting(database_url)
        await asked(database_url, "select perdure.send('c', 't', '3')")
        assert await handle.result(10) == [1, 2, 3]


async def until_received(url: str, count: int) -> None:
    statement = "select 1 from perdure.steps where message is not null having count(*) = %s"
    await asyncio.to_thread(until, lambda: rows(url, statement, count))


def test_a_burst_at_the_moment_of_the_put_away_is_received_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that fall on every moment of thirty put-aways: none is missed, none is out of order."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.003)
    with (
        sync.Perdure(database_url, grace=0, concurrency=200),
        sync.Perdure(database_url, worker=False) as client,
    ):
        with client.bind():
            handles = [
                client.start(name, args=[30], id=f"{name} {number}")
                for name in ("mail.collect", "mail.collect_blocking")
                for number in range(3)
            ]
            for value in range(30):
                sync.send_many([(handle.id, "t", value) for handle in handles])
        for handle in handles:
            assert handle.result(60) == list(range(30))


# -- a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("put_away", [True, False], ids=["put away", "in memory"])
@pytest.mark.parametrize("colour", COLOURS)
@on_loop
async def test_a_message_that_comes_with_the_timeout_is_taken(
    colour: str, put_away: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there when the time is over: the receiver gets it, whichever of the two is noticed first."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02 if put_away else 60)
    async with Perdure(database_url, grace=0):
        with Clock(database_url) as clock:
            handle = await perdure.start(WAIT_A_LITTLE[colour].options(id="c"), 60.0 if put_away else 1.5)
            await asyncio.to_thread(until, lambda: rows(database_url, "select 1 from perdure.waits"))
            if put_away:
                await waiting(database_url)
            await handle.send("t", 1)
            clock.advance(60)
            second = "select 1 from perdure.waits where position = '2'"
            await asyncio.to_thread(until, lambda: rows(database_url, second))
            if put_away:
                await waiting(database_url)
            clock.advance(60)
            assert (await handle.result(20))[0] == 1


@on_loop
async def test_a_waiting_receiver_holds_no_memory(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put away, the run is a row: the process knows nothing of it, nor of its mailbox."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.02)
    async with Perdure(database_url, grace=0) as app:
        handle = await collect.options(id="c").start(1)
        await waiting(database_url)
        await asyncio.to_thread(until, lambda: not app.engine.executor.count)
        await asyncio.to_thread(until, lambda: not app.engine.mail.awaited, 5)
        await handle.send("t", 1)
        assert await handle.result(20) == [1]
