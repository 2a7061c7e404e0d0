"""Undoing: when a run fails or is cancelled, what undoes its steps is run, newest first, each once remembered.

They are steps like others, in a branch of their own, so a crash in the middle goes on where the record ends: the code
is replayed to where it failed, and what is undone already is found there. A cancel does not interrupt them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, cast

from perdure.core.branch import Branch
from perdure.core.registry import Compensation, StepDefinition, TransactionDefinition
from perdure.core.run import Run
from perdure.core.steps import plain_step
from perdure.core.transactions import transaction
from perdure.core.waits import wait_for_children
from perdure.models import CancelReason
from perdure.store.records import Undoing

PATH: Final = "!undo/"
"""Positions of what undoes: no branch of the code has one that begins so."""


def leave(run: Run, *, failed: bool) -> Generator[Any, Any, None]:
    """What is still to be done when the code of a run has ended: undo, and wait for children that are not to be left."""
    if failed:
        yield from undo(run)
    yield from wait_for_children(run)
    if not failed and _cancelled_late(run):
        yield from undo(run)


def undo(run: Run) -> Generator[Any, Any, None]:
    """Undo what the run has done; one that fails, after all its attempts, does not keep the others from it."""
    if not run.undo or run.cancel_reason is CancelReason.AT_ONCE:
        return
    branch = Branch(run, PATH)
    run.undoing = True
    run.submit(Undoing(run.key))
    run.shields += 1
    while run.late:
        yield run.late.pop()  # a body that still runs could do what is being undone
    while run.undo:
        compensation = run.undo.pop()
        try:
            yield from called(branch, compensation)
        except Exception as error:
            run.not_undone.append(f"not undone: {compensation.definition.name} failed: {error!r}")


def _cancelled_late(run: Run) -> bool:
    """Whether a replay's code has returned where the record says that it was cancelled after that, and undone."""
    if not run.gate.cancels_next:
        return False
    run.gate.take_cancel()
    run.cancel_told = True
    return True


def called(branch: Branch, compensation: Compensation) -> Generator[Any, Any, Any]:
    """The operation of one call that undoes."""
    definition, args, kwargs = compensation
    if isinstance(definition, TransactionDefinition):
        return transaction(branch, definition, args, kwargs)
    return plain_step(branch, cast("StepDefinition", definition), args, kwargs)
