"""Statements that are prepared by hand, on a connection on which psycopg prepares and deallocates others."""

from __future__ import annotations

import psycopg
import pytest

from perdure.store.records import HandOver, Outcome, Ticket
from tests.protocol_tools import RawWorker, start_of, step_of, stranger

pytestmark = pytest.mark.session

QUEUED = '{"queue": "q"}'


def fail_a_batch(owner: RawWorker, run: int) -> None:
    """Have a batch fail at a lock: psycopg deallocates all that is prepared when it is rolled back."""
    with stranger(owner.database.url) as other:
        other.execute("select 1 from perdure.live where key = %s for update", (run,))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.write_tickets([Ticket(HandOver(run)), Ticket(HandOver(run + 1))], lock_timeout=0.01)


def test_what_was_prepared_since_a_rollback_is_known_though_other_statements_are_gone(
    database_url: str,
) -> None:
    """One that was prepared before it, one after it, in turns: each is found missing once, and never twice there."""
    with RawWorker(database_url) as owner:
        run, _ = owner.start("a"), owner.start("b")
        owner.write(start_of(owner.key(), "before", options=QUEUED))
        for number in range(3):
            fail_a_batch(owner, run)
            for place in ("x", "y"):
                step = step_of(run, f"{number}{place}")
                start = start_of(owner.key(), f"{number}{place}", options=QUEUED)
                owner.write(step)
                owner.write(start)
                assert (step.outcome, start.outcome) == (Outcome.WON, Outcome.WON)


def test_statement_whose_preparation_was_cut_off_is_used_all_the_same(database_url: str) -> None:
    """The server has it, and this side does not know."""
    with RawWorker(database_url) as owner:
        run = owner.start("a")
        owner.write(step_of(run, "1"))
        del owner.connection.plans["record_step"]
        owner.write(step := step_of(run, "2"))
        assert step.outcome is Outcome.WON
