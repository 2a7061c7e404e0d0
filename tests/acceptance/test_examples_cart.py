"""The shopping cart sells what is in it once: run to its end, run again, and killed while it pays."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.process_tools import ROOT, Process, Processes, processes

PROGRAM = ROOT / "examples" / "shopping_cart.py"
DONE = "every click counted once, and the goods were sold once"
RECEIPT = "first checkout: 101 things, payment of 2035.00"


def run(family: Processes, folder: Path) -> Process:
    """Run it in a folder, where its embedded Postgres is."""
    return family.run([sys.executable, str(PROGRAM)], folder=folder)


def check(program: Process) -> None:
    """Wait for its end; it said what it should."""
    assert program.wait(60) == 0, program.text()
    assert program.lines[-1] == DONE
    assert RECEIPT in program.lines
    assert "second checkout: there is nothing in the cart" in program.lines


def test_the_cart_runs_by_itself_and_again(tmp_path: Path) -> None:
    """With the embedded Postgres; the second time it finds everything done, and says the same."""
    with processes() as family:
        check(run(family, tmp_path))
        again = run(family, tmp_path)
        check(again)
        assert not any("pays" in line for line in again.lines)


def test_the_cart_killed_while_it_pays_is_sold_once(tmp_path: Path) -> None:
    """The cart is empty by then; the order goes on with what it took from it."""
    with processes() as family:
        first = run(family, tmp_path)
        first.wait_for("anna pays")
        first.kill()
        assert RECEIPT not in first.lines
        check(run(family, tmp_path))
