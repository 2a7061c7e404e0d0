"""Strangers with open transactions, dead senders and bad words: they hurt nobody else, and lose no run.

A stranger may send in a transaction that he leaves open: `select perdure.send(...)` in a psql window. He then holds
the target's row, for minutes. Whoever needs that row waits; nobody else does, and when he is gone all goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest

import perdure
from perdure import DatabaseUnavailable, Perdure, RunEnded, WorkflowConflict, WorkflowNotFound, workflow
from perdure.models import Kind
from perdure.store.messages import Vanished
from perdure.store.records import MessageRecord, Outcome, PutAway, SendRecord, Ticket, WaitRecord
from perdure.worker.mail import POLL_SECONDS
from tests.api_tools import on_loop, rows, until, until_true
from tests.message_tools import SEND, asked, collect, holding, send_each, sent
from tests.protocol_tools import RawWorker, in_thread

RUNNING = "select 1 from perdure.live l join perdure.runs using (key) where id = %s and l.status = 3"


@workflow(name="attack.bad_words")
async def bad_words(id: str, key: str | None) -> str:
    try:
        await perdure.send(id, "t", 1, key=key)
    except (ValueError, WorkflowNotFound) as error:
        return type(error).__name__
    return "sent"


lives: Counter[str] = Counter()


@workflow(name="attack.mother")
async def mother() -> str:
    lives["mother"] += 1
    try:
        await collect.options(id="over", send=("t", 1)).start(0)
    except RunEnded as error:
        await perdure.sleep(1.5)
        return str(error)
    return "no error"


@workflow(name="attack.other_mother")
async def other_mother() -> str:
    lives["other_mother"] += 1
    await collect.options(id="alive", send=("t", 1)).start(1)
    await perdure.sleep(1.5)
    return "sent"


@workflow(name="attack.many_topics")
async def many_topics(count: int) -> None:
    await asyncio.gather(*(perdure.receive(f"t{number}") for number in range(count)))


# -- a stranger holds the target -------------------------------------------------------------------------


async def tried_for_long(app: Perdure) -> None:
    """Wait until what cannot be written has been tried once more, after the time for which a journal is patient."""

    def blocked() -> list[Ticket]:
        return [ticket for _, _, ticket in app.engine.incarnation.contested._delayed]

    await until_true(lambda: asyncio.to_thread(blocked))
    tickets = {ticket: ticket.tries for ticket in blocked()}
    for ticket in tickets:
        ticket.deadline = -1.0
    again = lambda: all(ticket.done or ticket.tries > tries for ticket, tries in tickets.items())  # noqa: E731
    await until_true(lambda: asyncio.to_thread(again))


@on_loop
async def test_a_held_target_holds_up_nobody_else(database_url: str) -> None:
    """While one target cannot be sent to, a hundred others are, from outside and from workflows, well before he goes."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="held").start(2, "never")
        handles = [await collect.options(id=f"c{number}").start(2) for number in range(100)]
        with holding(database_url, "held"):
            blocked: list[asyncio.Task[Any]] = [
                asyncio.create_task(perdure.send("held", "t", number)) for number in range(5)
            ]
            blocked.append(asyncio.create_task(send_each("held", [5])))
            await asyncio.gather(*(handle.send("t", 1) for handle in handles))
            await asyncio.gather(*(send_each(handle.id, [2]) for handle in handles))
            assert [await handle.result(10) for handle in handles] == [[1, 2]] * 100
            assert not any(task.done() for task in blocked)
        await asyncio.gather(*blocked)
    assert sorted(sent(database_url)[-6:]) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("colour", ["async", "blocking"])
@on_loop
async def test_a_stranger_who_stays_long_does_not_park_the_sender(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the target is held, the run that sends to it goes on when he is gone."""
    monkeypatch.setattr("perdure.store.journal.GIVE_UP_AFTER", 0.3)
    async with Perdure(database_url, grace=0) as app:
        await collect.options(id="held").start(1, "never")
        with holding(database_url, "held"):
            handle = await perdure.start(SEND[colour].options(id="s"), "held", [1])
            await tried_for_long(app)
            with pytest.raises(
                DatabaseUnavailable, match="not known"
            ):  # who sends from outside is told in time
                await perdure.send("held", "t", 2)
        assert await handle.result(20) == "sent"
    assert sent(database_url)[0] == "1"


@on_loop
async def test_a_stranger_who_stays_long_does_not_lose_the_target(database_url: str) -> None:
    """The run that he sends to ends meanwhile: its end waits for him, and is recorded when he is gone."""
    async with Perdure(database_url, grace=0) as app:
        handle = await collect.options(id="held").start(1)
        await until_true(lambda: asked(database_url, RUNNING, "held"))
        with holding(database_url, "held"):
            slipped_in = (
                "insert into perdure.messages (run, topic, seq, key, value) "
                "select key, 't', nextval('perdure.arrivals'), 'k', '1' from perdure.live"
            )
            await asked(database_url, slipped_in)
            await tried_for_long(app)
        assert await handle.result(20) == [1]


# -- from SQL ----------------------------------------------------------------------------------------------


def test_a_trigger_sends_with_the_transaction_that_fires_it(database_url: str) -> None:
    """Committed with the row that fires it, rolled back with it: the outbox of any program."""
    with RawWorker(database_url) as owner:
        owner.start("c")
        rows(database_url, "create table orders (id integer primary key, state text)")
        rows(
            database_url,
            "create function tell() returns trigger language plpgsql as $$ begin perform perdure.send('c', 't', "
            "to_jsonb(new.id), 'order-' || new.id); return new; end $$",
        )
        rows(database_url, "create trigger tell after insert on orders for each row execute function tell()")
        with psycopg.connect(database_url) as shop:
            shop.execute("insert into orders values (1, 'kept')")
            shop.commit()
            shop.execute("insert into orders values (2, 'undone')")
            shop.rollback()
            shop.execute("insert into orders values (3, 'kept'), (4, 'kept')")
        assert sent(database_url) == ["1", "3", "4"]


def test_the_sql_function_knows_keys_and_targets(database_url: str) -> None:
    """True, then false for the same key; an unknown and an ended target have errors of their own."""
    with RawWorker(database_url) as owner:
        owner.start("c")
        statement = "select perdure.send('c', 't', '{\"a\": 1}', 'k')"
        assert [rows(database_url, statement) for _ in range(2)] == [[(True,)], [(False,)]]
        assert [rows(database_url, "select perdure.send('c', 't', '2')") for _ in range(2)] == [[(True,)]] * 2
        with pytest.raises(psycopg.Error, match="no run has the id nobody") as unknown:
            rows(database_url, "select perdure.send('nobody', 't', '1')")
        rows(database_url, "with e as (delete from perdure.live returning key) insert into perdure.ends "
             "select key, 7, '1' from e")  # fmt: skip
        with pytest.raises(psycopg.Error, match="run c has ended") as ended:
            rows(database_url, "select perdure.send('c', 't', '1')")
    assert (unknown.value.sqlstate, ended.value.sqlstate) == ("PD003", "PD004")


def test_a_sender_with_an_old_snapshot_fails_rather_than_lose_the_wake_up(database_url: str) -> None:
    """REPEATABLE READ: the run was put away after the snapshot; the send is refused (40001), or wakes it."""
    with RawWorker(database_url) as owner, psycopg.connect(database_url) as sender:
        sender.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        run = owner.start("c")
        sender.execute("select 1")
        sender.execute("select count(*) from perdure.live")
        owner.write(WaitRecord(run, "1", topic="t"))
        owner.write(PutAway(run, {"1": 0}))
        with pytest.raises(psycopg.errors.SerializationFailure):
            sender.execute("select perdure.send('c', 't', '1')")
        sender.rollback()
        sender.execute("select perdure.send('c', 't', '1')")
        sender.commit()
        assert rows(database_url, "select status from perdure.live") == [(2,)]


def test_numbers_are_in_the_order_of_commits(database_url: str) -> None:
    """Two senders to one run: the second waits for the first, so no reader sees a later number without the earlier."""
    with RawWorker(database_url) as owner, holding(database_url, started(owner)) as first:
        second = in_thread(lambda: rows(database_url, "select perdure.send('c', 't', '2')"))
        until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
        first.execute("select perdure.send('c', 't', '1')")
        assert second.going_on
        first.commit()
        second.result()
        assert sent(database_url) == ["1", "2"]


def started(owner: RawWorker) -> str:
    """The id of a run that it has started."""
    owner.start("c")
    return "c"


# -- a sender that is dead -----------------------------------------------------------------------------------


def sending_step(owner: RawWorker, run: int, *ids: str) -> SendRecord:
    """The record of a step that sends one message to each."""
    record = SendRecord(run, "1", 1, 0, Kind.SEND, "t", failed=False, value=b"null")
    record.messages = [
        MessageRecord(run, id, "t", b"1", f"{run:x}/1/{number}") for number, id in enumerate(ids)
    ]
    record.unknown, record.ended = [b'"unknown"'] * len(ids), [b'"ended"'] * len(ids)
    return record


@pytest.mark.parametrize("kind", ["from a run", "from outside"])
def test_a_zombie_sends_nothing(kind: str, database_url: str) -> None:
    """Declared dead, a worker's message is void, be it its run's or its caller's."""
    with RawWorker(database_url) as zombie, RawWorker(database_url) as other:
        run = zombie.start("sender")
        other.start("c")
        zombie.expire()
        other.bury()
        record: Any = sending_step(zombie, run, "c")
        if kind == "from outside":
            record = MessageRecord(zombie.key(), "c", "t", b"1", "k")
        with pytest.raises(psycopg.Error) as refused:
            zombie.write(record)
        assert refused.value.sqlstate == "PD001"
    assert rows(
        database_url, "select (select count(*) from perdure.messages), count(*) from perdure.steps"
    ) == [(0, 0)]


def test_of_two_lives_of_a_run_one_sends(database_url: str) -> None:
    """A send recorded by the next owner stands: the position is taken, and nothing goes twice."""
    with RawWorker(database_url) as first, RawWorker(database_url) as second:
        run = first.start("sender")
        first.start("c")
        second.write(sending_step(second, run, "c"))
        late = sending_step(first, run, "c", "c")
        first.write(late)
        assert late.outcome is Outcome.LOST
        assert sent(database_url) == ["1"]


@pytest.mark.parametrize("kind", ["from a run", "from outside"])
def test_a_message_whose_target_goes_on_as_new_meanwhile_is_sent_to_its_next_life(
    kind: str, database_url: str
) -> None:
    """It waited for the lock of a row that is gone when it has it: the run has not ended, and the send is tried again."""
    with RawWorker(database_url, single=False) as owner, RawWorker(database_url) as other:
        run, next_life = owner.start("c"), owner.key()
        record: Any = sending_step(other, other.start("sender"), "c")
        if kind == "from outside":
            record = MessageRecord(other.key(), "c", "t", b"1", "k")
        going_on = {"keys": [run], "next": [next_life], "input": [b"[]"], "worker": owner.number}
        with holding(database_url, "c") as life:
            sender = in_thread(lambda: other.write(record))
            until(lambda: rows(database_url, "select 1 from pg_locks where not granted"))
            life.execute(owner.database.statements["continue_runs"].encode(), going_on)
            life.commit()
            assert isinstance(sender.error(), Vanished)
        other.write(record)
        assert record.outcome is Outcome.WON
    assert rows(database_url, "select run from perdure.messages where topic = 't'") == [(next_life,)]


# -- bad words, wasted work ------------------------------------------------------------------------------------

LONG = "".join(chr(33 + number * 7919 % 50_000) for number in range(9000))


@pytest.mark.parametrize(
    ("id", "key"),
    [
        pytest.param("a\0b", None, id="NUL in id"),
        pytest.param("c", "a\0b", id="NUL in key"),
        pytest.param("\ud800", None, id="surrogate in id"),
        pytest.param("c", "\ud800", id="surrogate in key"),
        pytest.param("c", LONG, id="long key"),
        pytest.param(LONG, None, id="long id"),
    ],
)
@on_loop
async def test_words_that_cannot_be_stored_are_refused_at_the_edge(
    id: str, key: str | None, database_url: str
) -> None:
    """An id or a key that the database does not take is an error where it is given; the run is not parked."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="c").start(1, "never")
        with pytest.raises((ValueError, WorkflowNotFound)):
            await perdure.send(id, "t", 1, key=key)
        await perdure.send("c", "t", 1)
    assert len(sent(database_url)) == 1


@on_loop
async def test_a_workflow_that_sends_such_words_is_not_parked(database_url: str) -> None:
    """It gets the error, and can go on."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="c").start(1, "never")
        assert await bad_words("a\0b", None) in ("ValueError", "WorkflowNotFound")


@pytest.mark.parametrize("conflict", ["the same workflow", "another one"])
@on_loop
async def test_a_start_that_is_refused_sends_nothing(conflict: str, database_url: str) -> None:
    """WorkflowConflict: the run that has the id gets no message meant for the one that was not started."""
    async with Perdure(database_url, grace=0):
        await collect.options(id="c").start(1, "never")
        starts: dict[str, Any] = {
            "the same workflow": lambda: collect.options(id="c", on_conflict="reject", send=("t", 1)).start(
                1
            ),
            "another one": lambda: send_each.options(id="c", send=("t", 1)).start("c", []),
        }
        with pytest.raises(WorkflowConflict):
            await starts[conflict]()
    assert sent(database_url) == []


@on_loop
async def test_a_start_with_a_message_for_an_ended_run_says_so_everywhere(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a workflow as from outside: the message went nowhere, and that is no secret. A replay finds it so again."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05)
    lives.clear()
    async with Perdure(database_url, grace=0):
        await collect.options(id="over")(0)
        with pytest.raises(RunEnded, match="run over has ended"):
            await collect.options(id="over", send=("t", 1)).start(0)
        assert await mother() == "run over has ended: nothing can be sent to it"
        alive = await collect.options(id="alive").start(1)
        sender = await other_mother.start()
        assert await alive.result(20) == [1]
        assert await sender.result(20) == "sent"  # though the run has ended when it is replayed
    assert lives == {"mother": 2, "other_mother": 2}, "neither was replayed"


@on_loop
async def test_many_that_wait_are_asked_for_once_a_second(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more topics than fit into one look, every topic is looked at in a round, and the next is a second away."""
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 60)
    async with Perdure(database_url, grace=0) as app:
        mail = app.engine.mail
        handle = await many_topics.options(id="c").start(1500)
        await until_true(lambda: asyncio.to_thread(lambda: len(mail._lines) == 1500))
        await asyncio.to_thread(mail.stop)
        assert await asyncio.to_thread(mail.tick) == POLL_SECONDS
        await perdure.send_many([("c", f"t{number}", 1) for number in range(1500)])
        await asyncio.to_thread(mail.tick)
        await handle.result(20)
