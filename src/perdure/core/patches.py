"""Patches: changed code that lets runs which are under way finish as they began.

A patch is on for a run whose record does not go beyond the point where its code first asks; it is then noted in the
record, under the patch's name and not a position, so that asking moves no other call.
"""

from __future__ import annotations

from typing import Final

from perdure.core.branch import Branch
from perdure.core.run import Run
from perdure.errors import NonDeterminismError
from perdure.models import Kind
from perdure.store.records import StepRecord

PREFIX: Final = "!patch/"


def patched(branch: Branch, name: str) -> bool:
    """Whether the run is to take the new path; the same for all of its life."""
    run = branch.run
    run.check_running()
    known = run.patches.get(name)
    if known is None:
        known = run.patches[name] = _noted(run, name) or _note(run, name)
    return known


def deprecate(branch: Branch, name: str) -> None:
    """Give up a run that was begun before the patch: the code that it needs is gone."""
    run = branch.run
    run.check_running()
    if not patched(branch, name):  # noted too: a replay of a run that began after it is to know
        raise run.give_up(
            NonDeterminismError(
                f"this run began before the patch {name!r}, and the code that it began with is gone. Run a version that "
                f"still has `perdure.patched({name!r})`, then resume the run"
            )
        )


def _noted(run: Run, name: str) -> bool:
    try:
        return run.gate.reading(PREFIX + name, Kind.PATCH, name) is not None
    except NonDeterminismError as error:
        raise run.give_up(error) from None


def _note(run: Run, name: str) -> bool:
    if run.replays:
        return False
    run.submit(StepRecord(run.key, PREFIX + name, None, None, Kind.PATCH, name, False, b"true"))
    return True
