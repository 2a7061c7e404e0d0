"""Doing something to runs one by one, and saying of each what became of it.

Ids are taken one at a time, not as one list, so that each has its own answer and one that is mistyped does
not keep the others from theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from perdure import sync
from perdure.cli.exits import Exit
from perdure.cli.writing import Form, safe, write_json, write_lines
from perdure.errors import WorkflowNotFound
from perdure.models import RunInfo


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one run.

    Attributes:
        outcome: one word, for programs.
        text: what to tell people, after the run's id.
        refused: whether the run was in a state in which nothing could be done.
        status: where it stands now; None if there is no such run.
    """

    outcome: str
    text: str
    refused: bool = False
    status: str | None = None


def act_on_each(
    app: sync.Perdure,
    ids: Sequence[str],
    action: Callable[[str], int],
    outcome: Callable[[RunInfo, bool], Done],
    form: Form,
) -> None:
    """Act on runs by id, and write what became of each.

    Args:
        app: the open app.
        ids: of the runs.
        action: takes an id, returns how many runs it reached.
        outcome: says what became of a run, from how it stands afterwards and whether it was reached.
        form: how to write it.

    Raises:
        Exit: with code 3 if a run is not there, else 4 if one was refused.
    """
    done: list[tuple[str, Done]] = []
    for id in dict.fromkeys(ids):
        try:
            reached = bool(action(id))
            run = app.handle(id).describe()
        except WorkflowNotFound:
            done.append((id, Done("not_found", "is not there: no run has this id")))
            continue
        made = outcome(run, reached)
        done.append((id, Done(made.outcome, made.text, made.refused, str(run.status))))
    _write(done, form)
    if any(made.status is None for _, made in done):
        raise click.exceptions.Exit(Exit.NOT_FOUND)
    if any(made.refused for _, made in done):
        raise click.exceptions.Exit(Exit.WRONG_STATE)


def _write(done: Sequence[tuple[str, Done]], form: Form) -> None:
    if form is Form.JSON:
        write_json([{"id": id, "outcome": made.outcome, "status": made.status} for id, made in done])
    if form is Form.TEXT:
        write_lines((id, made.outcome, made.status) for id, made in done)
    for id, made in done:
        bad = made.refused or made.status is None
        if bad or form is Form.TABLE:
            click.echo(f"{'perdure: ' if bad else ''}{safe(id)} {safe(made.text)}", err=bad)
