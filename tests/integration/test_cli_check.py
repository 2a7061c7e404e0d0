"""`perdure check` needs no database, prints a line for each finding, and says by its exit code whether there are any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_tools import perdure

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOWHERE = "postgresql://127.0.0.1:1/none"
SHOP = """
import time
import perdure

app = perdure.Perdure()


@perdure.workflow
async def sell() -> float:
    await perdure.sleep(1)
    return time.time()


@perdure.workflow(name="shop.open")
def open_shop() -> None:
    open("shop")
"""
MESSAGES = (
    "time.time reads a clock, and a replay reads another time: use perdure.now()",
    "open reaches outside, and every replay does it again: put it into a step",
)


def test_findings_are_lines(tmp_path: Path) -> None:
    """File, line, column, code, message, workflow; the exit code is 1, and stdout has nothing else."""
    (tmp_path / "shop.py").write_text(SHOP)
    ended = perdure("check", "shop:app", url=NOWHERE, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == [
        f"shop.py:11:12: clock: {MESSAGES[0]} (in workflow shop.sell)",
        f"shop.py:16:5: io: {MESSAGES[1]} (in workflow shop.open)",
    ]
    assert ended.stderr == "perdure: workflows looked at: 2; 2 findings\n"


def test_findings_are_json(tmp_path: Path) -> None:
    """`-o json` gives an array with the same fields, and the same exit code."""
    (tmp_path / "shop.py").write_text(SHOP)
    ended = perdure("check", "shop:app", "-o", "json", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    first, second = json.loads(ended.stdout)
    assert first == {
        "file": "shop.py",
        "line": 11,
        "column": 12,
        "code": "clock",
        "workflow": "shop.sell",
        "message": MESSAGES[0],
    }
    assert second["code"] == "io"


@pytest.mark.parametrize("form", ["text", "table", "json"])
def test_a_good_module_ends_with_0(tmp_path: Path, form: str) -> None:
    """No finding, no line; the array is empty."""
    good = SHOP.replace("time.time()", "1.0").replace('open("shop")', 'open("shop")  # perdure: allow[io]')
    (tmp_path / "shop.py").write_text(good)
    ended = perdure("check", "shop:app", "-o", form, url=NOWHERE, cwd=tmp_path)
    assert ended.returncode == 0
    assert ended.stdout == ("[]\n" if form == "json" else "")


def test_the_orders_example_is_good() -> None:
    """The workflows that readers learn from have no finding; a module without an app will do."""
    ended = perdure("check", "shop", cwd=EXAMPLES / "orders")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "perdure: workflows looked at: 2; nothing found\n"


@pytest.mark.parametrize(
    ("target", "source", "line"),
    [
        ("nowhere:app", "", "there is no module 'nowhere' in "),
        ("nowhere", "", "there is no module 'nowhere' in "),
        ("shop:app", "", "module 'shop' has no 'app'"),
        ("shop", "1 / 0", "importing 'shop' failed: ZeroDivisionError: division by zero"),
        ("shop", "", "no workflow is known after importing 'shop'"),
    ],
)
def test_what_cannot_be_looked_at_ends_with_2(tmp_path: Path, target: str, source: str, line: str) -> None:
    """It is not mistaken for a finding, nor for the lack of one."""
    (tmp_path / "shop.py").write_text(source)
    ended = perdure("check", target, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith(f"perdure: {line}")
