"""A COMMIT whose answer is lost sends no message twice, sets no event twice, and tells the run what it would have told.

As in `test_lost_answers.py`, for messages from outside, steps that send, steps that consume, and events; and what a
repeated send finds when its target has ended or consumed the message meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure
from perdure import Perdure
from perdure.models import Kind
from perdure.store.batch import Batch, BatchWriter
from perdure.store.journal import Journal
from perdure.store.records import (
    EndRecord,
    EventRecord,
    MessageRecord,
    Outcome,
    Record,
    SendRecord,
    StepRecord,
    Ticket,
)
from perdure.store.writing import JournalHooks
from tests.api_tools import on_loop, rows, until_true
from tests.message_tools import COLLECT, COLOURS, SEND, asked, sent
from tests.protocol_tools import Proxy, RawWorker
from tests.servers import TestServer


@pytest.fixture
def proxy(server: TestServer, database_url: str) -> Iterator[Proxy]:
    with Proxy(server, database_url) as made:
        yield made


def message(owner: RawWorker, run: int) -> list[Record]:
    return [MessageRecord(owner.key(), "the-run", "t", b"1", "k")]


def two_messages(owner: RawWorker, run: int) -> list[Record]:
    return [MessageRecord(run, "the-run", topic, b"1", topic) for topic in ("t", "u")]


def send(owner: RawWorker, run: int, *ids: str) -> list[Record]:
    record = SendRecord(run, "1", 1, 0, Kind.SEND, "t", failed=False, value=b"null")
    record.messages = [
        MessageRecord(run, id, "t", b"1", f"{number}") for number, id in enumerate(ids or ["the-run"])
    ]
    record.unknown, record.ended = [b'"unknown"'] * len(record.messages), [b'"ended"'] * len(record.messages)
    return [record]


def failed_send(owner: RawWorker, run: int) -> list[Record]:
    return send(owner, run, "the-run", "nobody")


def event(owner: RawWorker, run: int) -> list[Record]:
    step = StepRecord(run, "1", 1, 0, Kind.SET_EVENT, "e", False, b"null")
    return [step, EventRecord(run, "1", "e", b"1")]


def receive(owner: RawWorker, run: int) -> list[Record]:
    owner.write(*message(owner, run))
    (number,) = rows(owner.database.url, "select seq from perdure.messages")[0]
    return [StepRecord(run, "1", 1, 0, Kind.MESSAGE, "t", False, b"1", message=number)]


Make = Callable[[RawWorker, int], list[Record]]
RECORDS: dict[str, tuple[Make, str, int]] = {
    "a message": (message, "select count(*) from perdure.messages", 1),
    "two messages": (two_messages, "select count(*) from perdure.messages", 2),
    "a send": (send, "select count(*) from perdure.messages, perdure.steps", 1),
    "a send that fails": (failed_send, "select count(*) from perdure.steps where failed", 1),
    "an event": (event, "select count(*) from perdure.events, perdure.steps", 1),
    "a receive": (receive, "select count(*) from perdure.steps where message is not null", 1),
}


@pytest.mark.parametrize("single", [True, False], ids=["single form", "pipeline"])
@pytest.mark.parametrize("kind", RECORDS)
def test_a_lost_answer_is_found_again(kind: str, single: bool, proxy: Proxy, database_url: str) -> None:
    """Committed, answer lost, sent again: WON, and written once; a send that failed has failed again."""
    make, count, expected = RECORDS[kind]
    with RawWorker(proxy.url) as owner:
        records = make(owner, owner.start("the-run"))
        journal = journal_of(owner, single=single)
        loss = proxy.lose_answer(
            "perdure journal", "INSERT 0 1|COMMIT" if single and kind == "a receive" else "COMMIT"
        )
        ticket = Ticket(*records)
        journal.submit([ticket])
        assert ticket.wait_blocking(20)
        ticket.check()
        assert loss.happened.is_set(), "the test lost no answer"
        assert [record.outcome for record in records] == [Outcome.WON] * len(records)
        assert rows(database_url, count) == [(expected,)]
        if isinstance(records[0], SendRecord):
            assert (records[0].failed, records[0].value) == (
                (True, b'"unknown"') if kind == "a send that fails" else (False, b"null")
            )
        journal.stop()


@pytest.mark.parametrize("kind", ["a message", "a send"])
def test_a_repeated_send_to_a_run_that_has_ended_meanwhile_was_sent(
    kind: str, proxy: Proxy, database_url: str
) -> None:
    """The message stood before the end did: the sender is not told that it came too late."""
    with RawWorker(proxy.url) as owner, RawWorker(database_url) as other:
        target = other.start("the-run")
        records = RECORDS[kind][0](owner, owner.start("sender"))
        journal = journal_of(owner, single=True)
        loss = proxy.lose_answer("perdure journal", cut=False)
        ticket = Ticket(*records)
        journal.submit([ticket])
        assert loss.happened.wait(10)
        other.write(EndRecord(target, 7, b"1"))
        proxy.cut("perdure journal")
        assert ticket.wait_blocking(20)
        assert records[0].outcome is Outcome.WON
        assert not getattr(records[0], "failed", False)
        assert sent(database_url) == ["1"]
        journal.stop()


@pytest.mark.parametrize("colour", COLOURS)
@on_loop
async def test_runs_that_lose_every_other_answer_deliver_each_message_once(
    colour: str, proxy: Proxy, database_url: str
) -> None:
    """A sender and a receiver whose connections are cut at their COMMITs: each message once, in order."""
    async with Perdure(proxy.url, grace=0):
        target = await perdure.start(COLLECT[colour].options(id="c"), 20)
        losses = [
            proxy.lose_answer(lane) for lane in ("perdure journal", "perdure journal-2") for _ in range(3)
        ]
        await perdure.start(SEND[colour], "c", list(range(20)))
        assert await target.result(30) == list(range(20))
    assert all(loss.happened.is_set() for loss in losses[3:])
    assert sent(database_url) == [str(number) for number in range(20)]


@on_loop
async def test_an_acknowledgement_that_is_lost_is_asked_for_again_by_a_client(
    proxy: Proxy, database_url: str
) -> None:
    """`send` from outside, without a key of the user's: it returns, and the message is there once."""
    async with Perdure(database_url, grace=0), Perdure(proxy.url, worker=False) as client:
        with client.bind():
            handle = await client.start("mail.collect", args=[2], id="c")
            loss = proxy.lose_answer("perdure journal-2")
            await perdure.send("c", "t", "once")
            assert loss.happened.is_set()
            await perdure.send("c", "t", "last")
        assert await handle.result(20) == ["once", "last"]
        await until_true(lambda: asked(database_url, "select 1 from perdure.ends"))


def journal_of(owner: RawWorker, *, single: bool) -> Journal:
    """A journal that writes as this worker."""
    writer = BatchWriter(owner.database.statements, owner.number, 0, single_form=single)
    journal = Journal(
        writer, JournalHooks(owner.database.connect, lambda: None, ignore), name="journal", answer_within=10
    )
    journal.start()
    return journal


def ignore(_: Batch) -> Any:
    return None
