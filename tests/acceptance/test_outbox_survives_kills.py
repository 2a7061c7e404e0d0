"""kill -9 among those who write rows with their runs, and among the workers: each row's run is executed, once."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from psycopg.types.json import Jsonb

from perdure import Connection, sync, transaction, workflow
from tests.api_tools import rows, until
from tests.process_tools import processes, say

ORDERS = 300
KILLS = 4


@transaction
def ship(conn: Connection, order: int) -> None:
    conn.execute("insert into shipment values (%s)", (order,))


@workflow(name="outbox.deliver")
def deliver(order: int) -> int:
    ship(order)
    sync.sleep(0.01)
    return order


def work(url: str) -> None:
    with sync.Perdure(url, lease=1, grace=0):
        say("works")
        threading.Event().wait()


def write(url: str, first: str) -> None:
    """Write orders, one a transaction, every third rolled back; half by SQL, half by `connection=`."""
    with sync.Perdure(url, worker=False), psycopg.connect(url) as conn:
        say("writes")
        for order in range(int(first), int(first) + ORDERS):
            conn.execute("insert into orders values (%s)", (order,))
            if order % 2:
                deliver.options(connection=conn, id=f"o-{order}").start(order)
            else:
                options = Jsonb({"id": f"o-{order}"})
                conn.execute("select perdure.start('outbox.deliver', %s, %s)", (Jsonb([order]), options))
            if order % 3:
                conn.commit()
            else:
                conn.rollback()


@pytest.mark.parametrize("seed", [3, 1997])
def test_each_committed_row_has_its_run_and_no_other_has(seed: int, database_url: str) -> None:
    """Writers die anywhere in their transactions, workers anywhere in their runs."""
    chance = random.Random(seed)
    with sync.Perdure(database_url, worker=False):
        rows(database_url, "create table orders (id int primary key)")
        rows(database_url, "create table shipment (id int)")
    with processes() as family:
        for kill in range(KILLS):
            worker = family.start(__name__, "work", database_url)
            writer = family.start(__name__, "write", database_url, kill * ORDERS)
            some = chance.randrange(20, 150)
            until(lambda: count(database_url, f"orders where id >= {kill * ORDERS}") >= some)  # noqa: B023
            for process in chance.sample([worker, writer], 2):
                process.kill()
        family.start(__name__, "work", database_url).wait_for("works")
        until(lambda: count(database_url, "perdure.live") == 0, within=90)
    written = rows(database_url, "select id from orders order by id")
    assert len(written) > KILLS * 10
    assert rows(database_url, "select id from shipment order by id") == written
    born = rows(database_url, "select substr(id, 3)::int from perdure.runs order by 1")
    assert born == written


def count(url: str, table: str) -> int:
    ((number,),) = rows(url, f"select count(*) from {table}")
    return int(number)
