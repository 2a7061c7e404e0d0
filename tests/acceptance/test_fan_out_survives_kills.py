"""kill -9 in the middle of a map of hundreds: the rest is done elsewhere, and no item that was recorded runs again."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import Any

import psycopg
import pytest

import perdure
from perdure import Perdure, step, sync, workflow
from tests.api_tools import rows, until
from tests.process_tools import processes, say

ITEMS = 400
LIMIT = 16
LEASE = 1.0


def report(number: int) -> None:
    """Say, on a connection of its own, that an item's body has run."""
    with psycopg.connect(os.environ["TEST_URL"], autocommit=True) as connection:
        connection.execute("insert into bodies values (%s, %s)", (number, os.getpid()))


@step
async def item(number: int) -> int:
    await asyncio.to_thread(report, number)
    return number


@step
def item_blocking(number: int) -> int:
    report(number)
    return number


@workflow
async def fan_out() -> list[int]:
    return (await perdure.map_steps(item, range(ITEMS), limit=LIMIT)).results


@workflow
def fan_out_blocking() -> list[int]:
    return sync.map_steps(item_blocking, range(ITEMS), limit=LIMIT).results


FANS: dict[str, Any] = {"async": fan_out, "blocking": fan_out_blocking}


def begin(url: str, colour: str) -> None:
    """Run it here, until somebody kills this process."""
    with sync.Perdure(url, lease=LEASE):
        sync.start(FANS[colour].options(id="the fan")).result(timeout=60)
    say("survived")


@pytest.mark.parametrize("colour", FANS)
def test_a_killed_fan_out_goes_on_where_its_record_ends(
    colour: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item has its result, in order; what was recorded ran once, and at most `LIMIT` bodies ran twice."""
    monkeypatch.setenv("TEST_URL", database_url)
    rows(database_url, "create table bodies (item integer, process integer)")
    with processes() as family:
        first = family.start(__name__, "begin", database_url, colour)
        until(lambda: rows(database_url, "select count(*) from bodies")[0][0] > ITEMS // 4)
        first.kill()
        assert "survived" not in first.text()
    recorded = {
        json.loads(bytes(value)) for (value,) in rows(database_url, "select value from perdure.steps")
    }
    assert len(recorded) < ITEMS

    async def survive() -> object:
        async with Perdure(database_url, lease=LEASE) as app:
            return await app.handle("the fan").result(timeout=60)

    assert asyncio.run(survive()) == list(range(ITEMS))
    times = Counter(number for (number,) in rows(database_url, "select item from bodies"))
    assert sorted(times) == list(range(ITEMS))
    assert {number for number in recorded if times[number] > 1} == set()
    assert sum(count > 1 for count in times.values()) <= LIMIT
    assert len(recorded) > ITEMS // 8
    assert len(rows(database_url, "select distinct process from bodies")) == 2
