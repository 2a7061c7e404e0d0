"""Statements that are prepared by hand, on a connection on which psycopg prepares and deallocates others."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from perdure.models import CancelReason
from perdure.store.arrays import Texts
from perdure.store.claiming import LOWEST, Claimant, Part, look
from perdure.store.claims import ClaimedRun, load_histories
from perdure.store.connection import connect, is_lost
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, fetch, roll_back, rows
from perdure.store.records import EventRecord, HandOver, Outcome, StepRecord, Ticket
from perdure.store.workers import renew
from tests.api_tools import until
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


def test_what_a_stranger_deallocates_is_prepared_again(database_url: str) -> None:
    """In both forms of a batch."""
    with RawWorker(database_url) as owner:
        run = owner.start("a")
        for number in range(4):
            step = step_of(run, str(number))
            owner.write(step_of(run, f"{number} alone"))
            owner.write(step_of(run, f"{number} too"), EventRecord(run, f"{number} too", "key", b"1"))
            owner.connection.pgconn.exec_(b"deallocate all")  # of which psycopg knows nothing
            owner.write(step, *([EventRecord(run, str(number), "key", b"1")] if number % 2 else []))
            assert step.outcome is Outcome.WON


def test_connection_that_the_server_ends_while_it_is_idle_costs_nothing(database_url: str) -> None:
    """For whatever reason, and in both forms: the journal sends the same over a new one."""
    with psycopg.connect(database_url, autocommit=True) as other, RawWorker(database_url) as owner:
        run = owner.start("a")
        owner.write(step_of(run, "prepared"))
        other.execute("select set_config('test.pid', %s, false)", (str(owner.connection.info.backend_pid),))
        for more in ((), (EventRecord(run, "2", "key", b"1"),)):
            owner.connection.execute("set idle_session_timeout = 1")
            until(lambda: not other.execute(ALIVE).fetchall())
            with pytest.raises(psycopg.OperationalError) as caught:
                owner.write(step_of(run, "2"), *more)
            assert is_lost(caught.value)
            owner.connection = owner.database.connect("raw")
            other.execute(
                "select set_config('test.pid', %s, false)", (str(owner.connection.info.backend_pid),)
            )


ALIVE = "select 1 from pg_stat_activity where pid = current_setting('test.pid')::integer"


def test_statement_that_returns_other_types_now_is_prepared_again(database_url: str) -> None:
    """A migration changes what a statement returns, while a connection lives on."""
    with RawWorker(database_url) as owner, psycopg.connect(database_url, autocommit=True) as other:
        other.execute("create table changing (a integer)")
        every = Statement("select * from changing", {}, "every")
        assert len(execute(owner.connection, [every])) == 1
        other.execute("alter table changing add b text")
        assert len(execute(owner.connection, [BEGIN, every, COMMIT])) == 3
        other.execute("alter table changing add c text")
        assert len(execute(owner.connection, [every])) == 1


REFUSE_AT_COMMIT = """
create function refuse() returns trigger language plpgsql as $$
begin
    raise exception 'refused at the commit';
end $$;
create constraint trigger refuses after insert on perdure.steps deferrable initially deferred
    for each row when (new.name = 'bad') execute function refuse();
"""


@pytest.mark.parametrize("single", [True, False], ids=["one statement", "a packet"])
def test_error_at_the_commit_is_an_error(single: bool, database_url: str) -> None:
    """It comes behind the statement's own answer, which said that a row is there."""
    with RawWorker(database_url) as owner:
        run = owner.start("a")
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(REFUSE_AT_COMMIT)
        bad = StepRecord(run, "1", 1, 0, 1, "bad", False, b"1")
        more = () if single else (EventRecord(run, "1", "key", b"1"),)
        for _ in range(2):
            with pytest.raises(psycopg.errors.RaiseException, match="at the commit"):
                owner.write(bad, *more)
        owner.write(good := step_of(run, "1"))
        assert (bad.outcome, good.outcome) == (Outcome.PENDING, Outcome.WON)


def test_packet_of_which_one_statement_fails_does_nothing(database_url: str) -> None:
    """The first failure is told, what is behind it is not done, and the connection is of use again."""
    with RawWorker(database_url) as owner:
        make = Statement("create table made ()")
        with pytest.raises(psycopg.errors.UndefinedTable, match="missing"):
            execute(owner.connection, [BEGIN, make, Statement("select from missing"), Statement("x"), COMMIT])
        roll_back(owner.connection)
        with pytest.raises(psycopg.errors.UndefinedTable, match="made"):
            execute(owner.connection, [Statement("select from made")])
        assert rows(owner.connection, execute(owner.connection, [Statement("select 7")])[0]) == [(7,)]


def test_packet_whose_answer_is_cut_off_is_lost(database_url: str) -> None:
    """The server ends the connection in the middle of it: some of it is answered, and the outcome is unknown."""
    with RawWorker(database_url) as owner:
        end = Statement("select pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(psycopg.OperationalError) as caught:
            execute(owner.connection, [BEGIN, Statement("select 1"), end, COMMIT])
        assert is_lost(caught.value)
        assert owner.connection.closed


def test_parameter_that_cannot_be_packed_sends_nothing(database_url: str) -> None:
    """The error is the caller's, and the connection is as it was."""
    with RawWorker(database_url) as owner:
        run = owner.start("a")
        for group in (1, 2**31):
            step = step_of(run, str(group), group=group)
            with nullcontext() if group == 1 else pytest.raises(struct.error):
                owner.write(step, EventRecord(run, step.position, "key", b"1"))
        owner.write(step_of(run, "after"))
        assert owner.connection.pgconn.transaction_status == TransactionStatus.IDLE


def prepared_by(connection: psycopg.Connection[Any]) -> list[str]:
    """Names under which anything is prepared, by hand or by psycopg."""
    found = connection.execute("select name from pg_prepared_statements order by name", prepare=False)
    return [name for (name,) in found]


def test_what_is_read_goes_by_hand_where_its_parameters_can_be_packed(database_url: str) -> None:
    """Rows come as psycopg gives them; JSON, for one, is psycopg's to send."""
    text = "select %(number)s::bigint + 1, %(text)s::text, %(share)s::float8, %(many)s::text[], now()"
    given = {"number": 1, "text": "ä", "share": 0.5, "many": Texts(["a", "b"])}
    with connect(database_url, name="test") as connection:
        for _ in range(2):
            ((*seen, now),) = fetch(connection, Statement(text, given, "by_hand"))
            assert seen == [2, "ä", 0.5, ["a", "b"]]
            assert isinstance(now, datetime)
        (name,) = prepared_by(connection)
        assert name.startswith("perdure_by_hand_")
        for value in ({"a": 1}, None):
            assert fetch(
                connection, Statement("select %(json)s::jsonb", {"json": value and Jsonb(value)}, "json")
            ) == [(value,)]
        assert fetch(connection, Statement("set lock_timeout = 0", {}, "nothing")) == []


@pytest.mark.parametrize("value", [1.5, 2**70, "one", [1]])
def test_value_that_cannot_be_packed_gets_the_answer_that_psycopg_gives(
    database_url: str, value: object
) -> None:
    """And the connection stands."""
    statement = Statement("select %(number)s::bigint", {"number": value}, "number")
    with connect(database_url, name="test") as connection:
        assert fetch(connection, statement._replace(parameters={"number": 7})) == [(7,)]
        try:
            expected: Any = connection.execute(statement.text.encode(), statement.parameters).fetchall()
        except psycopg.Error as error:
            with pytest.raises(type(error)):
                fetch(connection, statement)
        else:
            assert fetch(connection, statement) == expected
        assert fetch(connection, statement._replace(parameters={"number": 8})) == [(8,)]


def test_what_workers_and_clients_ask_again_and_again_goes_by_hand(database_url: str) -> None:
    """Looks, claims, histories and leases: nothing of them is psycopg's to prepare."""
    with RawWorker(database_url) as owner:
        database, connection = owner.database, owner.connection
        look(connection, database, worker=owner.number, listen=["q"], places=[("q", LOWEST, "")])
        Claimant(owner.number, ["w"], ["v"]).claim(connection, database, [Part(("q", 0, ""), 1)])
        claimed = ClaimedRun(owner.start(), "a", "w", b"", False, 0, CancelReason.NONE, 0, None, {})
        load_histories(connection, database, [claimed])
        renew(connection, database, owner.number)
        prepared = prepared_by(connection)
        assert not [name for name in prepared if not name.startswith("perdure_")]
        for statement in ("look_for_work", "claim_runs", "load_steps", "load_waits", "renew_lease"):
            assert [name for name in prepared if name.startswith(f"perdure_{statement}_")], statement
