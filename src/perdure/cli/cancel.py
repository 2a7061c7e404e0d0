"""`perdure cancel`: ask runs to stop."""

from __future__ import annotations

from collections.abc import Sequence

import click

from perdure.cli.acting import Done, act_on_each
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, run_ids
from perdure.cli.writing import Form
from perdure.models import RunInfo, Status


@click.command()
@run_ids
@database_options
@output_option
def cancel(ids: Sequence[str], database: str | None, schema: str | None, form: Form) -> None:
    """Ask runs to stop.

    One that has not begun, or is parked, ends at once; the code of any other is told. Asking twice changes
    nothing. A run that has ended otherwise is too late to cancel (exit code 4).
    """
    with client(database, schema) as app:
        act_on_each(app, ids, app.runs.cancel, _outcome, form)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("requested", "is told to stop" if not run.status.final else "is cancelled")
    if run.status is Status.CANCELLED or not run.status.final:
        return Done("already", "was told before")
    return Done("too_late", f"has {run.status} already", refused=True)
