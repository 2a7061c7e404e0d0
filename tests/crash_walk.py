"""A workflow with every kind of step, in both colours, and the process that runs it for the crash tests.

Bodies leave a row in `calls`, on a connection of their own, which no crash of the worker's can take back. As a program
it is the mother of workers: it imports everything once, then forks one for each line that it is given, which
is ten times faster than starting Python, and prints what becomes of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
from typing import Any, Final

import psycopg

import perdure
from perdure import Retry, step, sync, transaction, workflow

LEASE: Final = 1.0
EXPECTED: Final = [
    "plain",
    "retried",
    "booked",
    "left",
    "right 1",
    "right 2",
    "beside",
    "child",
    "refused",
    "last",
]
BOOKED: Final = ["beside", "booked", "in the child"]
TABLES: Final = """
    create table calls (run text not null, position text not null, attempt integer not null, name text not null);
    create table ledger (name text not null);
"""

own: list[psycopg.Connection[Any]] = []
"""This process's connection for what bodies leave behind."""


def called(name: str) -> str:
    """A body has begun: leave a row."""
    info = perdure.info()
    run, _, position = info.idempotency_key.rpartition("-")
    own[0].execute("insert into calls values (%s, %s, %s, %s)", (run, position, info.attempt, name))
    return name


def attempt(name: str) -> str:
    """A body that fails at first."""
    called(name)
    if perdure.info().attempt == 1:
        raise ConnectionError("not yet")
    return name


@step(name="plain")
async def plain(name: str) -> str:
    return called(name)


@step(name="retried", retry=Retry(max_attempts=2, delay=0, jitter=0))
async def retried(name: str) -> str:
    return attempt(name)


@step(name="refused")
async def refused(name: str) -> str:
    raise LookupError(called(name))


@transaction(name="book")
async def book(conn: perdure.AsyncConnection, name: str) -> str:
    called(name)
    await conn.execute("insert into ledger values (%s)", (name,))
    return name


@workflow(name="child")
async def child(name: str) -> str:
    await book("in the child")
    return await plain(name)


@workflow(name="walk")
async def walk() -> list[str]:
    async def right() -> list[str]:
        return [await plain("right 1"), await plain("right 2")]

    seen = [await plain("plain"), await retried("retried"), await book("booked")]
    left, rights, beside = await asyncio.gather(plain("left"), right(), book("beside"))
    seen += [left, *rights, beside, await child("child")]
    try:
        await refused("refused")
    except LookupError as error:
        seen.append(error.args[0])
    return [*seen, await plain("last")]


@step(name="plain-blocking")
def plain_blocking(name: str) -> str:
    return called(name)


@step(name="retried-blocking", retry=Retry(max_attempts=2, delay=0, jitter=0))
def retried_blocking(name: str) -> str:
    return attempt(name)


@step(name="refused-blocking")
def refused_blocking(name: str) -> str:
    raise LookupError(called(name))


@transaction(name="book-blocking")
def book_blocking(conn: perdure.Connection, name: str) -> str:
    called(name)
    conn.execute("insert into ledger values (%s)", (name,))
    return name


@workflow(name="child-blocking")
def child_blocking(name: str) -> str:
    book_blocking("in the child")
    return plain_blocking(name)


@workflow(name="walk-blocking")
def walk_blocking() -> list[str]:
    def right() -> list[str]:
        return [plain_blocking("right 1"), plain_blocking("right 2")]

    def left() -> list[str]:
        return [plain_blocking("left")]

    seen = [plain_blocking("plain"), retried_blocking("retried"), book_blocking("booked")]
    for part in sync.gather(left, right, lambda: [book_blocking("beside")]):
        seen += part
    seen.append(child_blocking("child"))
    try:
        refused_blocking("refused")
    except LookupError as error:
        seen.append(error.args[0])
    return [*seen, plain_blocking("last")]


async def work(url: str) -> list[str]:
    """Run the async walk, or go on with it."""
    async with perdure.Perdure(url, lease=LEASE, migrate=False):
        return await (await walk.options(id="the walk").start()).result()


def work_blocking(url: str) -> list[str]:
    """Run the blocking walk, or go on with it."""
    with sync.Perdure(url, lease=LEASE, migrate=False):
        return walk_blocking.options(id="the walk").start().result()


def run_worker(order: dict[str, str]) -> None:
    """Be one worker."""
    try:
        own.append(psycopg.connect(order["own"], autocommit=True))
        result = (
            asyncio.run(work(order["url"])) if order["colour"] == "async" else work_blocking(order["url"])
        )
    except BaseException as error:
        say(os.getpid(), {"error": repr(error)})
        os._exit(1)
    say(os.getpid(), {"result": result})
    os._exit(0)


def say(pid: int, what: dict[str, Any]) -> None:
    """One line on standard output, whole."""
    os.write(1, f"{pid} {json.dumps(what)}\n".encode())


def main() -> None:
    """Fork a worker for each line; say what it is called, and how it ended."""
    lines = b""
    while True:
        if select.select([0], [], [], 0.02)[0]:
            more = os.read(0, 65536)
            if not more:
                return
            lines += more
            while b"\n" in lines:
                line, _, lines = lines.partition(b"\n")
                order = json.loads(line)
                pid = os.fork()
                if not pid:
                    run_worker(order)
                say(pid, {"order": order["number"]})
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            say(pid, {"gone": True})


if __name__ == "__main__":
    sys.modules["tests.crash_walk"] = sys.modules["__main__"]
    main()
