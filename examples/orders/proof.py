"""The proof: what the tables must say once every order is through, compared with the file.

Nothing is taken from what the processes said. The business tables and perdure's own account of the runs are
read from Postgres, the charges from the provider's database, and each is compared line by line.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable
from contextlib import closing
from dataclasses import astuple, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from orders import Order, totals

from perdure import Connection, RunInfo, sync, transaction

Totals = tuple[int, int, Decimal]
"""Orders, CDs, US dollars."""


@dataclass(frozen=True)
class Check:
    """One line of the proof: what was looked at, whether it is right, and what was found."""

    what: str
    right: bool
    found: str


@dataclass(frozen=True)
class Tables:
    """The shop's tables, and the provider's."""

    orders: list[tuple[int, int, date, int, Decimal]]
    unconfirmed: int
    payments: list[tuple[int, str]]
    ledger: list[tuple[int, str, Decimal]]
    late: int
    closed: list[tuple[date, Decimal]]
    sales: list[tuple[date, Decimal]]
    customers: list[tuple[int, int, int, Decimal]]
    charges: list[tuple[int, str, Decimal]]
    asked: int


def prove(runs: list[RunInfo], orders: list[Order], provider: Path, known: Totals | None) -> list[Check]:
    """Compare everything with the file.

    Args:
        runs: every run that there is.
        orders: what the file says.
        provider: the provider's database.
        known: orders, CDs and dollars that the whole must come to, if they are known from elsewhere.
    """
    tables = read_tables(provider)
    checks = [*check_runs(runs, orders), *check_shop(tables, orders), *check_charges(tables, orders)]
    cash = sum((amount for _, account, amount in tables.ledger if account == "cash"), Decimal(0))
    found, expected = (len(tables.orders), sum(order[3] for order in tables.orders), cash), totals(orders)
    text = f"{found[0]:,} orders, {found[1]:,} CDs, USD {found[2]:,}"
    checks.append(Check("the whole", found == expected == (known or expected), text))
    return checks


def check_runs(runs: list[RunInfo], orders: list[Order]) -> list[Check]:
    """Every order, and every month's close, has one run, and it succeeded."""
    ids = [f"order-{order.number}" for order in orders]
    ids += [f"close-{month:%Y-%m}" for month in {order.month for order in orders}]
    return [
        compare("one run for each order and each month", (run.id for run in runs), ids),
        compare("every run succeeded", (run.status.value for run in runs), ["succeeded"] * len(ids)),
    ]


def check_shop(tables: Tables, orders: list[Order]) -> list[Check]:
    """The shop's tables say of each order what the file says, once."""
    debits = [(order.number, "cash", order.amount) for order in orders]
    credits = [(order.number, "sales", -order.amount) for order in orders]
    customers: dict[int, tuple[int, int, int, Decimal]] = {}
    for order in orders:
        _, count, cds, spent = customers.get(order.customer, (0, 0, 0, Decimal(0)))
        customers[order.customer] = order.customer, count + 1, cds + order.cds, spent + order.amount
    sales = dict(tables.sales)
    closed = [(month, sales.get(month, Decimal(0))) for month in {order.month for order in orders}]
    return [
        compare("every order recorded once", tables.orders, map(astuple, orders)),
        Check("every order confirmed", tables.unconfirmed == 0, f"{tables.unconfirmed:,} are not"),
        compare("every order posted once, on both sides", tables.ledger, debits + credits),
        compare(
            "every month closed, nothing posted into it after",
            tables.closed,
            closed,
            f"{len(tables.closed)} months; {tables.late:,} orders came after their month's close",
        ),
        compare("every customer's total", tables.customers, customers.values()),
    ]


def check_charges(tables: Tables, orders: list[Order]) -> list[Check]:
    """The provider charged each order once, and each order bears the number of its payment."""
    expected = [(order.number, order.amount) for order in orders]
    charged = [(number, amount) for number, _, amount in tables.charges]
    repeats = tables.asked - len(tables.charges)
    return [
        compare(
            "every order charged once",
            charged,
            expected,
            f"{len(charged):,}; asked {repeats:,} times more for what was charged already",
        ),
        compare(
            "every payment is its order's",
            tables.payments,
            [(n, payment) for n, payment, _ in tables.charges],
        ),
    ]


def compare(
    what: str, found: Iterable[Hashable], expected: Iterable[Hashable], text: str | None = None
) -> Check:
    """Compare two collections, whatever their order; duplicates count."""
    have, want = Counter(found), Counter(expected)
    if have == want:
        return Check(what, True, text or f"{have.total():,}")
    missing, surplus = want - have, have - want
    examples = [f"missing {item}" for item in list(missing)[:2]] + [
        f"surplus {item}" for item in list(surplus)[:2]
    ]
    return Check(
        what, False, f"{missing.total():,} missing, {surplus.total():,} surplus: {'; '.join(examples)}"
    )


def all_runs(app: sync.Perdure) -> list[RunInfo]:
    """Every run of the app, page by page."""
    runs: list[RunInfo] = []
    while page := app.runs.list(limit=10_000, cursor=runs[-1].cursor if runs else None):
        runs += page
    return runs


def duration(runs: list[RunInfo]) -> float:
    """Return the seconds from the first order's start to the last one's end."""
    ended = [run.finished for run in runs if run.finished is not None]
    return (max(ended) - min(run.created for run in runs)).total_seconds() if ended else 0.0


@transaction
def takeovers(conn: Connection) -> list[tuple[str, str, int]]:
    """Return which dead worker's runs went on in which worker, and how many: from perdure's own tables."""
    return conn.execute(
        """
        with handed as (
            select t.worker as dead,
                   coalesce(lead(t.worker) over (partition by t.run order by t.taken), e.worker) as heir
            from perdure.takeovers t left join perdure.ends e on e.key = t.run),
        named as (select id, name from perdure.workers union all select id, name from perdure.workers_gone)
        select dead.name, heir.name, count(*)
        from handed join named dead on dead.id = handed.dead join named heir on heir.id = handed.heir
        group by 1, 2 order by 1, 2
        """
    ).fetchall()


def read_tables(provider: Path) -> Tables:
    """Read everything."""
    with closing(sqlite3.connect(provider)) as database:
        rows = database.execute("select order_number, payment, amount, asked from charges").fetchall()
    charges = [(number, f"payment-{payment}", Decimal(amount)) for number, payment, amount, _ in rows]
    return Tables(**shop_tables(), charges=charges, asked=sum(row[3] for row in rows))


@transaction
def shop_tables(conn: Connection) -> dict[str, Any]:
    """Read the shop's tables. Outside of a workflow a transaction is just that."""

    def rows(query: Any) -> list[tuple[Any, ...]]:
        return conn.execute(query).fetchall()

    return {
        "orders": rows("select number, customer, day, cds, amount from orders"),
        "unconfirmed": rows("select count(*) from orders where told is null")[0][0],
        "payments": rows("select number, payment from orders"),
        "ledger": rows("select number, account, amount from ledger"),
        "late": rows("select count(*) from orders o join ledger l using (number) "
                     "where l.account = 'cash' and l.month > o.day - extract(day from o.day)::integer + 1")[0][0],
        "closed": rows("select month, sales from closed_months"),
        "sales": rows("select month, -sum(amount) from ledger where account = 'sales' group by month"),
        "customers": rows("select id, orders, cds, spent from customers"),
    }  # fmt: skip


@transaction
def confirmed(conn: Connection) -> int:
    """Count the confirmed orders."""
    row = conn.execute("select count(*) from orders where told is not null").fetchone()
    return int(row[0]) if row else 0


@transaction
def in_hand(conn: Connection, names: list[str]) -> dict[str, int]:
    """Count the runs that each of these workers has in hand."""
    counts = conn.execute(
        "select w.name, count(*) from perdure.workers w join perdure.live l on l.worker = w.id and l.status = 3 "
        "group by w.name"
    ).fetchall()
    return dict.fromkeys(names, 0) | {name: count for name, count in counts if name in names}
