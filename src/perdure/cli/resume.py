"""`perdure resume`: have parked and failed runs go on where they stopped."""

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
def resume(
    database: str | None, schema: str | None, form: Form, to_version: str | None, **options: Any
) -> None:
    """Have parked and failed runs go on.

    They go on where they stopped, on today's code. Of a failed run the error that ended it is forgotten, and that
    step runs again. Any other run has nothing to resume (exit code 4), nor has one that has undone its steps.
    """
    chosen = taken(options, RESUME.name, RESUME.fitting)
    with client(database, schema) as app:
        act(app, chosen, RESUME, app.runs.resume, form, version=to_version)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("resumed", "goes on")
    if run.status is Status.FAILED:
        return Done("refused", "has undone its steps; restart it instead", refused=True)
    return Done("refused", f"is {run.status}; only parked and failed runs are resumed", refused=True)


RESUME: Final = Verb("resume", frozenset((Status.PARKED, Status.FAILED)), _outcome, "resumed")
