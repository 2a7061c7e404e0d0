"""Which branch of which run the code is that is running, and the errors where it is none."""

from __future__ import annotations

from perdure.client import where
from perdure.core.branch import Branch, current
from perdure.errors import NotInWorkflow, WrongColour


def branch_of(what: str) -> Branch:
    """The branch whose code is running.

    Raises:
        NotInWorkflow: no workflow's code is.
    """
    branch = current.get()
    if branch is None:
        raise NotInWorkflow(f"{what} only means something in a workflow's own code, not in a step or outside")
    return branch


def async_branch(what: str, instead: str = "") -> Branch:
    """The branch of an async workflow whose code is running."""
    branch = branch_of(what)
    if not branch.run.definition.colour:
        raise WrongColour(
            f"{what} is async: in a blocking workflow use {instead or f'perdure.sync.{what[8:]}'} ({where()})"
        )
    return branch


def blocking_branch(what: str, instead: str) -> Branch:
    """The branch of a blocking workflow whose code is running."""
    branch = branch_of(what)
    if branch.run.definition.colour:
        raise WrongColour(f"{what} blocks: in an async workflow use {instead} ({where()})")
    return branch
