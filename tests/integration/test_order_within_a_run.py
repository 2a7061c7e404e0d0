"""What is committed of a run is a prefix of what its code saw, also where a batch has to be sent piece by piece."""

from __future__ import annotations

import pytest

from perdure.store.batch import BatchWriter
from perdure.store.database import Database
from perdure.store.journal import Journal
from perdure.store.records import Ticket
from perdure.store.writing import JournalHooks
from tests.api_tools import PATIENCE, rows
from tests.protocol_tools import RawWorker, step_of, stranger

RECORDED = "select position from perdure.steps order by position"


@pytest.mark.parametrize("lanes", [1, 2], ids=["one lane", "with the second lane"])
def test_nothing_overtakes_a_step_that_has_to_wait(lanes: int, database_url: str) -> None:
    """The first of a run's two steps in a batch is blocked by a stranger: the second is not written before it."""
    with RawWorker(database_url) as worker:
        hooks = JournalHooks(Database(worker.database.url).connect, lambda: None, lambda _: None)

        def lane(slot: int, overflow: Journal | None = None) -> Journal:
            single = not worker.database.pooler
            writer = BatchWriter(worker.database.statements, worker.number, slot, single_form=single)
            return Journal(writer, hooks, name=f"lane-{slot}", answer_within=10, overflow=overflow)

        second = lane(1) if lanes == 2 else None
        first = lane(0, second)
        run, innocent = worker.start("blocked"), worker.start("innocent")
        tickets = [
            Ticket(step_of(run, "1")),
            Ticket(step_of(run, "2", group=2)),
            Ticket(step_of(innocent, "9")),
        ]
        with stranger(database_url) as somebody:
            somebody.execute(
                "insert into perdure.steps (run, position, kind, name, failed, value, attempts, seconds, worker) "
                "values (%s, '1', 1, 'strange', false, '1', 1, 0, 0)",
                (run,),
            )
            first.submit(tickets)  # before the journal begins, so that they share a batch
            for journal in (first, second):
                if journal is not None:
                    journal.start()
            assert tickets[2].wait_blocking(PATIENCE)
            assert rows(database_url, RECORDED) == [("9",)]
            assert not tickets[1].done
        assert tickets[1].wait_blocking(PATIENCE)
        assert rows(database_url, RECORDED) == [("1",), ("2",), ("9",)]
        for journal in (first, second):
            if journal is not None:
                journal.stop()
