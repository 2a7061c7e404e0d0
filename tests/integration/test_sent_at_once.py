"""What an event loop records alone is sent by the loop's own thread; the journal's thread waits for the answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest

import perdure
from perdure.store.batch import Batch, BatchWriter
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.journal import Journal
from perdure.store.records import Outcome, Ticket
from perdure.store.writing import JournalHooks
from tests.api_tools import PATIENCE, rows, until
from tests.protocol_tools import RawWorker, step_of

pytestmark = pytest.mark.session


class WatchedWriter(BatchWriter):
    """Notes which threads send and which wait; loses the connection behind what was sent, if asked to."""

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.sent, self.waited = list[str](), list[tuple[str, bool]]()
        self.breaks: str | None = None

    def begin(self, connection: Connection, batch: Batch) -> None:
        """Send, and note whether it was."""
        if self.breaks == "before":
            self.breaks = None
            raise RuntimeError("before anything was sent")
        super().begin(connection, batch)
        if batch.answer is not None:
            self.sent.append(threading.current_thread().name)
        if self.breaks == "behind":
            self.breaks, batch.answer = None, None
            raise RuntimeError("it is on its way, and nobody knows")
        if self.breaks == "lost":
            self.breaks = None
            connection.pgconn.finish()

    def write(self, connection: Connection, batch: Batch, lock_timeout: float) -> None:
        """Write, or wait for the answer."""
        self.waited.append((threading.current_thread().name, batch.answer is not None))
        super().write(connection, batch, lock_timeout)


@pytest.fixture
def worker(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url, slot=0) as made:
        yield made


@pytest.fixture
def writer(worker: RawWorker) -> WatchedWriter:
    return WatchedWriter(worker.database.statements, worker.number, 0)


@pytest.fixture
def journal(worker: RawWorker, writer: WatchedWriter) -> Iterator[Journal]:
    hooks = JournalHooks(Database(worker.database.url).connect, lambda: None, lambda _: None)
    made = Journal(writer, hooks, name="journal", answer_within=10)
    made.start()
    yield made
    made.stop()


def written(journal: Journal, ticket: Ticket) -> Ticket:
    """Send a ticket once the journal has nothing else to do, and wait for it."""
    until(lambda: journal._idle and not journal._writing)
    journal.send([ticket])
    assert ticket.wait_blocking(PATIENCE)
    return ticket


def test_the_second_of_a_kind_is_sent_by_whoever_gives_it(
    worker: RawWorker, journal: Journal, writer: WatchedWriter
) -> None:
    """The first prepares its statement, in the journal's thread; what follows is sent here and waited for there."""
    run = worker.start()
    for number in range(1, 4):
        ticket = written(journal, Ticket(step_of(run, str(number))))
        assert ticket.records[0].outcome is Outcome.WON
    assert writer.sent == ["MainThread"] * 2
    assert writer.waited == [("perdure-journal", False), ("perdure-journal", True), ("perdure-journal", True)]
    assert rows(worker.database.url, "select count(*) from perdure.steps") == [(3,)]


@pytest.mark.parametrize("breaks", ["before", "behind", "lost"])
def test_what_goes_wrong_while_it_is_sent_is_mended_by_the_thread(
    worker: RawWorker, journal: Journal, writer: WatchedWriter, breaks: str
) -> None:
    """It was not sent, or nobody knows, or the connection is gone: it stands once, and what comes next is written too."""
    run = worker.start()
    written(journal, Ticket(step_of(run, "1")))
    writer.breaks = breaks
    for number in range(2, 5):
        ticket = written(journal, Ticket(step_of(run, str(number))))
        assert writer.breaks is None, "nothing was broken"
        assert ticket.error is None
        assert ticket.records[0].outcome is Outcome.WON
    assert rows(worker.database.url, "select position from perdure.steps order by 1") == [
        ("1",),
        ("2",),
        ("3",),
        ("4",),
    ]


def test_what_is_no_longer_prepared_is_prepared_anew(
    worker: RawWorker, journal: Journal, writer: WatchedWriter
) -> None:
    """Somebody deallocates what was prepared between two records."""
    run = worker.start()
    written(journal, Ticket(step_of(run, "1")))
    assert journal._connection is not None
    journal._connection.pgconn.exec_(b"deallocate all")  # of which psycopg knows nothing
    ticket = written(journal, Ticket(step_of(run, "2")))
    assert writer.sent == ["MainThread"]
    assert (ticket.error, ticket.records[0].outcome) == (None, Outcome.WON)


def test_a_zombie_that_sends_at_once_writes_nothing(
    worker: RawWorker, journal: Journal, writer: WatchedWriter
) -> None:
    """The fence holds for what is sent by the loop, as for everything else."""
    run = worker.start()
    written(journal, Ticket(step_of(run, "1")))
    with psycopg.connect(worker.database.url, autocommit=True) as connection:
        connection.execute("delete from perdure.fences")
    ticket = written(journal, Ticket(step_of(run, "2")))
    assert writer.sent == ["MainThread"]
    assert ticket.error is not None
    assert rows(worker.database.url, "select count(*) from perdure.steps") == [(1,)]


def test_steps_of_an_async_run_are_sent_by_its_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real app: some, those for which the journal had nothing else to do; no other thread sends."""
    senders: list[str] = []
    begin = BatchWriter.begin

    def noted(self: BatchWriter, connection: Connection, batch: Batch) -> None:
        begin(self, connection, batch)
        if batch.answer is not None:
            senders.append(threading.current_thread().name)

    monkeypatch.setattr(BatchWriter, "begin", noted)

    @perdure.step
    async def one(number: int) -> int:
        return number + 1

    @perdure.workflow(name="sent.chain")
    async def chain() -> int:
        number = 0
        for _ in range(5):
            number = await one(number)
        return number

    async def run() -> None:
        async with perdure.Perdure(database_url):
            assert await chain() == 5
            assert await chain() == 5

    asyncio.run(run())
    assert set(senders) == {"MainThread"}
    assert len(senders) > 1
