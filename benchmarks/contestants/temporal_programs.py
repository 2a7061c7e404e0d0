"""What Temporal runs in the benchmark: workflows that do nothing but be durable.

The clocks in them are the machine's own, which a workflow may not look at in earnest: outside the sandbox
nothing stops it, and nothing is replayed here.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial
from typing import Final

from temporalio import activity, workflow

from benchmarks.protocol import Tally

LIMIT: Final = timedelta(minutes=10)
"""How long one activity may take: the SDK asks for a limit."""

tally: Final = Tally()
"""What this process has run."""
stamping: Final = threading.Lock()
"""Workflow tasks run in threads, and half a line must not be printed into another one."""


@activity.defn
async def add(number: int) -> int:
    """Add one."""
    return number + 1


@workflow.defn
class Chain:
    """Call an activity so many times, one after another."""

    @workflow.run
    async def run(self, steps: int) -> int:
        """Return how many were called."""
        number = 0
        for _ in range(steps):
            number = await workflow.execute_activity(add, number, start_to_close_timeout=LIMIT)
        return number


@workflow.defn
class LocalChain:
    """The same with local activities."""

    @workflow.run
    async def run(self, steps: int) -> int:
        """Return how many were called."""
        number = 0
        for _ in range(steps):
            number = await workflow.execute_local_activity(add, number, start_to_close_timeout=LIMIT)
        return number


@workflow.defn
class Counted:
    """A job of so many steps; counts in the tally from its first line to its last."""

    @workflow.run
    async def run(self, steps: int) -> int:
        """Return how many activities were called."""
        tally.first = tally.first or time.monotonic()
        number = await Chain().run(steps)
        tally.hit()
        return number


@workflow.defn
class Stamped:
    """Say at once when it began, and sleep so long."""

    @workflow.run
    async def run(self, seconds: int) -> None:
        """Return nothing."""
        with stamping:
            tally.stamp()
        if seconds:
            await workflow.sleep(seconds)


@workflow.defn
class Player:
    """One of two that play ping-pong by signals."""

    def __init__(self) -> None:
        self._balls = 0

    @workflow.signal
    def ball(self) -> None:
        """Receive the ball."""
        self._balls += 1

    @workflow.run
    async def run(self, other: str, times: int, serves: bool) -> list[float]:
        """Return the milliseconds of each exchange, or of what was seen without a replay."""
        opponent = workflow.get_external_workflow_handle(other)
        took = []
        for number in range(times):
            began = time.perf_counter()
            if serves:
                await opponent.signal(Player.ball)
            await workflow.wait_condition(partial(self._has, number))
            if not serves:
                await opponent.signal(Player.ball)
            if not workflow.unsafe.is_replaying():
                took.append((time.perf_counter() - began) * 1000)
        return took

    def _has(self, number: int) -> bool:
        return self._balls > number


@workflow.defn
class Answering:
    """Answer questions, by an update each, until it is told to end."""

    def __init__(self) -> None:
        self._over = False

    @workflow.update
    async def ask(self, number: int) -> int:
        """Return the number."""
        return number

    @workflow.signal
    def end(self) -> None:
        """Be asked no more."""
        self._over = True

    @workflow.run
    async def run(self) -> None:
        """Wait for the end."""
        await workflow.wait_condition(lambda: self._over)
