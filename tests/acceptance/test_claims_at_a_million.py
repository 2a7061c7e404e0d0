"""What a claim costs does not depend on the backlog, nor on what lately went, though its dead rows cannot be removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from perdure import Queue
from perdure.store import queues
from perdure.store.claiming import EVER, LOWEST
from perdure.store.connection import Connection
from tests.million_runs import Plan, explained, planned
from tests.protocol_tools import RawWorker
from tests.servers import TestServer

BACKLOG = """
insert into perdure.runs (key, id, workflow, input, queue, queue_key)
select -n, 'r' || n, 'attacked', '{}', 'q', case when n % 10 < 7 then 'big' else 'key-' || n % 1000 end
from generate_series(1, 1000000) n;
insert into perdure.live (key, workflow, status, queue, queue_key, arrival)
select -n, 'attacked', 2, 'q', case when n % 10 < 7 then 'big' else 'key-' || n % 1000 end, n
from generate_series(1, 1000000) n
"""

CAME_AND_WENT = """
update perdure.live set status = 3, worker = 1, slot = nextval('perdure.slots')
where key in (select key from perdure.live where queue_key = 'key-7' or queue_key = 'big' order by key limit 40000);
delete from perdure.live where status = 3
"""


def of_look(owner: RawWorker) -> dict[str, Any]:
    """Parameters of one look, from the first group on."""
    return {
        "worker": owner.number, "queue": ["q"], "priority": [LOWEST], "queue_key": [""], "groups": 200, "wake_limit": 1000,
        "listen": ["q"], "ready_within": EVER,
    }  # fmt: skip


def of_claim(owner: RawWorker, key: str, since: int = 0) -> dict[str, Any]:
    """Parameters of one claim of a hundred runs."""
    return {
        "worker": owner.number, "slot": 2, "queue": ["q"], "priority": [0], "queue_key": [key], "quota": [100],
        "since": [since], "mode": [0], "workflows": ["attacked"], "versions": None, "version": None, "suspects": False,
        "counted": False,
    }  # fmt: skip


def look(owner: RawWorker) -> Plan:
    """One look."""
    return planned(owner.connection, owner.database.statements["look_for_work"], of_look(owner))


def claim(owner: RawWorker, key: str, since: int = 0) -> Plan:
    """One claim of a hundred runs, which is not committed."""
    with owner.connection.transaction(force_rollback=True):
        return planned(
            owner.connection, owner.database.statements["claim_runs"], of_claim(owner, key, since), times=1
        )


class Prepared:
    """A statement that is planned once, at its first execution."""

    def __init__(self, connection: Connection, name: str, statement: str) -> None:
        self._connection, self._name = connection, name
        self._names: list[str] = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
        text = re.sub(r"%\((\w+)\)s", lambda found: f"${self._names.index(found[1]) + 1}", statement)
        connection.execute(f"prepare {name} as {text}".encode())

    def explained(self, parameters: Mapping[str, Any]) -> Plan:
        """Carry it out and take it back."""
        values = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in self._names)
        execute = sql.SQL("execute {} ({})").format(sql.Identifier(self._name), values)
        with self._connection.transaction(force_rollback=True):
            return explained(self._connection, execute.as_string(self._connection))


@pytest.fixture(scope="module")
def early(server: TestServer) -> Iterator[tuple[RawWorker, Prepared, Prepared]]:
    """A backlog that came after a worker had planned its statements; nothing was analyzed since."""
    url = server.create_database()
    worker = RawWorker(url)
    with (
        worker.database.connect("producer", plan_once=True) as producer,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        producer.prepare_threshold = None  # else psycopg deallocates what is prepared with every rollback
        a_look, a_claim = (
            Prepared(producer, name, worker.database.statements[name])
            for name in ("look_for_work", "claim_runs")
        )
        a_look.explained(of_look(worker))
        a_claim.explained(of_claim(worker, "big"))
        connection.execute("set synchronous_commit = off")
        connection.execute(BACKLOG.encode())
        yield worker, a_look, a_claim
    worker.close()
    server.drop_database(url)


@pytest.fixture(scope="module")
def owner(early: tuple[RawWorker, Prepared, Prepared]) -> RawWorker:
    owner, _, _ = early
    owner.connection.execute("analyze perdure.runs, perdure.live")
    return owner


def test_plans_made_while_the_tables_were_empty_do(early: tuple[RawWorker, Prepared, Prepared]) -> None:
    """A worker plans once; what came since does not lead it through whole tables."""
    owner, a_look, a_claim = early
    assert a_look.explained(of_look(owner)).buffers < 200 * 15
    for key in ("big", "key-7"):
        plan = a_claim.explained(of_claim(owner, key))
        assert (plan.rows, plan.buffers < 100 * 40) == (100, True)


def test_look_goes_from_group_to_group(owner: RawWorker) -> None:
    """Two hundred of three hundred keys cost a few pages each, though one of them has 700,000 runs."""
    plan = look(owner)
    assert not plan.scanned & {"live", "runs"}
    assert plan.buffers < 200 * 15


@pytest.mark.parametrize("key", ["big", "key-7"])
def test_claim_costs_what_it_takes(owner: RawWorker, key: str) -> None:
    """A hundred runs: some pages for each, in a key with few as in one with many."""
    plan = claim(owner, key)
    assert not plan.scanned & {"live", "runs"}
    assert (plan.rows, plan.buffers < 100 * 40) == (100, True)


def test_dead_rows_that_a_snapshot_holds_cost_no_claim_but_the_first(owner: RawWorker) -> None:
    """A hundred thousand runs have gone, and an open transaction keeps their index entries: a worker goes on behind them."""
    with psycopg.connect(owner.database.url) as snapshot:
        snapshot.execute("set transaction isolation level repeatable read")
        snapshot.execute("select 1 from perdure.live limit 1")
        owner.connection.execute("delete from perdure.live where queue_key = 'big' and arrival <= 143000")
        through, behind = claim(owner, "big"), claim(owner, "big", 143_001)
        full = planned(owner.connection, owner.database.statements["look_for_work"], of_look(owner))
        no_places: dict[str, Any] = {"queue": [], "priority": [], "queue_key": []}
        quick = planned(
            owner.connection, owner.database.statements["look_for_work"], of_look(owner) | no_places
        )
    assert behind.rows == 100
    assert behind.buffers < 100 * 40 < through.buffers
    assert quick.buffers < 100
    assert full.buffers > 1000


def test_counts_of_limits_do_not_pass_what_has_died_since(owner: RawWorker) -> None:
    """Forty thousand runs held a slot and ended while a snapshot is held: a count from before them passes all, a later none."""
    queues.declare(owner.database, [Queue("q", concurrency=10)])
    statement = owner.database.statements["slots_taken"]
    with psycopg.connect(owner.database.url) as snapshot:
        snapshot.execute("set transaction isolation level repeatable read")
        snapshot.execute("select 1 from perdure.live limit 1")
        for sql_text in CAME_AND_WENT.split(";"):
            owner.connection.execute(sql_text.encode())
        [last] = owner.connection.execute("select last_value from perdure.slots").fetchone() or ()
        through = planned(owner.connection, statement, {"queue": ["q"], "since": [0]}, times=1)
        behind = planned(owner.connection, statement, {"queue": ["q"], "since": [last]}, times=1)
        held: dict[str, Any] = {"key": list(range(-400_100, -400_000)), "slot": [1] * 100}
        left = planned(owner.connection, owner.database.statements["slots_left"], held, times=1)
    assert not (behind.scanned | left.scanned) & {"live", "runs"}
    assert (left.rows, left.buffers < 100 * 10) == (100, True)
    assert behind.buffers < 50
    assert through.buffers > 1000
