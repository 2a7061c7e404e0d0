"""A replay that meets other code than the one that was recorded says so at once, and loses nothing.

Each workflow here behaves as before or as changed, by a switch. A run begins with the old code, crashes, and is taken
over with the new one: it is parked with a text that names both sides; then the old code finishes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from perdure import sync, workflow
from perdure.core import loop as core_loop
from tests.gate_world import World, current_world, roll, roll_blocking, stubborn
from tests.memory_runtime import Life, LoopLife, Past, ThreadLife

changed: list[bool] = [False]
strangers: list[asyncio.Future[None]] = []


@pytest.fixture(autouse=True)
def old_code() -> None:
    """Every test begins with the code as it was."""
    changed[0] = False


@workflow
async def renamed() -> list[Any]:
    """The second step becomes another one."""
    first = await roll("a")
    second = await (stubborn("b") if changed[0] else roll("b"))
    return [first, second, await roll("c")]


@workflow
async def shortened() -> str:
    """Returns before it did."""
    first = await roll("a")
    if not changed[0]:
        await roll("b")
    return first


@workflow
async def narrowed() -> list[str]:
    """Two branches instead of three: nobody asks for what the third was told."""
    names = "ab" if changed[0] else "abc"
    return list(await asyncio.gather(*(roll(name) for name in names)))


@workflow
async def lengthened() -> list[str]:
    """A branch has a step before those that it had; every task is in a durable call, none in the recorded one."""

    async def branch(name: str) -> str:
        if changed[0]:
            await stubborn("new")
        return await roll(name)

    return list(await asyncio.gather(branch("a"), branch("b")))


@workflow
async def waits_for_a_stranger() -> str:
    """Between its steps it waits for something that is no durable call, but comes."""

    async def branch(name: str) -> str:
        await roll(name)
        if strangers:
            await strangers[0]
        return await roll(name)

    await asyncio.gather(branch("a"), roll("b"))
    return await roll("end")


@workflow
def narrowed_blocking() -> list[str]:
    """Two threads instead of three."""
    names = "ab" if changed[0] else "abc"
    return sync.gather(*(lambda name=name: roll_blocking(name) for name in names))


@workflow
def renamed_blocking() -> list[Any]:
    """The second step becomes a sleep."""
    first = roll_blocking("a")
    if changed[0]:
        sync.sleep(1)
    return [first, roll_blocking("b")]


CASES: list[tuple[Any, str, str]] = [
    (renamed, "step 'tests.gate_world.stubborn' at position 2", "step 'tests.gate_world.roll' at position 2"),
    (shortened, "the workflow returned", "'tests.gate_world.roll' at position 2"),
    (narrowed, "", "step 'tests.gate_world.roll' at position 3/1"),
    (lengthened, "step 'tests.gate_world.stubborn' at position", "'tests.gate_world.roll' at position"),
    (renamed_blocking, "sleep 'sleep' at position 2", "step 'tests.gate_world.roll_blocking' at position 2"),
    (narrowed_blocking, "", "step 'tests.gate_world.roll_blocking' at position 3/1"),
]


@pytest.mark.parametrize(("program", "came", "expected"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_changed_workflow_is_parked_and_finished_by_the_old_code(
    program: Any, came: str, expected: str
) -> None:
    """Which step came, which was expected, where, what to do; nothing runs, nothing is lost; no timeout is needed."""
    before = without_end(live(program, Past(), 1).life.journal)
    changed[0] = True
    parked = live(program, before, 2)
    reason = parked.life.journal.parked
    assert reason is not None
    assert came in reason
    assert expected in reason
    assert "Run the code that began this run" in reason
    assert "resume" in reason
    assert parked.bodies == []
    assert parked.life.journal.rows() == before.rows()
    changed[0] = False
    finished = live(program, before, 3)
    assert finished.life.journal.end is not None
    assert finished.bodies == []


def test_a_replay_waits_for_what_is_no_durable_call_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task in a foreign await may still ask for what the record has next: a warning, and no verdict."""
    monkeypatch.setattr(core_loop, "WARN_AFTER", 0.01)
    before = without_end(live(waits_for_a_stranger, Past(), 1).life.journal)

    def strange() -> None:
        strangers.append(asyncio.get_running_loop().create_future())
        asyncio.get_running_loop().call_later(0.05, strangers[0].set_result, None)

    with caplog.at_level(logging.WARNING, "perdure.run"):
        replay = live(waits_for_a_stranger, before, 2, strange)
    strangers.clear()
    assert replay.life.journal.parked is None
    assert replay.life.journal.end is not None
    assert replay.bodies == []
    assert [record for record in caplog.records if "no durable call" in record.getMessage()]


def live(program: Any, past: Past, seed: int, first: Callable[[], None] | None = None) -> World:
    """One life, in which the run ends or is parked within a second: sooner than any timeout of the host."""

    async def on_loop(life: LoopLife) -> None:
        if first is not None:
            first()
        await life.live(program.definition, patience=1.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    life: Life = LoopLife(past, seed) if program.definition.colour else ThreadLife(past, seed)
    world = World(life)
    current_world.append(world)
    try:
        if isinstance(life, LoopLife):
            asyncio.run(on_loop(life))
        elif isinstance(life, ThreadLife):
            life.live(program.definition, patience=1.0)
    finally:
        current_world.remove(world)
    return world


def without_end(past: Past) -> Past:
    """The journal of a run that crashed before its end was recorded."""
    assert past.end is not None
    return past.prefix(len(past.units) - 1)
