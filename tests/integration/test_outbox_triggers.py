"""Runs started by a trigger on a business table, and by plain SQL as psql sends it."""

from __future__ import annotations

import psycopg
import pytest

from perdure import sync
from tests.api_tools import rows
from tests.outbox_tools import check_rolled_back, check_shipped_once, example, shop, statements
from tests.protocol_tools import stranger


def test_a_trigger_starts_the_run_with_the_row(database_url: str) -> None:
    """An insert that is rolled back starts nothing; one that is committed starts its run, once."""
    with shop(database_url) as app:
        rows(database_url, statements("## A trigger"))
        with stranger(database_url) as connection:
            connection.execute("insert into orders (customer) values ('Anna')")
            connection.rollback()
            check_rolled_back(database_url)
            row = connection.execute("insert into orders (customer) values ('Anna') returning id").fetchone()
            assert row is not None
            connection.commit()
        check_shipped_once(app, database_url, row[0])


def test_an_update_twice_starts_once(database_url: str) -> None:
    """The id is made from the row, so a trigger that fires again attaches to the run that is there."""
    with shop(database_url) as app:
        rows(database_url, statements("## A trigger"))
        rows(
            database_url,
            "create trigger again after update on orders for each row execute function ship_order()",
        )
        ((order,),) = rows(database_url, "insert into orders (customer) values ('Anna') returning id")
        for name in ("Bert", "Cleo"):
            rows(database_url, "update orders set customer = %s", name)
        check_shipped_once(app, database_url, order)


def test_many_rows_of_one_statement_start_many_runs(database_url: str) -> None:
    """A thousand rows inserted at once are a thousand runs, and each is executed once."""
    with shop(database_url) as app:
        rows(database_url, statements("## A trigger"))
        rows(database_url, "insert into orders (customer) select 'c' || i from generate_series(1, 1000) i")
        for order in range(1, 1001):
            assert app.handle(f"ship-{order}").result(60) == f"order {order} is on its way"
        shipped = rows(database_url, "select count(*), count(distinct order_id) from shipment")
        assert shipped == [(1000, 1000)]


def test_a_refused_start_refuses_the_row(database_url: str) -> None:
    """A trigger whose start cannot be, such as one with an option misspelt, fails the insert with its error."""
    with shop(database_url):
        rows(database_url, statements("## A trigger").replace("'id'", "'ident'"))
        with pytest.raises(psycopg.Error, match="option ident is not known") as caught:
            rows(database_url, "insert into orders (customer) values ('Anna')")
        assert caught.value.sqlstate == "PD005"
        check_rolled_back(database_url)


def test_plain_sql_as_a_script_sends_it(database_url: str) -> None:
    """`begin; ...; commit` in one text, without parameters, as psql sends it."""
    script = """
        begin;
        insert into orders (customer) values ('Anna');
        select perdure.start('shop.ship', jsonb_build_array(currval('orders_id_seq')), '{"id": "ship-1"}');
        {end};
    """
    with shop(database_url) as app:
        rows(database_url, script.replace("{end}", "rollback; select setval('orders_id_seq', 1, false)"))
        check_rolled_back(database_url)
        rows(database_url, script.replace("{end}", "commit"))
        check_shipped_once(app, database_url, 1)


def test_the_example_for_psycopg(database_url: str) -> None:
    """The page's own function: the row and the run are committed together, and the handle waits for its result."""
    place_order = example("## psycopg").place_order
    with shop(database_url), psycopg.connect(database_url) as connection:
        assert place_order(connection, "Anna") == "order 1 in CHF"
    assert rows(database_url, "select id from orders") == [(1,)]


def test_the_example_in_a_transaction_step(database_url: str) -> None:
    """The page's own workflow: its step writes the order and starts its run, with one record."""
    accept_order = example("### In a transaction step").accept_order
    with shop(database_url) as app:
        id = sync.start(accept_order, "Anna").result(30)
        assert app.handle(id).result(30) == 1
