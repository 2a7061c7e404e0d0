"""What a claim costs does not depend on the backlog, nor on what lately went, though its dead rows cannot be removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from perdure.store.claiming import LOWEST
from tests.million_runs import Plan, planned
from tests.protocol_tools import RawWorker
from tests.servers import TestServer

BACKLOG = """
insert into perdure.runs (key, id, workflow, input, queue, queue_key)
select -n, 'r' || n, 'attacked', '{}', 'q', case when n % 10 < 7 then 'big' else 'key-' || n % 1000 end
from generate_series(1, 1000000) n;
insert into perdure.live (key, workflow, status, queue, queue_key, arrival)
select -n, 'attacked', 2, 'q', case when n % 10 < 7 then 'big' else 'key-' || n % 1000 end, n
from generate_series(1, 1000000) n;
analyze perdure.runs; analyze perdure.live
"""


@pytest.fixture(scope="module")
def owner(server: TestServer) -> Iterator[RawWorker]:
    url = server.create_database()
    worker = RawWorker(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute(BACKLOG.encode())
    yield worker
    worker.close()
    server.drop_database(url)


def look(owner: RawWorker) -> Plan:
    """One look, from the first group on."""
    parameters: dict[str, Any] = {
        "worker": owner.number, "queue": ["q"], "priority": [LOWEST], "queue_key": [""], "groups": 200, "wake_limit": 1000,
    }  # fmt: skip
    return planned(owner.connection, owner.database.statements["look_for_work"], parameters)


def claim(owner: RawWorker, key: str, since: int = 0) -> Plan:
    """One claim of a hundred runs, which is not committed."""
    parameters: dict[str, Any] = {
        "worker": owner.number, "slot": 2, "queue": ["q"], "priority": [0], "queue_key": [key], "quota": [100],
        "since": [since], "mode": [0], "workflows": ["attacked"], "versions": None, "version": None, "suspects": False,
    }  # fmt: skip
    with owner.connection.transaction(force_rollback=True):
        return planned(owner.connection, owner.database.statements["claim_runs"], parameters, times=1)


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
        through = claim(owner, "big")
        behind = claim(owner, "big", 143_001)
    assert behind.rows == 100
    assert behind.buffers < 100 * 40 < through.buffers
