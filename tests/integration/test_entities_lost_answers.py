"""A COMMIT whose answer is lost carries no command out twice, and the caller is told what was committed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

import perdure
from perdure import Perdure
from perdure.models import Kind
from perdure.store.batch import Batch
from perdure.store.entities import Applied, CommandRecord
from perdure.store.journal import Journal
from perdure.store.records import StepRecord, Ticket
from perdure.store.writing import JournalHooks
from tests.api_tools import on_loop, rows, until
from tests.entity_tools import (
    TRANSFER,
    Account,
    InsufficientFunds,
    RawCommands,
    balances,
    carried_out,
    counting,
)
from tests.protocol_tools import Proxy, RawWorker, in_thread
from tests.servers import TestServer

LANE = "perdure commands"


@pytest.fixture
def proxy(server: TestServer, database_url: str) -> Iterator[Proxy]:
    with Proxy(server, database_url) as made:
        yield made


def journal_of(raw: RawCommands) -> Journal:
    """A lane that gives commands as this worker."""
    hooks = JournalHooks(raw.worker.database.connect, lambda: None, lambda batch: None)
    journal = Journal(raw.writer, hooks, name="commands", answer_within=10)
    journal.start()
    return journal


def step_of(run: int, position: str = "1") -> StepRecord:
    return StepRecord(run, position, 1, 0, Kind.COMMAND, "raw.count", False, b"null")


def refuse(state: bytes | None) -> Applied:
    return Applied(None, True, b'{"message": "no"}')


@pytest.mark.parametrize("tag", ["COMMIT", "BEGIN", "SELECT 1", "INSERT 0 1"])
@pytest.mark.parametrize("kind", ["from outside", "from a run", "that fails"])
def test_a_lost_answer_is_found_again(kind: str, tag: str, proxy: Proxy, database_url: str) -> None:
    """Wherever in the batch the answer is lost: carried out once, told once, with one step."""
    with RawWorker(proxy.url) as owner:
        run = owner.start("the-run")
        raw = RawCommands(owner)
        step = None if kind == "from outside" else step_of(run)
        record = counting(run, step=step, apply=refuse if kind == "that fails" else counting(run).apply)
        journal = journal_of(raw)
        loss = proxy.lose_answer(LANE, tag)
        ticket = Ticket(record)
        journal.submit([ticket])
        assert ticket.wait_blocking(20)
        ticket.check()
        journal.stop()
        raw.connection.close()
        assert loss.happened.is_set() or (kind, tag) == ("that fails", "INSERT 0 1")
    assert (record.failed, record.value) == (
        (True, b'{"message": "no"}') if kind == "that fails" else (False, b"1")
    )
    assert carried_out(database_url) == (kind != "that fails")
    written = rows(database_url, "select failed, convert_from(value, 'UTF8') from perdure.steps")
    assert written == ([] if step is None else [(record.failed, record.value.decode())])


def test_a_backend_that_still_commits_is_waited_for(proxy: Proxy, database_url: str) -> None:
    """Cut in the middle of its COMMIT: the repeated batch waits for the object's lock, and finds itself done."""
    rows(
        database_url,
        "create function slow() returns trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock(77); return null; end $$",
    )
    with RawWorker(proxy.url) as owner, RawWorker(database_url) as holder:
        rows(
            database_url,
            "create constraint trigger slow after insert on perdure.commands deferrable initially deferred "
            "for each row execute function slow()",
        )
        raw = RawCommands(owner)
        journal = journal_of(raw)
        holder.connection.execute("begin")
        holder.connection.execute("select pg_advisory_xact_lock(77)")
        record = counting(owner.key())
        ticket = Ticket(record)
        journal.submit([ticket])
        waits = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        released = in_thread(lambda: wait_cut_and_release(database_url, waits, proxy, holder))
        assert ticket.wait_blocking(20)
        ticket.check()
        released.result()
        journal.stop()
        raw.connection.close()
    assert record.value == b"1"
    assert carried_out(database_url) == 1


def wait_cut_and_release(url: str, waits: str, proxy: Proxy, holder: RawWorker) -> None:
    until(lambda: rows(url, waits))
    proxy.cut(LANE)
    again = "select 1 from pg_stat_activity where application_name = 'perdure commands' and wait_event_type = 'Lock'"
    until(lambda: len(rows(url, again)) > 1)
    holder.connection.execute("rollback")


@on_loop
async def test_an_id_given_again_after_a_lost_answer_is_done(proxy: Proxy, database_url: str) -> None:
    """By the same process, and by another that only knows the id."""
    async with Perdure(proxy.url, worker=False) as client:
        loss = proxy.lose_answer(LANE)
        assert await Account.deposit.options(id="once")("a", Decimal(5)) == Decimal(5)
        assert loss.happened.is_set()
        assert await Account.deposit.options(id="once")("a", Decimal(5)) == Decimal(5)
        assert client.name
    async with Perdure(database_url, grace=0):
        assert await Account.deposit.options(id="once")("a", Decimal(5)) == Decimal(5)
        with pytest.raises(InsufficientFunds):
            await Account.withdraw.options(id="twice")("a", Decimal(6))
    assert balances(database_url) == {"a": Decimal(5)}


@pytest.mark.parametrize("colour", TRANSFER)
@on_loop
async def test_runs_that_lose_answers_again_and_again_count_once(
    colour: str, proxy: Proxy, database_url: str
) -> None:
    """Thirty transfers over a connection that is cut at six of its COMMITs: the sum is right, and each ran once."""
    async with Perdure(proxy.url, grace=0):
        await Account.deposit("a", Decimal(25))
        losses = [proxy.lose_answer(LANE) for _ in range(6)]
        handles = [await perdure.start(TRANSFER[colour], "a", f"b{n}", Decimal(1)) for n in range(30)]
        results = [await handle.result(60) for handle in handles]
        assert all(loss.happened.is_set() for loss in losses)
    assert sorted(results) == sorted(["done"] * 25 + ["there is only 0"] * 5)
    assert sum(balances(database_url).values()) == Decimal(25)
    assert carried_out(database_url) == 51
    assert rows(database_url, "select count(*) from perdure.steps where failed") == [(5,)]


def test_an_earlier_batch_s_commands_are_not_run_again_in_a_later_one(database_url: str) -> None:
    """A command that is done is answered from its row while new ones of the same batch go on from there."""
    with RawWorker(database_url) as owner:
        raw = RawCommands(owner)
        first: CommandRecord = counting(owner.key(), id="first")
        raw.writer.write(raw.connection, Batch([Ticket(first)]), 5)
        again, second = counting(owner.key(), id="first"), counting(owner.key(), id="second")
        raw.writer.write(raw.connection, Batch([Ticket(again), Ticket(second)]), 5)
        raw.connection.close()
    assert [record.value for record in (first, again, second)] == [b"1", b"1", b"2"]
    assert carried_out(database_url) == 2
