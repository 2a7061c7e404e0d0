"""kill -9 between any two lines of a workflow: whoever goes on, the result is the same and money moves once.

One run for each line, each in a process of its own that kills itself there; one survivor takes them all over.
The processes are forked from one that has imported everything, so that forty of them take seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

import perdure
from perdure import AsyncConnection, Connection, Perdure, Retry, step, transaction, workflow
from tests.api_tools import rows
from tests.process_tools import processes, say

LEASE = 1.0
LINES = 13
kill_at: tuple[str, int] | None = None
"""Run and line at which this process kills itself."""


def here(line: int) -> None:
    """A place between two lines of the workflow."""
    branch = perdure.info()
    if kill_at == (branch.run_id, line):
        os.kill(os.getpid(), signal.SIGKILL)


def report(what: str) -> None:
    """Say, on a connection of its own, that a body has run."""
    with psycopg.connect(os.environ["TEST_URL"], autocommit=True) as connection:
        connection.execute("insert into bodies values (%s, %s)", (perdure.info().run_id, what))


@step
def plain(what: str) -> str:
    report(what)
    return what


@step(retry=Retry(max_attempts=3, delay=0.01))
async def retried(what: str) -> int:
    await asyncio.to_thread(report, what)
    if perdure.info().attempt < 2:
        raise ConnectionError(what)
    return 2


@step
async def chance_was(value: UUID, at: datetime) -> str:
    await asyncio.to_thread(report, f"uuid {value} {at}")
    return str(value)


@step
async def concurrent(what: str) -> str:
    await asyncio.to_thread(report, what)
    return what


@transaction
async def pay(conn: AsyncConnection, what: str) -> int:
    await conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, what))
    return 1


@transaction
def pay_blocking(conn: Connection, what: str) -> int:
    conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, what))
    return 1


@workflow
async def child(what: str) -> str:
    return await concurrent("child " + what)


@workflow
async def walk() -> list[Any]:
    here(0)
    first = await perdure.run_step(plain, "first")
    here(1)
    attempts = await retried("retried")
    here(2)
    paid = await pay("one")
    here(3)
    value, at = perdure.uuid4(), perdure.now()
    here(4)
    chance = await chance_was(value, at)
    here(5)
    left, right, both = await asyncio.gather(concurrent("left"), concurrent("right"), pay("gathered"))
    here(6)
    await perdure.sleep(0.05)
    here(7)
    called = await child("called")
    here(8)
    handle = await child.start("started")
    here(9)
    started = await handle.result()
    here(10)
    paid += await perdure.run_step(pay_blocking, "two") + both
    here(11)
    last = await perdure.run_step(plain, "last")
    here(12)
    return [first, attempts, paid, chance == str(value), left, right, called, started, last]


@workflow
def walk_blocking() -> list[Any]:
    here(0)
    first = plain("first")
    here(1)
    attempts = perdure.sync.run_step(retried, "retried")
    here(2)
    paid = pay_blocking("one")
    here(3)
    value, at = perdure.sync.uuid4(), perdure.sync.now()
    here(4)
    chance = perdure.sync.run_step(chance_was, value, at)
    here(5)
    left, right, both = perdure.sync.gather(
        lambda: plain("left"), lambda: plain("right"), lambda: str(pay_blocking("gathered"))
    )
    here(6)
    perdure.sync.sleep(0.05)
    here(7)
    called = perdure.sync.start(child, "called").result()
    here(8)
    handle = perdure.sync.start(child, "started")
    here(9)
    started = handle.result()
    here(10)
    paid += perdure.sync.run_step(pay, "two") + int(both)
    here(11)
    last = plain("last")
    here(12)
    return [first, attempts, paid, chance == str(value), left, right, called, started, last]


RESULT = ["first", 2, 3, True, "left", "right", "child called", "child started", "last"]
WALKS: dict[str, Any] = {"async": walk, "blocking": walk_blocking}
DONE_BEFORE = {
    "first": 1, "retried": 2, "left": 6, "right": 6, "child called": 8, "child started": 10, "last": 12,
}  # fmt: skip
"""After which line a body's record must have been committed, when one more effect came behind it."""


def die_at(url: str, colour: str, line: int) -> None:
    """Start a run, kill this process at that line of it."""
    global kill_at
    id = f"{colour} {line}"
    kill_at = (id, line)
    with perdure.sync.Perdure(url, lease=LEASE, name=id):
        perdure.sync.start(WALKS[colour].options(id=id)).result(timeout=30)
    say("survived", id)


def die_everywhere(url: str) -> None:
    """One forked process for each line of both workflows, a few at a time."""
    running: set[int] = set()
    for colour in WALKS:
        for line in range(LINES):
            pid = os.fork()
            if pid == 0:
                try:
                    die_at(url, colour, line)
                finally:
                    os._exit(0)
            running.add(pid)
            if len(running) >= 4:
                running.discard(wait_for_one())
    while running:
        running.discard(wait_for_one())
    say("all are dead")


def wait_for_one() -> int:
    """Wait for any child; it must have died by SIGKILL."""
    pid, status = os.wait()
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        say("a child ended in another way:", os.waitstatus_to_exitcode(status))
    return pid


@pytest.fixture
def bodies_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database with the tables that the bodies write to."""
    monkeypatch.setenv("TEST_URL", database_url)
    rows(database_url, "create table bodies (run text, what text)")
    rows(database_url, "create table payments (run text, what text)")
    with perdure.sync.Perdure(database_url, worker=False):
        pass
    return database_url


def test_a_run_killed_at_any_line_ends_as_if_nothing_had_happened(bodies_url: str) -> None:
    """Same result, every transaction once, no step that was recorded again, at each of the lines, in both colours."""
    with processes() as family:
        murderer = family.start(__name__, "die_everywhere", bodies_url)
        murderer.wait_for("all are dead")
        assert not [line for line in murderer.lines if "survived" in line or "another way" in line]
    ids = [f"{colour} {line}" for colour in WALKS for line in range(LINES)]

    async def survive() -> dict[str, object]:
        async with Perdure(bodies_url, lease=LEASE) as app:
            return {id: await app.handle(id).result(timeout=40) for id in ids}

    assert asyncio.run(survive()) == dict.fromkeys(ids, RESULT)
    paid = Counter(rows(bodies_url, "select run, what from payments"))
    assert paid == {(id, what): 1 for id in ids for what in ("one", "two", "gathered")}
    assert repeated(bodies_url) == {}
    taken = rows(bodies_url, "select distinct id from perdure.takeovers join perdure.runs on key = run")
    assert {id for (id,) in taken} >= set(ids)
    chances = rows(
        bodies_url, "select run, count(distinct what) from bodies where what like 'uuid %' group by run"
    )
    assert dict(chances) == dict.fromkeys(ids, 1)


def repeated(url: str) -> dict[str, int]:
    """Return bodies that ran again although an effect behind them had happened before the kill."""
    statement = """select coalesce(parent.id, run), what from bodies join perdure.runs as mine on mine.id = run
                   left join perdure.runs as parent on parent.key = mine.parent"""
    count = Counter(rows(url, statement))
    wrong = {}
    for (run, what), times in count.items():
        line = int(run.split()[1])
        allowed = 2 if what == "retried" else 1
        if line > DONE_BEFORE.get(what, 99) and times > allowed:
            wrong[f"{run}: {what}"] = times
    return wrong
