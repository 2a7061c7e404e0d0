"""Blocking programs that make trouble for whoever replays them: gathers of threads, in each other, and sharing."""

from __future__ import annotations

import os
from collections.abc import Callable

from perdure import Cancelled, step, sync, workflow
from tests.gate_world import current_world, refuse_blocking, roll_blocking, see


def told_blocking(name: str) -> str:
    """Ask and note the answer; make sure that meanwhile no other thread is in the workflow's code."""
    answer = roll_blocking(name)
    world = current_world[-1]
    world.inside += 1
    for _ in range(5):
        os.sched_yield()
        if world.inside != 1:
            world.early.append("two threads at a time")
    see(answer)
    world.inside -= 1
    return answer


def lane_blocking(name: str, length: int = 2) -> None:
    """Steps one after the other."""
    for number in range(length):
        told_blocking(f"{name}{number}")


@workflow
def threads_side_by_side() -> None:
    """Lanes in threads."""
    sync.gather(lambda: lane_blocking("x"), lambda: lane_blocking("y", 3), lambda: lane_blocking("z"))


@workflow
def threads_in_threads() -> None:
    """Gathers in gathers, with steps before, between and after."""

    def inner(name: str) -> None:
        sync.gather(*(lambda number=number: lane_blocking(f"{name}{number}") for number in range(2)))
        told_blocking(f"{name} joined")

    told_blocking("before")
    sync.gather(lambda: inner("p"), lambda: lane_blocking("q", 3), lambda: inner("r"))
    sync.gather(lambda: lane_blocking("only", 2))
    told_blocking("after")


@workflow
def threads_that_share() -> None:
    """What one thread asks depends on how far the others have come."""
    notes: list[str] = []

    def worker(name: str) -> None:
        for _ in range(3):
            answer = told_blocking(f"{name}{len(notes)}")
            notes.append(answer)
            see(list(notes))

    sync.gather(*(lambda name=name: worker(name) for name in "abc"))


@workflow
def threads_that_fail() -> None:
    """One of them fails; the others go on to their end, and the error comes out."""

    def fails() -> None:
        told_blocking("still well")
        refuse_blocking("no")

    try:
        sync.gather(lambda: lane_blocking("a", 3), fails, lambda: see(sync.uuid4()))
    except LookupError as error:
        see(repr(error))
    see(sync.now())
    sync.sleep(60)
    told_blocking("end")


# -- the first of several, many with a limit -----------------------------------------------------------


def racer_blocking(name: str, length: int = 2) -> str:
    """A lane that notes that it lost, and cleans up with a step."""
    try:
        lane_blocking(name, length)
    except Cancelled:
        see(f"{name} lost")
        told_blocking(f"{name} tidies up")
        see(f"{name} is tidy")
        raise
    return name


def racers(names: str, length: int = 2) -> list[Callable[[], str]]:
    """Several of them."""
    return [lambda name=name: racer_blocking(name, length) for name in names.split()]  # type: ignore[misc]


@workflow
def threads_that_race() -> None:
    """Races whose losers clean up, one after the other, and the steps between them."""
    for number in range(2):
        winner = sync.race(*racers(f"a{number} b{number} c{number} d{number}"))
        see(tuple(winner))
        told_blocking("between")


@workflow
def threads_that_race_in_a_gather() -> None:
    """Races side by side, and races of races: a loser may be in the middle of one, or have just left it."""

    def heat(name: str) -> str:
        winner = sync.race(*racers(f"{name}x {name}y", 1))
        see((name, tuple(winner)))
        told_blocking(f"{name} after its heat")
        return winner.value

    see(sync.gather(lambda: heat("p"), lambda: heat("q"), lambda: racer_blocking("r", 3)))
    see(tuple(sync.race(lambda: heat("s"), *racers("t"), lambda: heat("u"))))
    see(tuple(sync.race(lambda: sync.gather(*racers("v w")), lambda: sync.gather(*racers("y z", 3)))))
    told_blocking("end")


@workflow
def threads_that_race_and_fail() -> None:
    """The first to end may be one that fails, or one that has nothing to wait for, or one that sleeps."""

    def fails() -> str:
        refuse_blocking("no")
        return "never"

    for name in "ab":
        try:
            see(tuple(sync.race(fails, *racers(f"{name}1 {name}2", 1))))
        except LookupError as error:
            see(repr(error))
    see(tuple(sync.race(*racers("late"), lambda: "at once", lambda: "at once")))
    see(tuple(sync.race(lambda: sync.sleep(60), *racers("awake", 3))))
    told_blocking("end")


@step
def fickle_blocking(number: int) -> str:
    """A number, or an error, by chance."""
    answer: str = roll_blocking.definition.function(f"item {number}")
    if int(answer.rpartition(":")[2]) % 3 == 0:
        raise LookupError(answer)
    return answer


@workflow
def threads_that_map() -> None:
    """Many items with a limit: none may fail, some may, and who comes when is left to chance."""
    for tolerate in (5, 0.5, 0):
        try:
            result = sync.map_steps(fickle_blocking, iter(range(5)), limit=2, tolerate=tolerate)
            see((result.results, [(one.index, one.item, repr(one.error)) for one in result.failures]))
        except LookupError as error:
            see((repr(error), error.__notes__))
    told_blocking("end")


@workflow
def threads_with_a_shield() -> None:
    """A block that is not told to stop, beside a thread that is, and steps after it."""

    def shielded() -> None:
        with sync.shield():
            lane_blocking("shielded", 2)
            see("the shield ends")
        racer_blocking("bare", 2)

    try:
        sync.gather(shielded, lambda: lane_blocking("beside", 3))
    except Cancelled:
        see("told to stop")
        raise
    with sync.shield():
        lane_blocking("again", 2)
    told_blocking("end")


CONCURRENCY_PROGRAMS = [
    threads_that_race,
    threads_that_race_in_a_gather,
    threads_that_race_and_fail,
    threads_that_map,
    threads_with_a_shield,
]
BLOCKING_PROGRAMS = [
    *CONCURRENCY_PROGRAMS,
    threads_side_by_side,
    threads_in_threads,
    threads_that_share,
    threads_that_fail,
]
