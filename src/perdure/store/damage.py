"""What an export must not say: looked at before anything of it is loaded.

Whoever wrote the document may have changed it by hand. What the schema of the database does not refuse by itself, and
what would hurt whoever meets it later (a worker that claims it, a query that follows it), is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

from perdure.models import CancelReason, Status
from perdure.serial import check_text
from perdure.store.archive import Export, RunDocument, stored


def check(export: Export, prefix: str = "") -> None:
    """Refuse an export whose runs cannot be.

    Args:
        export: what was read.
        prefix: what is put before every id: with it, too, it must be one that can be named.

    Raises:
        ValueError: one cannot; the text says which, and why.
    """
    runs = {run.key: run for run in export.runs}
    for run in export.runs:
        check_text(run.id, "id of a run")
        check_text(prefix + run.id, "id of a run with its prefix")
        check_text(run.workflow, "name of a workflow")
        if run.schedule is not None:
            check_text(run.schedule, "name of a schedule")
        if (why := _state(run) or _record(run)) is not None:
            raise ValueError(f"run {run.id!r} {why}")
    parents = {run.key: run.parent for run in export.runs if run.parent is not None}
    if (key := _circle(parents)) is not None:
        raise ValueError(f"run {runs[key].id!r} is among its own ancestors")
    nexts = {run.key: next for run in export.runs if (next := _next(run)) is not None}
    for key, next in nexts.items():
        if next not in runs or runs[next].id != runs[key].id:
            raise ValueError(f"run {runs[key].id!r} went on as one that is not in the export")
    if (key := _circle(nexts)) is not None:
        raise ValueError(f"run {runs[key].id!r} went on as itself")


def _state(run: RunDocument) -> str | None:
    """What is wrong with how a run stands."""
    if (run.state is None) == (run.end is None):
        return "has to have a state or an end"
    if run.end is not None:
        return None if Status(run.end.status).final else f"cannot have ended as {run.end.status}"
    assert run.state is not None
    if Status(run.state.status).final:
        return f"is {run.state.status} and has no end"
    if run.superseded:
        return "has not ended, and its id is another's"
    if run.state.cancel not in set(CancelReason):
        return f"is told to stop for a reason that there is not: {run.state.cancel}"
    return None


def _record(run: RunDocument) -> str | None:
    """What is wrong with what a run was told."""
    for step in run.steps:
        if step.group is not None and step.group < 0:
            return f"has a step at {step.position} whose group is {step.group}"
    return None


def _next(run: RunDocument) -> str | None:
    """The key of the life that a run went on as."""
    if run.end is None or Status(run.end.status) is not Status.CONTINUED:
        return None
    return stored(run.end.value).decode("utf-8", "replace")


def _circle(links: Mapping[str, str]) -> str | None:
    """A key from which the links lead back to it."""
    open_ends: set[str] = set()
    for start in links:
        path: set[str] = set()
        key: str | None = start
        while key is not None and key not in open_ends:
            if key in path:
                return key
            path.add(key)
            key = links.get(key)
        open_ends |= path
    return None
