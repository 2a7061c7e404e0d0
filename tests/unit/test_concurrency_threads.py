"""Threads of a blocking run that are told to stop: when they hear of it is the same on every replay."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from perdure import Cancelled, step, sync, workflow
from perdure.models import CancelReason, Status
from perdure.store.records import Ticket
from perdure.store.signal import Signal
from tests.gate_threads import BLOCKING_PROGRAMS, lane_blocking, racers, told_blocking
from tests.gate_world import World, roll_blocking, see
from tests.memory_runtime import Past, ThreadLife
from tests.unit.test_gate_programs import ThreadLives, assert_ended, check_every_prefix, seen

door = threading.Event()


class ToldToStop(ThreadLife):
    """A life whose run is cancelled once so many units are submitted; from a thread of its own, as the engine does."""

    def submit_many(self, tickets: list[Ticket]) -> None:
        super().submit_many(tickets)
        assert self.run is not None
        if self.cancel_at is not None and len(self.submitted) >= self.cancel_at:
            self.cancel_at, host = None, self.run.host
            self.later(lambda: host.cancel(CancelReason.ASKED))


class StoppedLives(ThreadLives):
    """Lives of one program, the first of which is told to stop."""

    def live(self, past: Past, seed: int, cancel_at: int | None = None) -> World:
        world = self.lived(ToldToStop(past, seed, cancel_at))
        # The cancel's record, on which no body depends, may be on its way when one begins: that is not too early.
        world.early = [what for what in world.early if what == "two threads at a time"]
        return world


@pytest.mark.parametrize("program", BLOCKING_PROGRAMS, ids=lambda program: program.__name__)
def test_a_cancel_is_seen_where_it_was_seen_in_threads(program: Any) -> None:
    """Threads that are told to stop, wherever they are, are told at the same place on every replay."""
    for at in range(1, 16, 2):
        check_every_prefix(StoppedLives(program), seed=at, cancel_at=at, again=False)


@step
def held_open(name: str) -> str:
    """A number, once the door is open."""
    door.wait(10)
    return str(roll_blocking.definition.function(name))


@workflow
def a_loser_that_takes_long() -> None:
    """A race in a gather, whose loser is in the body of a step for as long as the other branch may take."""
    notes: list[str] = []

    def loser() -> None:
        try:
            held_open("slow")
        except Cancelled:
            notes.append("the loser is told")
            raise

    def heat() -> None:
        sync.race(lambda: told_blocking("quick"), loser)
        notes.append("the race is over")
        told_blocking("after the race")

    def other() -> None:
        for number in range(4):
            told_blocking(f"other{number}")
            see(list(notes))
        door.set()

    sync.gather(heat, other)


@pytest.mark.parametrize("seed", range(4))
def test_how_long_a_loser_takes_changes_nothing_for_the_other_branches(seed: int) -> None:
    """When a loser hears that it lost does not hang on how long its body runs: a replay does not run it."""
    door.clear()
    threading.Timer(0.05, door.set).start()
    check_every_prefix(ThreadLives(a_loser_that_takes_long), seed)


class Deaf:
    """Code that takes the word to stop for something else."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> str:
        try:
            lane_blocking(self.name, 9)
        except Cancelled:
            see(f"{self.name} does not care")
        return self.name


@workflow
def deaf_branches() -> None:
    """Branches that swallow the word to stop: whoever waits for them hears of it all the same."""
    try:
        sync.gather(Deaf("a"), Deaf("b"))
        see("gathered")
    except Cancelled:
        see("the root is told")
        raise


@workflow
def deaf_branches_of_a_loser() -> None:
    """The same in the branch that loses a race."""

    def loser() -> None:
        try:
            sync.gather(Deaf("a"), Deaf("b"))
            see("gathered")
            lane_blocking("goes on", 9)
        except Cancelled:
            see("the loser is told")
            raise

    winner = sync.race(lambda: lane_blocking("w", 2), loser)
    see(winner.which)


@workflow
def a_loser_that_has_just_joined() -> None:
    """A loser whose own branches have ended just before the winner did: it waits in no call, but for its turn."""

    def winner() -> None:
        sync.gather(lambda: see("a branch of the winner"))

    def loser() -> None:
        sync.gather(lambda: see("a branch of the loser"))
        lane_blocking("goes on", 3)
        see("the loser went on")

    see(sync.race(winner, loser).which)
    told_blocking("end")


def test_whoever_waits_for_deaf_branches_is_told_too() -> None:
    """A cancelled run goes on no further than its gather, whatever its branches made of the cancel."""
    for at in range(2, 7):
        world = StoppedLives(deaf_branches).live(Past(), seed=at, cancel_at=at)
        assert seen(world)[-1] == "the root is told"
        assert world.life.journal.end is not None
        assert world.life.journal.end.status == Status.CANCELLED.code


def test_a_loser_that_waits_for_deaf_branches_is_told_too() -> None:
    """A loser goes on no further than its gather, whatever its branches made of it."""
    for seed in range(4):
        world = ThreadLives(deaf_branches_of_a_loser).live(Past(), seed)
        assert_ended(world)
        assert "the loser is told" in seen(world)
        assert seen(world)[-1] == 0
        check_every_prefix(ThreadLives(deaf_branches_of_a_loser), seed)


def test_a_loser_that_waits_in_no_call_is_told_at_its_next() -> None:
    """Where a loser has an answer or has joined its branches, and only waits for its turn, its next call is its last."""
    for seed in range(4):
        world = ThreadLives(a_loser_that_has_just_joined).live(Past(), seed)
        assert_ended(world)
        assert [str(what).partition(":")[0] for what in seen(world)] == [
            "a branch of the winner",
            "a branch of the loser",
            "0",
            "end",
        ]


@workflow
def sleepers_that_lose() -> None:
    """Losers that have only begun to wait when the winner is there, and some that wait for long."""
    for number in range(6):
        see(tuple(sync.race(lambda: sync.sleep(3600), lambda: "at once", lambda: sync.sleep(3600))))
        see(tuple(sync.race(lambda: sync.sleep(3600), *racers(f"a{number} b{number}", 1))))


class NoTime(ThreadLife):
    """A life in which no sleep ever ends."""

    def timer(self, run: Any, position: str, seconds: float) -> Any:
        return Signal()


def test_a_loser_that_has_just_begun_to_wait_is_stopped() -> None:
    """A durable wait that has begun but is not to be found yet, since its row is on its way, hears that it has lost."""
    for seed in range(10):
        assert_ended(ThreadLives(sleepers_that_lose).lived(NoTime(Past(), seed), patience=5))


class StoppedWithoutTime(ToldToStop, NoTime):
    """A life in which no sleep ends, and that is told to stop."""


@workflow
def sleepers() -> None:
    """Several branches that sleep, and then the root."""
    sync.gather(lambda: sync.sleep(3600), lambda: sync.sleep(3600), lambda: lane_blocking("a", 2))
    sync.sleep(3600)


@workflow
def one_sleeper() -> None:
    """No branches."""
    told_blocking("before")
    sync.sleep(3600)


@pytest.mark.parametrize(("program", "units"), [(sleepers, 4), (one_sleeper, 2)], ids=["branches", "alone"])
def test_a_cancel_reaches_a_wait_that_has_just_begun(program: Any, units: int) -> None:
    """A cancel that comes while the row of a wait is on its way ends the wait."""
    for seed in range(10):
        for at in range(1, units + 1):
            world = ThreadLives(program).lived(StoppedWithoutTime(Past(), seed, cancel_at=at), patience=5)
            end = world.life.journal.end
            assert end is not None
            assert end.status == Status.CANCELLED.code
