"""The shop: what happens to an order, as durable workflows. Read this first.

Processes are killed and Postgres is restarted while this runs, and still each order is recorded, charged,
posted, counted and confirmed once. There is no code for that here, and no column that says how far it got.
"""

import json
import os
from contextlib import closing
from datetime import date
from http.client import HTTPConnection

from orders import Order

import perdure
from perdure import AsyncConnection, Connection, Retry, step, transaction, workflow

BOOKS_STAY_OPEN = 2.0  # seconds after a month's last order, for orders that are still under way


@workflow
async def sell(order: Order) -> str:
    """One order, from the till to the confirmation; returns the number of the payment."""
    await record(order)
    payment = await perdure.run_step(charge, order)  # a `def` step: it blocks, so it runs in a thread
    await post(order)
    await add_to_customer(order)
    await confirm(order.number, payment)
    return payment


@workflow
async def close_month(month: date) -> None:
    """Close the books of a month, a little after its last order came in."""
    await perdure.sleep(BOOKS_STAY_OPEN)
    await close(month)


@transaction
async def record(conn: AsyncConnection, order: Order) -> None:
    """Write the order down. A transaction happens exactly once: it commits together with its own record."""
    await conn.execute(
        "insert into orders values (%(number)s, %(customer)s, %(day)s, %(cds)s, %(amount)s)", vars(order)
    )


@step(retry=Retry(max_attempts=20, delay=0.1, max_delay=2))
def charge(order: Order) -> str:
    """Have the provider charge the customer.

    A step happens at least once: an answer may be lost, or this process. Each attempt, in whatever process,
    has the same idempotency key, and the provider charges once for a key.
    """
    with closing(HTTPConnection(os.environ["PROVIDER"], timeout=1)) as provider:
        body = json.dumps({"order": order.number, "amount": str(order.amount)})
        provider.request("POST", "/charges", body, {"Idempotency-Key": perdure.info().idempotency_key})
        response = provider.getresponse()
        answer = json.load(response)
    if response.status != 200:
        raise RuntimeError(f"the provider answers {response.status}: {answer}")
    return str(answer["payment"])


@transaction(lock={"ledger": "row exclusive"})
async def post(conn: AsyncConnection, order: Order) -> None:
    """Post to the ledger: into the order's month or, where its books are closed, into the first open one."""
    await conn.execute(
        """
        insert into ledger (number, month, account, amount)
        select %(number)s, greatest(%(month)s::date, (select max(month) + interval '1 month' from closed_months)),
               account, amount
        from (values ('cash', %(amount)s::numeric), ('sales', - %(amount)s::numeric)) as entry (account, amount)
        """,
        vars(order) | {"month": order.month},
    )


@transaction(lock={"ledger": "share row exclusive"})
async def close(conn: AsyncConnection, month: date) -> None:
    """Total a month for good.

    The lock waits for the posts that are under way and holds up new ones until this commits. They then see
    the month closed; without it, one that saw it open could commit after it was totalled.
    """
    await conn.execute(
        "insert into closed_months (month, sales) "
        "select %(month)s, coalesce(-sum(amount), 0) from ledger where month = %(month)s and account = 'sales'",
        {"month": month},
    )


@transaction
async def add_to_customer(conn: AsyncConnection, order: Order) -> None:
    """Add the order to what the customer has bought; done twice, this would count twice."""
    await conn.execute(
        "insert into customers as c values (%(customer)s, 1, %(cds)s, %(amount)s) on conflict (id) do update "
        "set orders = c.orders + 1, cds = c.cds + excluded.cds, spent = c.spent + excluded.spent",
        vars(order),
    )


@transaction
async def confirm(conn: AsyncConnection, number: int, payment: str) -> None:
    """Tell the customer, and what the payment's number is."""
    await conn.execute("update orders set payment = %s, told = now() where number = %s", (payment, number))


@transaction
def create_tables(conn: Connection) -> None:
    """Create the shop's own tables, in the same database."""
    conn.execute(
        """
        create table orders (number integer primary key, customer integer not null, day date not null,
            cds integer not null, amount numeric(10, 2) not null, payment text, told timestamptz);
        create table ledger (number integer not null, month date not null, account text, amount numeric(10, 2));
        create table closed_months (month date primary key, sales numeric(12, 2) not null);
        create table customers (id integer primary key, orders integer, cds integer, spent numeric(12, 2));
        """
    )
