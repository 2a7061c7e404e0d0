"""A worker is killed in the middle of a body that writes and says how far it is: readers elsewhere miss nothing.

A reader in another process sees the dead attempt's items, the mark that they do not count, and the next one's.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import perdure
from perdure import Item, Perdure, step, sync, workflow
from tests.api_tools import rows, until
from tests.process_tools import processes, say

HERE = "tests.acceptance.test_streams_survive_kills"
ID = "the writer"
LEASE = 1.5


def held() -> bool:
    """Whether this worker is to be killed, in the body."""
    return os.environ["TEST_HOLD"] == "yes"


@step(name="kill.writes")
async def writes() -> Any:
    seen = perdure.info().heartbeat
    for number in range(5):
        await perdure.write_stream("s", f"{os.environ['TEST_NAME']} {number}")
    await perdure.heartbeat({"by": os.environ["TEST_NAME"], "line": 5})
    if held():
        await asyncio.sleep(120)
    return seen


@step(name="kill.writes_blocking")
def writes_blocking() -> Any:
    seen = perdure.info().heartbeat
    for number in range(5):
        sync.write_stream("s", f"{os.environ['TEST_NAME']} {number}")
    sync.heartbeat({"by": os.environ["TEST_NAME"], "line": 5})
    if held():
        asyncio.run(asyncio.sleep(120))
    return seen


@workflow(name="kill.run")
async def run() -> Any:
    for number in range(3):
        await perdure.write_stream("s", f"code {number}")
    seen = await writes()
    await perdure.write_stream("s", "end")
    return seen


@workflow(name="kill.run_blocking")
def run_blocking() -> Any:
    for number in range(3):
        sync.write_stream("s", f"code {number}")
    seen = writes_blocking()
    sync.write_stream("s", "end")
    return seen


FLOWS: dict[str, Any] = {"async": run, "blocking": run_blocking}


async def worker(url: str, colour: str) -> None:
    """Run it, or go on with it, and say what came of it."""
    async with Perdure(url, lease=LEASE):
        say("open")
        handle = await perdure.start(FLOWS[colour].options(id=ID))
        say("result", await handle.result())


async def reader(url: str, offset: str) -> None:
    """Read the stream, a line for each thing on it."""
    async with Perdure(url, worker=False) as app:
        async for item in app.handle(ID).stream("s", offset=int(offset)):
            say(
                "read",
                f"{item.offset} {item.value}" if isinstance(item, Item) else f"discarded {item.from_offset}",
            )
    say("stream ended")


CODE = [f"{n} code {n}" for n in range(3)]
FIRST = [f"{3 + n} first {n}" for n in range(5)]
SECOND = [f"{9 + n} second {n}" for n in range(5)]
WHOLE = [*CODE, *FIRST, "discarded 3", *SECOND, "14 end"]


def read_by(lines: list[str]) -> list[str]:
    return [line.removeprefix("read ") for line in lines if line.startswith("read ")]


def said(url: str, detail: str) -> None:
    """Wait until a body has said that, durably."""
    look = "select 1 from perdure.intents where convert_from(detail, 'UTF8') = %s"
    until(lambda: rows(url, look, detail))


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["async", "blocking"])
def test_a_reader_elsewhere_sees_what_the_dead_attempt_wrote_and_that_it_does_not_count(
    colour: str, database_url: str
) -> None:
    """`kill -9` in the body: its items, `Discarded`, the next attempt's; what the code wrote is there once."""
    with processes() as family:
        first = family.start(HERE, "worker", database_url, colour, TEST_HOLD="yes", TEST_NAME="first")
        first.wait_for("^open")
        until(lambda: rows(database_url, "select 1 from perdure.intents where detail is not null"))
        live = family.start(HERE, "reader", database_url, 0)
        live.wait_for(r"read 7 first 4")
        assert read_by(live.lines) == [*CODE, *FIRST]
        first.kill()
        second = family.start(HERE, "worker", database_url, colour, TEST_HOLD="no", TEST_NAME="second")
        assert second.wait_for("^result") == "result {'by': 'first', 'line': 5}"
        assert second.wait() == 0
        live.wait_for("stream ended")
        assert read_by(live.lines) == WHOLE
        later = family.start(HERE, "reader", database_url, 6)
        later.wait_for("stream ended")
        assert read_by(later.lines) == WHOLE[6:]


@pytest.mark.slow
def test_a_body_whose_workers_die_again_and_again_has_each_of_its_attempts_marked(database_url: str) -> None:
    """Two dead attempts, two marks, each from the first item of its own attempt."""
    with processes() as family:
        for name in ("first", "second"):
            victim = family.start(HERE, "worker", database_url, "async", TEST_HOLD="yes", TEST_NAME=name)
            victim.wait_for("^open")
            detail = f'{{"by":"{name}","line":5}}'
            said(database_url, detail)
            victim.kill()
        last = family.start(HERE, "worker", database_url, "async", TEST_HOLD="no", TEST_NAME="third")
        assert last.wait_for("^result") == "result {'by': 'second', 'line': 5}"
        live = family.start(HERE, "reader", database_url, 0)
        live.wait_for("stream ended")
    third = [f"{15 + n} third {n}" for n in range(5)]
    assert read_by(live.lines) == [*CODE, *FIRST, "discarded 3", *SECOND, "discarded 9", *third, "20 end"]
