"""The demo on a slice of the orders: it proves what it claims, notices damage, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


def test_every_order_happens_once_though_workers_and_postgres_die(start: Start) -> None:
    """With two workers killed and Postgres stopped, every line of the proof is right."""
    play = start("--orders", "500", "--kills", "2")
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
    play = start("--kills", "1")
    play.read_until("kill -9")
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
