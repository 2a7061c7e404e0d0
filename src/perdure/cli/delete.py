"""`perdure delete`: delete runs that have ended, with all that is recorded of them."""

from __future__ import annotations

from typing import Any, Final

import click

from perdure.cli.acting import Done, Verb, act
from perdure.cli.choosing import chosen_runs, taken
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option
from perdure.cli.writing import Form
from perdure.models import RunInfo, Status


@click.command()
@chosen_runs
@click.option(
    "--no-children",
    is_flag=True,
    help="Leave the runs that they started.",
)
@database_options
@output_option
def delete(
    database: str | None, schema: str | None, form: Form, *, no_children: bool, **options: Any
) -> None:
    """Delete runs that have ended, with all that is recorded of them.

    The runs that they started go too. A run is left alone (exit code 4) if it, or one of these, has not ended, or
    if it is the child of one that has not. The audit stays.
    """
    chosen = taken(options, DELETE.name, DELETE.fitting)
    with client(database, schema) as app:
        act(app, chosen, DELETE, app.runs.delete, form, children=not no_children)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("deleted", "is deleted")
    if not run.status.final:
        return Done("refused", f"is {run.status}; only runs that have ended are deleted", refused=True)
    return Done("refused", "is left alone: its parent, or one of its children, has not ended", refused=True)


DELETE: Final = Verb(
    "delete",
    frozenset((Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)),
    _outcome,
    "deleted",
    removes=True,
)
