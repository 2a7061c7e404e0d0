"""A user's program of one file: run, killed, run again; the run goes on where its record ends."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import perdure
from tests.api_tools import rows, until
from tests.process_tools import Process, processes

SHOP = """
import asyncio, os, sys
import perdure
from perdure import AsyncConnection, Perdure, step, transaction, workflow

@step
async def charge(order: str) -> str:
    print("charging", order, flush=True)
    return f"payment of {order}"

@transaction
async def reserve(conn: AsyncConnection, sku: str) -> None:
    await conn.execute("insert into reserved values (%s)", (sku,))

@step
async def pack(order: str) -> int:
    print("packing", order, flush=True)
    while not os.path.exists("packed"):
        await asyncio.sleep(0.02)
    return os.getpid()

@workflow
async def checkout(order: str) -> str:
    payment = await charge(order)
    await reserve("shoe")
    await pack(order)
    return f"{payment}, done"

async def main() -> None:
    async with Perdure(lease=1):
        handle = await checkout.options(id="order 7").start("order 7")
        print("created" if handle.created else "found", flush=True)
        print("result:", await handle.result(), flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""

BLOCKING_SHOP = """
import os, time
import perdure
from perdure import Connection, step, transaction, workflow
from perdure.sync import Perdure

@step
def charge(order: str) -> str:
    print("charging", order, flush=True)
    return f"payment of {order}"

@transaction
def reserve(conn: Connection, sku: str) -> None:
    conn.execute("insert into reserved values (%s)", (sku,))

@step
def pack(order: str) -> int:
    print("packing", order, flush=True)
    while not os.path.exists("packed"):
        time.sleep(0.02)
    return os.getpid()

@workflow
def checkout(order: str) -> str:
    payment = charge(order)
    reserve("shoe")
    pack(order)
    return f"{payment}, done"

if __name__ == "__main__":
    with Perdure(lease=1):
        print("result:", checkout.options(id="order 7")("order 7"), flush=True)
"""


@pytest.mark.parametrize("program", [SHOP, BLOCKING_SHOP], ids=["async", "blocking"])
def test_a_program_is_killed_and_run_again(program: str, tmp_path: Path, database_url: str) -> None:
    """`python shop.py`, kill -9, the same again: charged once, reserved once, packed again, one result."""
    (tmp_path / "shop.py").write_text(program)
    rows(database_url, "create table reserved (sku text)")
    with processes() as family:

        def shop() -> Process:
            environment = {"PERDURE_DATABASE_URL": database_url}
            return family.run([sys.executable, "shop.py"], environment=environment, folder=tmp_path)

        first = shop()
        first.wait_for("^packing")
        first.kill()
        second = shop()
        second.wait_for("^packing")
        second.kill()
        (tmp_path / "packed").touch()
        third = shop()
        third.wait_for("^result: payment of order 7, done")
        assert third.wait() == 0, third.text()
        fourth = shop()
        fourth.wait_for("^result: payment of order 7, done")
        assert fourth.wait() == 0
        said = [line for each in (first, second, third, fourth) for line in each.lines]
    assert said.count("charging order 7") == 1
    assert said.count("packing order 7") == 3
    assert rows(database_url, "select * from reserved") == [("shoe",)]
    assert rows(database_url, "select id, workflow from perdure.runs") == [("order 7", "shop.checkout")]


def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path: Path, database_url: str) -> None:
    """SIGINT ends the program as Python's users know it; the run is not failed and goes on in the next process."""
    (tmp_path / "shop.py").write_text(SHOP)
    rows(database_url, "create table reserved (sku text)")
    environment = {"PERDURE_DATABASE_URL": database_url, "PERDURE_GRACE": "0.2"}
    with processes() as family:
        first = family.run([sys.executable, "shop.py"], environment=environment, folder=tmp_path)
        first.wait_for("^packing")
        first.send(signal.SIGINT)
        assert first.wait() != 0
        with perdure.sync.Perdure(database_url, worker=False) as client:
            until(lambda: client.handle("order 7").status() == "queued")
            assert client.handle("order 7").describe().takeovers == 0
        (tmp_path / "packed").touch()
        second = family.run([sys.executable, "shop.py"], environment=environment, folder=tmp_path)
        second.wait_for("^result: payment of order 7, done")
        assert second.wait() == 0
        assert "KeyboardInterrupt" in first.text()
        assert "never retrieved" not in first.text()
