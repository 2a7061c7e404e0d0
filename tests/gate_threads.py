"""Blocking programs that make trouble for whoever replays them: gathers of threads, in each other, and sharing."""

from __future__ import annotations

import os

from perdure import sync, workflow
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


BLOCKING_PROGRAMS = [threads_side_by_side, threads_in_threads, threads_that_share, threads_that_fail]
