"""The demo on a slice of the orders: it proves what it claims, notices damage, and leaves nothing behind.

The close of a month has tests of its own: in the demo, a post that slips in beside one is too rare to be met.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
from collections.abc import Callable, Coroutine, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perdure import Perdure
from tests.orders_demo_tools import DEMO, ROOT, Play

Start = Callable[..., Play]
DAMAGE = ROOT / "tests" / "orders_demo_damage.py"
PROOF = (
    "one run for each order and each month",
    "every run succeeded",
    "every order recorded once",
    "every order confirmed",
    "every order posted once, on both sides",
    "every month closed, nothing posted into it after",
    "every customer's total",
    "every order charged once",
    "every payment is its order's",
    "the whole",
    "all harm was done",
    "runs taken over from dead workers",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the demo with these arguments; what is left of it at the end of the test is ended."""
    plays: list[Play] = []

    def start(*arguments: str, program: Path = DEMO) -> Play:
        plays.append(Play(tmp_path, arguments, program))
        return plays[-1]

    yield start
    for play in plays:
        play.close()


def test_every_order_happens_once_though_workers_and_postgres_die(start: Start, tmp_path: Path) -> None:
    """With two workers killed and Postgres stopped, every line of the proof is right; the file has the full form."""
    rows = [line.split() for line in (DEMO.parent / "cdnow_sample.txt").read_text().splitlines()]
    file = tmp_path / "full.txt"
    file.write_text("\n".join(["ID DATE CDS DOLLARS", *(" ".join([row[0], *row[2:]]) for row in rows[:600])]))
    play = start("--orders", "500", "--kills", "2", str(file))
    assert play.end() == 0, play.output
    lines = [line.split(":")[0].split() for line in play.output.splitlines()]
    assert [" ".join(words[1:]) for words in lines if words[:1] == ["ok"]] == list(PROOF)
    assert play.output.count("kill -9") == 2
    assert play.output.count("kill -QUIT") == 1
    assert "500 orders, " in play.output
    assert "orders/s" in play.output
    assert play.left_behind() == []


def test_damage_makes_the_proof_fail(start: Start) -> None:
    """Whatever is lost, doubled or changed in a table, a line of the proof finds it, and the exit code says so."""
    play = start("--orders", "200", "--kills", "1", program=DAMAGE)
    code = play.end()
    reports = [json.loads(line) for line in play.output.splitlines() if line.startswith("{")]
    found = {report["damage"]: report["found"] for report in reports}
    assert found.pop("none") == [], play.output
    assert found.pop("all taken back") == []
    assert len(found) == 17
    assert [damage for damage, checks in found.items() if not checks] == []
    assert "WRONG  every order posted once" in play.output
    assert code == 1
    assert play.left_behind() == []


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_demo_leaves_nothing_behind(start: Start, order: signal.Signals) -> None:
    """Told to stop in the middle, it ends its processes and its Postgres, and removes its folder."""
    play = start("--orders", "900", "--kills", "1")
    play.read_until("kill -9")
    working = " ".join(play.left_behind())
    assert all(word in working for word in ("provider.db", "postgres", "python"))
    play.process.send_signal(order)
    assert play.end() == 130, play.output
    assert play.left_behind() == []


def test_a_demo_stopped_while_postgres_starts_leaves_nothing_behind(start: Start) -> None:
    """Told to stop before there is a server to talk to, it leaves nothing either."""
    play = start()
    play.read_until("start")
    play.process.send_signal(signal.SIGINT)
    assert play.end() == 130, play.output
    assert play.left_behind() == []


def test_a_file_that_has_no_orders_is_refused(start: Start, tmp_path: Path) -> None:
    """A line that is no order ends the demo before anything is started, and is named."""
    file = tmp_path / "orders.txt"
    file.write_text("00004 0001 19970101  2   29.33\nnothing\n")
    play = start(str(file))
    assert play.end() == 2
    assert "line 2 is no order" in play.output
    assert play.left_behind() == []


JANUARY, FEBRUARY = date(1997, 1, 1), date(1997, 2, 1)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, which is no part of a package."""
    monkeypatch.syspath_prepend(str(DEMO.parent))
    return importlib.import_module("shop")


def beside(
    url: str, shop: Any, transaction: tuple[str, ...], call: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Call while this transaction is open, and commit it once the call waits for its lock on the ledger."""

    async def both() -> None:
        async with Perdure(url, worker=False):
            shop.create_tables()
            with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as watcher:
                for statement in transaction:
                    other.execute(statement.encode())
                task = asyncio.create_task(call())
                waits = "select 1 from pg_locks where relation = 'ledger'::regclass and not granted"
                while not task.done() and not watcher.execute(waits).fetchall():
                    await asyncio.wait([task], timeout=0.01)
                other.commit()
            await task

    asyncio.run(both())


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_close_counts_what_is_being_posted(shop: Any, database_url: str) -> None:
    """A month is totalled after the posts that are under way have committed."""
    posting = ("insert into ledger values (1, '1997-01-01', 'sales', -5)",)
    beside(database_url, shop, posting, lambda: shop.close(JANUARY))
    assert rows(database_url, "select month, sales from closed_months") == [(JANUARY, Decimal(5))]


def test_what_is_posted_during_a_close_goes_into_the_next_month(shop: Any, database_url: str) -> None:
    """A post that meets a close waits for it, and then sees the month closed."""
    order = importlib.import_module("orders").Order(1, 4, date(1997, 1, 31), 1, Decimal(5))
    closing = (
        "lock table ledger in share row exclusive mode",
        "insert into closed_months values ('1997-01-01', 0)",
    )
    beside(database_url, shop, closing, lambda: shop.post(order))
    found = rows(database_url, "select month, account, amount from ledger order by account")
    assert found == [(FEBRUARY, "cash", Decimal(5)), (FEBRUARY, "sales", Decimal(-5))]
