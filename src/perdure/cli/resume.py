"""`perdure resume`: have parked and failed runs go on where they stopped."""

from __future__ import annotations

from collections.abc import Sequence

import click

from perdure.cli.acting import Done, act_on_each
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, run_ids
from perdure.cli.writing import Form
from perdure.models import RunInfo


@click.command()
@run_ids
@database_options
@output_option
def resume(ids: Sequence[str], database: str | None, schema: str | None, form: Form) -> None:
    """Have parked and failed runs go on.

    They go on where they stopped, on today's code. Of a failed run the error that ended it is forgotten, and that step runs again. Any other run has
    nothing to resume (exit code 4).
    """
    with client(database, schema) as app:
        act_on_each(app, ids, app.runs.resume, _outcome, form)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("resumed", "goes on")
    return Done("refused", f"is {run.status}; only parked and failed runs are resumed", refused=True)
