"""A replay shows the code of a run what it saw live, in the same order, from wherever the journal ends.

Each program is run once; then again from every prefix of what was committed, which is every state that a
crash can leave; then what the second run recorded is replayed in turn. Bodies take other times and return
other values in every life, so anything that is not taken from the record, or not in its order, shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from perdure.models import Kind, Status
from tests.gate_programs import ASYNC_PROGRAMS, a_callback_makes_a_branch, a_done_callback_makes_a_branch
from tests.gate_threads import BLOCKING_PROGRAMS
from tests.gate_world import World, current_world
from tests.memory_runtime import Life, LoopLife, Past, ThreadLife

NOISE = 2
Loops = Callable[[], asyncio.AbstractEventLoop]

async_programs = pytest.mark.parametrize("program", ASYNC_PROGRAMS, ids=lambda program: program.__name__)
blocking_programs = pytest.mark.parametrize(
    "program", BLOCKING_PROGRAMS, ids=lambda program: program.__name__
)


@pytest.mark.parametrize("seed", range(3))
@async_programs
def test_every_prefix_of_the_journal_replays_as_it_was_seen(program: Any, seed: int) -> None:
    """On asyncio's loop a crash after any commit loses nothing the code saw, nor its order."""
    with asyncio.Runner() as runner:
        check_every_prefix(Lives(program, runner), seed)


@async_programs
def test_every_prefix_replays_on_uvloop(program: Any) -> None:
    """The order of uvloop's callbacks is as good as asyncio's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        check_every_prefix(Lives(program, runner), seed=5)


@async_programs
def test_a_record_of_one_loop_replays_on_another(program: Any) -> None:
    """What was recorded on asyncio's loop is replayed on uvloop, and the other way round."""
    with asyncio.Runner() as plain, asyncio.Runner(loop_factory=uvloop.new_event_loop) as other:
        both = (Lives(program, plain), Lives(program, other))
        for first, second in (both, both[::-1]):
            live = first.live(Past(), seed=11)
            replay = second.live(everything_told(live.life.journal), seed=12)
            assert seen(replay) == seen(live)
            assert replay.bodies == []


@async_programs
def test_a_crash_at_any_turn_loses_only_what_was_not_committed(program: Any) -> None:
    """Code that ran ahead of the journal when its worker died is overtaken by the record, not contradicted."""
    with asyncio.Runner() as runner:
        lives = Lives(program, runner)
        for seed in range(12):
            crashed = lives.crashed(seed, after=1 + 3 * seed)
            past = everything_told(crashed.life.journal)
            replay = lives.live(past, seed=seed + 50)
            assert_follows(replay, crashed, len(past.units))


@async_programs
def test_a_cancel_is_seen_where_it_was_seen(program: Any) -> None:
    """Code that is told to stop, wherever it is, is told at the same place on every replay."""
    with asyncio.Runner() as runner:
        lives = Lives(program, runner)
        for at in range(1, 14, 2):
            check_every_prefix(lives, seed=at, cancel_at=at, again=False)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("program", [a_callback_makes_a_branch, a_done_callback_makes_a_branch])
def test_a_branch_born_during_a_body_does_not_run_it_twice(program: Any, seed: int) -> None:
    """A callback that creates a branch while the only task waits for a body does not begin the body again."""
    with asyncio.Runner() as runner:
        assert_ended(Lives(program, runner).live(Past(), seed))


@pytest.mark.parametrize("seed", range(3))
@blocking_programs
def test_every_prefix_replays_in_threads(program: Any, seed: int) -> None:
    """Threads that pass the baton see on replay what they saw live, in the same order."""
    check_every_prefix(ThreadLives(program), seed)


@pytest.mark.parametrize("at", range(7))
@async_programs
def test_a_run_whose_record_is_refused_is_parked(program: Any, at: int) -> None:
    """Whatever its code is doing when the database refuses a record of it, the run is given up, with the reason."""
    with asyncio.Runner() as runner:
        life = LoopLife(seed=at, refuse_at=at)
        assert_given_up(Lives(program, runner).lived(life, life.live(program.definition, patience=1)), at)


@pytest.mark.parametrize("at", range(7))
@blocking_programs
def test_a_blocking_run_whose_record_is_refused_is_parked(program: Any, at: int) -> None:
    """The same for threads."""
    life = ThreadLife(seed=at, refuse_at=at)
    assert_given_up(ThreadLives(program).lived(life, patience=1), at)


class Lives:
    """Runs one program, life after life, on one event loop."""

    def __init__(self, program: Any, runner: asyncio.Runner) -> None:
        self.program, self._runner = program, runner

    def live(self, past: Past, seed: int, cancel_at: int | None = None) -> World:
        """One life, to the end of the run."""
        life = LoopLife(past, seed, cancel_at)
        return self.lived(life, life.live(self.program.definition))

    def crashed(self, seed: int, after: int) -> World:
        """One life that ends in a crash, some turns of the loop after it began."""
        life = LoopLife(Past(), seed)
        return self.lived(life, self._crash(life, after))

    async def _crash(self, life: LoopLife, after: int) -> None:
        asyncio.get_running_loop().call_soon(countdown, after, life)
        await life.live(self.program.definition)

    def lived(self, life: LoopLife, living: Any) -> World:
        """What happened in a life."""
        world = World(life)
        current_world.append(world)
        try:
            self._runner.run(with_noise(living))
        finally:
            current_world.remove(world)
        return world


class ThreadLives:
    """Runs one blocking program, life after life."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def live(self, past: Past, seed: int, cancel_at: int | None = None) -> World:
        """One life, to the end of the run."""
        return self.lived(ThreadLife(past, seed, cancel_at))

    def lived(self, life: ThreadLife, patience: float = 10.0) -> World:
        """What happened in a life."""
        world = World(life)
        current_world.append(world)
        try:
            life.live(self.program.definition, patience=patience)
        finally:
            current_world.remove(world)
        return world


def check_every_prefix(
    lives: Lives | ThreadLives, seed: int, cancel_at: int | None = None, *, again: bool = True
) -> None:
    """Live once, then from every prefix of that, then from all that each of those recorded."""
    live = lives.live(Past(), seed, cancel_at)
    assert_ended(live)
    told = everything_told(live.life.journal)
    for length in range(len(told.units) + 1):
        replay = lives.live(told.prefix(length), seed + 100 + length)
        assert_follows(replay, live, length)
        if length == len(told.units):
            assert_same(replay, live)
        elif again:
            assert_same(lives.live(everything_told(replay.life.journal), seed + 500), replay)


def assert_follows(replay: World, before: World, length: int) -> None:
    """The replay of so many units saw what was seen before as far as they go, and did nothing of it again."""
    assert_ended(replay)
    expected = [what for sent, what in before.seen if sent <= length]
    assert seen(replay)[: len(expected)] == expected, f"after {length} units"
    assert replay.began().isdisjoint(replay.life.past.positions())


def assert_same(replay: World, before: World) -> None:
    """A replay of everything saw everything, ended the same way, and did nothing."""
    assert_ended(replay)
    assert seen(replay) == seen(before)
    assert replay.bodies == []
    assert replay.life.journal.rows() == before.life.journal.rows()
    assert replay.life.journal.end is not None
    assert before.life.journal.end is not None
    assert replay.life.journal.end.value == before.life.journal.end.value
    assert replay.life.journal.end.status == before.life.journal.end.status


def assert_ended(world: World) -> None:
    """The run ended by itself, no body began before the record was safe, and none began twice."""
    end = world.life.journal.end
    assert world.life.journal.parked is None
    assert end is not None or world.life.dead
    assert (
        end is None
        or world.life.run is None
        or world.life.run.cancel_told
        or end.status == Status.SUCCEEDED.code
    )
    assert world.early == []
    assert len(set(world.bodies)) == len(world.bodies)
    places = [row[0] for row in world.life.journal.rows()]
    assert len(set(places)) == len(places)
    steps = {row[0] for row in world.life.journal.rows() if row[3] == Kind.STEP}
    assert steps <= world.began() | world.life.past.positions(), "a body has not been noted"


def assert_given_up(world: World, at: int) -> None:
    """The run is parked because of the refusal, and nothing is recorded behind the gap."""
    units = world.life.committed
    if at >= len(world.life.submitted) or world.life.journal.end is not None:
        return  # it ended before, or it is its end that was refused
    assert world.life.journal.parked is not None
    assert "refused" in world.life.journal.parked
    assert len(units) == at + 1, "something was recorded behind what is missing"


def everything_told(past: Past) -> Past:
    """The journal without the end of the run: an ended run is never claimed again."""
    return Past(tuple(unit for unit in past.units if not any(type(r).__name__ == "EndRecord" for r in unit)))


def seen(world: World) -> list[Any]:
    """What the code learned, in order."""
    return [what for _, what in world.seen]


def countdown(left: int, life: Life) -> None:
    """Kill the worker in so many turns."""
    assert isinstance(life, LoopLife)
    if left and not life.over.done:
        asyncio.get_running_loop().call_soon(countdown, left - 1, life)
    elif not life.over.done:
        life.crash()


async def with_noise(living: Any) -> None:
    """Run something beside strangers who keep the loop busy, and leave nothing behind."""
    strangers = [asyncio.create_task(busy()) for _ in range(NOISE)]
    try:
        await living
    finally:
        for stranger in strangers:
            stranger.cancel()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def busy() -> None:
    """Turn with every turn of the loop."""
    while True:  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0)
