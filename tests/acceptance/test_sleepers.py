"""Ten thousand sleeping runs in one process cost rows and hardly any memory, and they wake."""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import timedelta

import psutil  # type: ignore[import-untyped]

import perdure
from perdure import Perdure, step, workflow
from tests.api_tools import until_true
from tests.process_tools import processes, say

SLEEPERS = 10_000
SECONDS = 20
"""Seconds of sleep, or so many more as a slow machine needs to have all of them asleep at one moment."""


@step
async def remember(number: int) -> int:
    return number


@workflow
async def sleeper(number: int, seconds: float) -> int:
    await remember(number)
    await perdure.sleep(seconds)
    return await remember(number)


@workflow
def blocking_sleeper(number: int, seconds: float) -> int:
    perdure.sync.sleep(seconds)
    return number


def resident() -> int:
    """Megabytes of memory that this process holds."""
    gc.collect()
    return int(psutil.Process().memory_info().rss / 1_000_000)


async def sleep_together(url: str) -> None:
    """Start them all, and say how much memory this process holds before, while they sleep, and how they end."""
    async with Perdure(url, grace=0) as app:
        # The same work at the same width, so that buffers and code are there before it counts.
        begun = time.monotonic()
        await gathered(500, 0, "warm")
        seconds = max(SECONDS, 40 * (time.monotonic() - begun))
        before = resident()
        begun = time.monotonic()
        await gathered(SLEEPERS, seconds, "sleeper", wait=False)
        say("started", SLEEPERS, f"in {time.monotonic() - begun:.1f} s")

        async def all_asleep() -> bool:
            return await app.runs.count(status="waiting") == SLEEPERS

        await until_true(all_asleep, within=seconds)
        asleep = time.monotonic()
        say("asleep")
        grown = resident() - before
        while grown >= 20 and time.monotonic() < asleep + 5:
            await asyncio.sleep(0.2)
            grown = resident() - before
        say("grown by", grown, "MB; in memory:", app.engine.executor.count)

        async def all_awake() -> bool:
            return await app.runs.count(status="succeeded", workflow=f"{__name__}.sleeper") == SLEEPERS + 500

        await until_true(all_awake, within=seconds + 40)
        say("awake")


async def gathered(count: int, seconds: float, prefix: str, *, wait: bool = True) -> None:
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        handles = await asyncio.gather(
            *(sleeper.options(id=f"{prefix} {number}").start(number, seconds) for number in numbers)
        )
        if wait:
            await asyncio.gather(*(handle.result() for handle in handles))


def test_ten_thousand_sleepers_hold_no_memory(database_url: str) -> None:
    """Five seconds after they went to sleep the process has grown by less than 20 MB; and all of them wake."""
    with processes() as family:
        process = family.start(__name__, "sleep_together", database_url)
        words = process.wait_for("grown by", within=120).split()
        assert int(words[2]) < 20, process.text()
        assert words[-1] == "0"
        process.wait_for("^awake", within=120)


def test_blocking_sleepers_hold_no_thread(database_url: str) -> None:
    """Three hundred `def` runs that sleep hold none of the forty threads: others run meanwhile, and they wake."""
    with perdure.sync.Perdure(database_url) as app:
        handles = [blocking_sleeper.start(number, 3) for number in range(300)]
        assert blocking_sleeper(7, 0) == 7
        assert [handle.result(timeout=40) for handle in handles] == list(range(300))
        ends = [info.finished - info.created for info in app.runs.list(limit=300) if info.finished]
        assert min(ends) < timedelta(seconds=20)
