"""Blocks with a time, where their end meets another word to stop: neither gets lost, whoever is first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import WaitTimeout, workflow
from perdure.models import Status
from perdure.store.signal import Signal, settle
from tests.gate_world import World, lane, roll, see, told
from tests.memory_runtime import LoopLife, Past
from tests.unit.test_gate_programs import Lives, assert_ended, check_every_prefix, everything_told, seen

FOR_EVER = 3600


class OneClock(LoopLife):
    """A life in which all times end at one moment, once so many of them have begun, but for those that never end."""

    together = 1

    def timer(self, run: Any, position: str, seconds: float) -> Signal:
        signal = Signal()
        if seconds >= FOR_EVER:
            return signal
        self.pending = [*getattr(self, "pending", []), signal]
        if len(self.pending) >= self.together:
            self.later(lambda: settle(self.pending))
        return signal


class TwoTimes(OneClock):
    """Two times end together."""

    together = 2


class OneClockLives(Lives):
    """Lives in which times end together."""

    def __init__(self, program: Any, runner: asyncio.Runner, life: type[OneClock] = OneClock) -> None:
        super().__init__(program, runner)
        self._life = life

    def live(self, past: Past, seed: int, cancel_at: int | None = None) -> World:
        life = self._life(past, seed, cancel_at)
        return self.lived(life, life.live(self.program.definition))


@workflow
async def one_in_the_other() -> None:
    """Two times that end together; whoever catches the inner one is out of time all the same."""
    try:
        async with perdure.timeout(60):
            try:
                async with perdure.timeout(60):
                    await perdure.sleep(FOR_EVER)
            except WaitTimeout:
                see("the inner one")
            await perdure.sleep(FOR_EVER)
    except WaitTimeout:
        see("the outer one")
    await told(roll("end"))


@workflow
async def tidies_up_for_ever() -> None:
    """The block takes its time to end; the code goes on after it."""
    try:
        async with perdure.timeout(60):
            try:
                await perdure.sleep(FOR_EVER)
            except asyncio.CancelledError:
                await told(roll("tidies up"))
                await perdure.sleep(FOR_EVER)
    except WaitTimeout:
        see("out of time")
    await perdure.sleep(FOR_EVER)
    see("went on")


@workflow
async def a_loser_out_of_time() -> None:
    """A race is decided while the block of a loser is out of time and tidies up."""

    async def loser() -> None:
        try:
            async with perdure.timeout(60):
                try:
                    await perdure.sleep(FOR_EVER)
                except asyncio.CancelledError:
                    see("tidies up")
                    await perdure.sleep(FOR_EVER)
        except WaitTimeout:
            see("out of time")
        await perdure.sleep(FOR_EVER)

    see((await perdure.race(lane("w", 6), loser())).which)


@workflow
async def after_a_timeout() -> None:
    """Once out of time, the code sleeps for ever, and may be told to stop then."""
    for _ in range(2):
        try:
            async with perdure.timeout(60):
                await perdure.sleep(FOR_EVER)
        except WaitTimeout:
            see(asyncio.current_task().cancelling())  # type: ignore[union-attr]
    try:
        await told(roll("before"))
        await perdure.sleep(FOR_EVER)
    except asyncio.CancelledError:
        see("told to stop")
        try:
            async with perdure.timeout(60):
                await perdure.sleep(FOR_EVER)
        except WaitTimeout:
            see("out of time while it tidies up")
        raise


@workflow
async def ends_by_its_timeout() -> None:
    """Nobody catches it."""
    async with perdure.timeout(60):
        await perdure.sleep(FOR_EVER)


Living = Callable[..., OneClockLives]


@pytest.fixture
def runner() -> Any:
    """A loop for all lives of a test."""
    with asyncio.Runner() as running:
        yield running


def test_an_outer_block_ends_when_the_inner_one_ends_with_it(runner: asyncio.Runner) -> None:
    """Two times that end at the same moment both count: code that catches the inner one goes on no further."""
    for seed in range(4):
        lives = OneClockLives(one_in_the_other, runner, TwoTimes)
        world = lives.live(Past(), seed)
        assert_ended(world)
        assert "the outer one" in seen(world)
        replay = lives.live(everything_told(world.life.journal), seed + 1)
        assert seen(replay) == seen(world)


def test_a_cancel_is_not_taken_for_the_end_of_a_block(runner: asyncio.Runner) -> None:
    """A run that is cancelled while a block that is out of time tidies up goes on nowhere, and ends cancelled."""
    for at in range(3, 6):
        world = OneClockLives(tidies_up_for_ever, runner).live(Past(), seed=at, cancel_at=at)
        assert "out of time" not in seen(world)
        assert status(world) == Status.CANCELLED


def test_a_loser_is_not_kept_by_the_end_of_its_block(runner: asyncio.Runner) -> None:
    """A loser that is cancelled while its block, out of time, tidies up is a loser, not out of time."""
    for seed in range(4):
        lives = OneClockLives(a_loser_out_of_time, runner)
        world = lives.live(Past(), seed)
        assert "tidies up" in seen(world)
        assert "out of time" not in seen(world)
        check_every_prefix(lives, seed)


def test_the_books_of_cancels_are_balanced(runner: asyncio.Runner) -> None:
    """After blocks that ran out of time a cancel arrives once, is nobody's timeout, and lets blocks be bounded."""
    for at in range(5, 8):
        world = OneClockLives(after_a_timeout, runner).live(Past(), seed=at, cancel_at=at)
        answers = [what for what in seen(world) if not str(what).startswith("before:")]
        if answers[:2] == [0, 0]:
            assert answers == [0, 0, "told to stop", "out of time while it tidies up"]
        assert status(world) == Status.CANCELLED


def test_a_run_that_ends_by_a_timeout_has_failed(runner: asyncio.Runner) -> None:
    """The cancel by which a block is ended is not taken for an interruption of the run from outside."""
    world = OneClockLives(ends_by_its_timeout, runner).live(Past(), 0)
    assert status(world) == Status.FAILED


def status(world: World) -> Status:
    """How the run ended."""
    end = world.life.journal.end
    assert end is not None
    return Status.of(end.status)
