"""Code that changes while runs are under way: patches, and runs that go on as new."""

from __future__ import annotations

from typing import Any, NoReturn

from perdure.context.branch import async_branch, branch_of
from perdure.core import patches
from perdure.core.branch import GoOnAsNew
from perdure.core.run import Run
from perdure.serial import check_size, check_text


def patched(name: str) -> bool:
    """Whether a run takes the new path of a change to its workflow's code; the same for all of its life.

    True for runs that come here with no record beyond this point, False for those that have been here before the
    change. Asking is no durable call: it can be put in and taken out without moving others.

    Args:
        name: of the change; once used, it stays with it.

    Raises:
        NotInWorkflow: outside of a workflow's own code.

    Example:
        if perdure.patched("fraud check"):
            await check_for_fraud(order)
        await charge(order)
    """
    return patches.patched(branch_of("perdure.patched"), check_text(name, "the name of a patch"))


def deprecate_patch(name: str) -> None:
    """Say that the old path of a patch is gone, in place of `if perdure.patched(name):`.

    A run that began before the patch is parked with a text that says so, instead of going on in code that it does
    not fit. Once none of those are left, take the line out.

    Raises:
        NotInWorkflow: outside of a workflow's own code.
    """
    patches.deprecate(branch_of("perdure.deprecate_patch"), check_text(name, "the name of a patch"))


async def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this life of the run, and begin its workflow anew under the same id, with other arguments and no history.

    For loops that go on for months: the record stays short. Messages that were not received are the next life's, as are
    its children, its timeout and its tags; handles, and whoever waits for its result, follow. Events and streams begin
    anew, and nothing is undone.

    Args:
        args: arguments of the workflow.
        kwargs: keyword arguments of the workflow.

    Raises:
        NotInWorkflow: outside of a workflow's own code.
        TypeError: they are not the workflow's arguments.
    """
    raise going_on(async_branch("perdure.continue_as_new").run, args, kwargs)


def going_on(run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GoOnAsNew:
    """What ends this life of a run."""
    signature = run.definition.signature
    signature.bind(args, kwargs)
    return GoOnAsNew(check_size(signature.encode_call(args, kwargs), what="the arguments"))
