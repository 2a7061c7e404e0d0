"""What a call looks up in the database is no part of the order: while it looks, the run is not quiet."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import perdure
from perdure import WaitTimeout, workflow
from perdure.core.branch import current
from perdure.core.drive import drive
from perdure.core.starting import Start, start_child
from perdure.options import StartOptions
from perdure.store.records import Ticket
from tests.gate_world import World, lane, roll, see, told
from tests.memory_runtime import LoopLife, Past
from tests.unit.test_gate_programs import Lives, check_every_prefix


class SlowDatabase(LoopLife):
    """A life in which a look into the database takes many turns of the loop."""

    def submit(self, ticket: Ticket, *, contested: bool = False) -> None:
        if contested:
            self.note(ticket)  # it does not go by the loop's outbox
        super().submit(ticket, contested=contested)

    def find(self, id: str) -> tuple[int, str] | None:
        threading.Event().wait(0.01)
        return None


class SlowLives(Lives):
    """Lives of one program."""

    def live(self, past: Past, seed: int, cancel_at: int | None = None) -> World:
        life = SlowDatabase(past, seed, cancel_at)
        return self.lived(life, life.live(self.program.definition))


async def start_elsewhere(id: str) -> None:
    """Start a child under an id of the user's, which a replay looks up."""
    branch = current.get()
    assert branch is not None
    what = Start("somebody.else", b"[[], {}]", StartOptions(id=id), None)
    await drive(start_child(branch, what), branch.run.runtime, branch.run.host)


@workflow
async def starts_beside_steps() -> None:
    """One branch starts children under ids, the other one calls steps; both note how far they are."""

    async def starts() -> None:
        for number in range(3):
            await start_elsewhere(f"child {number}")
            see(f"started {number}")

    await asyncio.gather(starts(), lane("beside", 5))


@workflow
async def starts_within_a_time() -> None:
    """A block starts a child and goes on; what it had come to when its time was over counts positions."""
    try:
        async with perdure.timeout(60):
            await start_elsewhere("the child")
            await told(roll("after the start"))
            await lane("long", 9)
    except WaitTimeout:
        see("out of time")
    await told(roll("end"))


def check(program: Any) -> None:
    """Every replay sees what was seen."""
    with asyncio.Runner() as runner:
        for seed in range(3):
            check_every_prefix(SlowLives(program, runner), seed, again=False)


def test_a_start_that_is_looked_up_on_a_replay_keeps_its_place() -> None:
    """Other branches hear nothing while one of them looks its child up."""
    check(starts_beside_steps)


def test_a_block_whose_start_is_looked_up_ends_where_it_ended() -> None:
    """The end of its time does not overtake the code, which came further when it did not have to look."""
    check(starts_within_a_time)
