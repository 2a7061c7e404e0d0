"""`perdure restart`: begin runs anew, under their ids."""

from __future__ import annotations

from typing import Any, Final

import click

from perdure.cli.acting import Done, Verb, act
from perdure.cli.choosing import chosen_runs, taken
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, to_version_option
from perdure.cli.writing import Form
from perdure.models import RunInfo, Status


@click.command()
@chosen_runs
@to_version_option
@database_options
@output_option
def restart(
    database: str | None, schema: str | None, form: Form, to_version: str | None, **options: Any
) -> None:
    """Begin runs anew, from the beginning, under their ids.

    They have ended, or nobody runs them at the moment. Input, tags and messages stay the same; what was recorded
    is kept, but not used. A run that is running is left alone (exit code 4): cancel it first.
    """
    chosen = taken(options, RESTART.name, RESTART.fitting)
    with client(database, schema) as app:
        act(app, chosen, RESTART, app.runs.restart, form, version=to_version)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("restarted", "begins anew")
    return Done("refused", f"is {run.status}; a run that is running is cancelled first", refused=True)


RESTART: Final = Verb(
    "restart",
    frozenset(Status) - {Status.RUNNING, Status.CONTINUED},
    _outcome,
    "begun anew",
)
