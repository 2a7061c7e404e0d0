"""The demo with damage done to its tables before the proof: run by a test, which reads what it prints.

Each damage is done, proved, and taken back; the line says which checks found it. The last one stays, so
that the demo ends with it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "orders"))

import demo  # type: ignore[import-not-found]
import proof  # type: ignore[import-not-found]

from perdure import Connection, transaction

SHOP = {
    "an order lost": "delete from orders where number = 1",
    "an order changed": "update orders set amount = amount + 0.01 where number = 1",
    "an order not confirmed": "update orders set told = null where number = 1",
    "another's payment": "update orders set payment = 'payment-0' where number = 1",
    "posted twice": "insert into ledger select * from ledger where number = 1",
    "posted on one side": "delete from ledger where number = 1 and account = 'sales'",
    "posted with another amount": "update ledger set amount = 1.25 * amount where number = 1",
    "posted into a closed month": "update ledger set month = '1998-01-01' where number = 1",
    "a month not closed": "delete from closed_months where month = '1997-01-01'",
    "counted twice": "update customers set orders = orders + 1 where id = 4",
    "a customer lost": "delete from customers where id = 4",
}
PROVIDER = {
    "charged twice": "insert into charges (key, order_number, amount) values ('another', 1, '29.33')",
    "not charged": "delete from charges where order_number = 1",
    "charged another amount": "update charges set amount = '29.34' where order_number = 1",
}
TABLES = ("orders", "ledger", "closed_months", "customers")


@transaction
def execute(conn: Connection, *statements: str) -> None:
    for statement in statements:
        conn.execute(statement.encode())


class DamagingDirector(demo.Director):  # type: ignore[misc]
    def prove(self, app: Any, orders: list[Any], known: Any) -> bool:
        def wrong(runs: Any = None, known: Any = None) -> list[str]:
            checks = proof.prove(runs or proof.all_runs(app), orders, self.folder / "provider.db", known)
            return [check.what for check in checks if not check.right]

        def report(name: str, found: list[str]) -> None:
            print(json.dumps({"damage": name, "found": found}), flush=True)

        report("none", wrong())
        execute(*(f"create table kept_{table} as table {table}" for table in TABLES))
        for name, statement in SHOP.items():
            execute(statement)
            report(name, wrong())
            for table in TABLES:
                execute(f"truncate {table}", f"insert into {table} table kept_{table}")
        for name, statement in PROVIDER.items():
            with damaged_provider(self.folder / "provider.db", statement):
                report(name, wrong())
        runs = proof.all_runs(app)
        report("a run lost", wrong(runs[1:]))
        report("a run too many", wrong([*runs, runs[0]]))
        report("another total published", wrong(known=(1, 2, 3)))
        report("all taken back", wrong())
        execute(SHOP["posted twice"])
        return bool(super().prove(app, orders, known))


@contextmanager
def damaged_provider(database: Path, statement: str) -> Iterator[None]:
    """Damage the provider's database within the block."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("select * from charges").fetchall()
        with connection:
            connection.execute(statement)
        yield
        with connection:
            connection.execute("delete from charges")
            connection.executemany(f"insert into charges values ({', '.join('?' * len(rows[0]))})", rows)


if __name__ == "__main__":
    demo.Director = DamagingDirector
    sys.exit(demo.main())
