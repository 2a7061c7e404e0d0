"""A thread that waits for its record writes the journal's batch itself; interrupted, it leaves it to the journal."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from perdure.store.batch import Batch, BatchWriter
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.journal import Journal
from perdure.store.records import Outcome, Ticket
from perdure.store.writing import JournalHooks
from tests.api_tools import PATIENCE, rows
from tests.protocol_tools import RawWorker, step_of

pytestmark = pytest.mark.session


class WatchedWriter(BatchWriter):
    """Notes which threads write; interrupts the first of them between its COMMIT and what it makes of the answer."""

    interrupts = 0

    def write(self, connection: Connection, batch: Batch, lock_timeout: float) -> None:
        """Write, and be interrupted as often as was asked for."""
        super().write(connection, batch, lock_timeout)
        self.threads = [*getattr(self, "threads", []), threading.current_thread().name]
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt


@pytest.fixture
def worker(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url, slot=0) as made:
        yield made


@pytest.fixture
def journal(worker: RawWorker) -> Iterator[Journal]:
    hooks = JournalHooks(Database(worker.database.url).connect, lambda: None, lambda _: None)
    writer = WatchedWriter(worker.database.statements, worker.number, 0)
    made = Journal(writer, hooks, name="journal", answer_within=10)
    yield made
    made.stop()


def test_whoever_waits_writes(worker: RawWorker, journal: Journal) -> None:
    """With the journal's own thread not even there, a ticket is written by the thread that waits for it."""
    run = worker.start()
    ticket = Ticket(step_of(run))
    journal.submit([ticket])
    journal.lend_hand(ticket)
    assert ticket.done
    assert ticket.records[0].outcome is Outcome.WON
    assert rows(worker.database.url, "select count(*) from perdure.steps") == [(1,)]
    journal.start()


def test_an_interrupted_hand_loses_nothing(worker: RawWorker, journal: Journal) -> None:
    """Ctrl-C between the COMMIT and its answer: the journal's thread sends the batch again, and knows its rows."""
    run = worker.start()
    first, second = Ticket(step_of(run, "1")), Ticket(step_of(run, "2", group=2))
    journal.submit([first, second])
    journal._writer.interrupts = 1  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        journal.lend_hand(first)
    assert not first.done
    journal.start()
    assert first.wait_blocking(PATIENCE)
    assert second.wait_blocking(PATIENCE)
    assert [ticket.records[0].outcome for ticket in (first, second)] == [Outcome.WON, Outcome.WON]
    assert rows(worker.database.url, "select count(*) from perdure.steps") == [(2,)]


def test_one_writes_at_a_time(worker: RawWorker, journal: Journal) -> None:
    """Twenty threads that wait, with the journal's own: every record stands, in the order in which it was queued."""
    journal.start()
    runs = [worker.start(f"run-{number}") for number in range(20)]

    def work(run: int) -> None:
        for place in range(1, 11):
            ticket = Ticket(step_of(run, str(place), group=place))
            journal.submit([ticket])
            journal.lend_hand(ticket)
            ticket.wait_blocking(PATIENCE)

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert rows(worker.database.url, "select count(*), count(distinct run) from perdure.steps") == [(200, 20)]
    names = set(journal._writer.threads)  # type: ignore[attr-defined]
    assert any(not name.startswith("perdure-") for name in names)
