"""kill -9 at random durable points of a producer and a consumer: each message once, in order, in both colours.

Two workers in processes of their own. After each of some random numbers of records in the database one of them is
killed and another started; whoever owned the producer or the consumer then, the other side must not notice.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import perdure
from perdure import Perdure, sync, workflow
from tests.api_tools import rows, until
from tests.process_tools import Process, Processes, processes, say

MESSAGES = 50
KILLS = 3
SEEDS = (7, 1997)


@workflow(name="kills.produce")
async def produce(id: str, count: int) -> None:
    for number in range(count):
        if number % 5 == 4:
            await perdure.send_many([(id, "t", number), (id, "log", number)])
        else:
            await perdure.send(id, "t", number)
        if number % 10 == 9:
            await perdure.receive("more")  # so that neither is far ahead of the other


@workflow(name="kills.consume")
async def consume(producer: str, count: int) -> list[int]:
    seen: list[int] = []
    while len(seen) < count:
        seen.append(await perdure.receive("t", type=int))
        await perdure.set_event("seen", len(seen))
        if len(seen) % 10 == 0:
            await perdure.send(producer, "more", len(seen))
    return seen + [await perdure.receive("log") for _ in range(count // 5)]


@workflow(name="kills.produce_blocking")
def produce_blocking(id: str, count: int) -> None:
    for number in range(count):
        if number % 5 == 4:
            sync.send_many([(id, "t", number), (id, "log", number)])
        else:
            sync.send(id, "t", number)
        if number % 10 == 9:
            sync.receive("more")


@workflow(name="kills.consume_blocking")
def consume_blocking(producer: str, count: int) -> list[int]:
    seen: list[int] = []
    while len(seen) < count:
        seen.append(sync.receive("t", type=int))
        sync.set_event("seen", len(seen))
        if len(seen) % 10 == 0:
            sync.send(producer, "more", len(seen))
    return seen + [sync.receive("log") for _ in range(count // 5)]


PAIRS: dict[str, tuple[Any, Any]] = {
    "async": (produce, consume),
    "blocking": (produce_blocking, consume_blocking),
}


async def serve(url: str) -> None:
    """A worker with a short lease, until it is killed; it puts waiting runs away at once, so that they change hands."""
    perdure.policy.PUT_AWAY_AFTER = 0.01  # type: ignore[misc]
    async with Perdure(url, lease=1, grace=0):
        say("serving")
        await asyncio.Event().wait()


def worker(family: Processes, url: str) -> Process:
    """A worker that has begun."""
    process = family.start(__name__, "serve", url)
    process.wait_for("serving")
    return process


def recorded(url: str) -> int:
    """How far all runs are together, by their records."""
    return int(rows(url, "select count(*) from perdure.steps")[0][0])


def kill_at(points: list[int], url: str, family: Processes, chance: random.Random) -> None:
    """At each of these numbers of records kill one of two workers, and start another."""
    workers = [worker(family, url) for _ in range(2)]
    for point in points:
        until(lambda: recorded(url) >= point)  # noqa: B023
        workers.pop(chance.randrange(2)).kill()
        workers.append(worker(family, url))


@pytest.mark.parametrize("seed", SEEDS)
def test_each_message_arrives_once_and_in_order_through_kills(seed: int, database_url: str) -> None:
    """Sent with the step, consumed with the step: what was killed in between is neither lost nor repeated."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    points = sorted(chance.sample(range(2, len(PAIRS) * 3 * MESSAGES), KILLS))
    results = {}
    with processes() as family, sync.Perdure(database_url, worker=False) as client:
        with client.bind():
            for colour, (producing, consuming) in PAIRS.items():
                consumer, producer = f"{colour} consumer", f"{colour} producer"
                sync.start(consuming.options(id=consumer), producer, MESSAGES)
                sync.start(producing.options(id=producer), consumer, MESSAGES)
        kill_at(points, database_url, family, chance)
        for colour in PAIRS:
            assert client.handle(f"{colour} producer").result(30) is None
            results[colour] = client.handle(f"{colour} consumer").result(30)
    assert results == {colour: [*range(MESSAGES), *range(4, MESSAGES, 5)] for colour in PAIRS}
    expected = len(PAIRS) * (MESSAGES + MESSAGES // 5 + MESSAGES // 10)
    consumed = "select count(*), count(distinct message) from perdure.steps where message is not null"
    assert rows(database_url, consumed) == [(expected, expected)]
    assert rows(database_url, "select count(*) from perdure.messages") == [(expected,)]
    said = "select count(*), count(distinct (run, value)) from perdure.events where key = 'seen'"
    assert rows(database_url, said) == [(len(PAIRS) * MESSAGES,) * 2]
