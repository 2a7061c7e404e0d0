"""What the programs of the gate's tests share: their steps, what they note, and the world outside of their code.

`see` notes what the code learns, with the number of units that the run had sent by then: what was seen up to there
follows from those units alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import perdure
from perdure import Retry, step
from tests.memory_runtime import Life


@dataclass
class World:
    """What happens outside of the code of one run, in one life."""

    life: Life
    seen: list[tuple[int, Any]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    inside: int = 0

    def enter_body(self) -> int:
        """A body begins: note it, and how long it is to take."""
        place = perdure.info().idempotency_key.rpartition("-")[2]
        self.bodies.append(f"{place}.{perdure.info().attempt}")
        if self.life.concluding or not self.life.barrier_holds:
            self.early.append(place)
        return self.life.rng.randrange(12)

    def began(self) -> set[str]:
        """Positions whose bodies have begun."""
        return {body.partition(".")[0] for body in self.bodies}


current_world: list[World] = []
"""The one world there is; a list, because bodies have to find it without being told."""


def see(what: Any) -> None:
    """Note what the code of the run has learned; what it does after the end of run or worker is seen by nobody."""
    world = current_world[-1]
    if not (world.life.dead or world.life.concluding):
        world.seen.append((world.life.sent, what))


@step
async def roll(name: str) -> str:
    """A number that differs every time."""
    world = current_world[-1]
    for _ in range(world.enter_body()):
        await asyncio.sleep(0)
    return f"{name}:{world.life.rng.randrange(10_000)}"


@step
async def refuse(name: str) -> str:
    """An error that differs every time."""
    world = current_world[-1]
    for _ in range(world.enter_body()):
        await asyncio.sleep(0)
    raise LookupError(name, world.life.rng.randrange(10_000))


@step(retry=Retry(max_attempts=3, delay=0, jitter=0))
async def stubborn(name: str) -> str:
    """A number at the third attempt."""
    world = current_world[-1]
    world.enter_body()
    if perdure.info().attempt < 3:
        raise OSError(name)
    return f"{name}:{world.life.rng.randrange(10_000)}"


@step
async def deaf(name: str) -> str:
    """A number, even if it was told to stop."""
    world = current_world[-1]
    for _ in range(2 + world.enter_body()):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
    return f"{name}:{world.life.rng.randrange(10_000)}"


@step
def roll_blocking(name: str) -> str:
    """A number that differs every time, from a thread."""
    world = current_world[-1]
    for _ in range(world.enter_body()):
        os.sched_yield()
    return f"{name}:{world.life.rng.randrange(10_000)}"


@step
def refuse_blocking(name: str) -> str:
    """An error that differs every time, from a thread."""
    world = current_world[-1]
    world.enter_body()
    raise LookupError(name, world.life.rng.randrange(10_000))


async def told(awaitable: Awaitable[str]) -> str:
    """Wait for an answer and note it."""
    try:
        answer = await awaitable
    except LookupError as error:
        see(repr(error))
        raise
    see(answer)
    return answer


async def lane(name: str, length: int = 2) -> None:
    """Steps one after the other."""
    for number in range(length):
        await told(roll(f"{name}{number}"))
