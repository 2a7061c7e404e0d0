"""`perdure cancel`: ask runs to stop."""

from __future__ import annotations

from typing import Any, Final

import click

from perdure.cli.acting import UNFINISHED, Done, Verb, act
from perdure.cli.choosing import chosen_runs, taken
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option
from perdure.cli.writing import Form
from perdure.models import RunInfo, Status


@click.command()
@chosen_runs
@click.option(
    "--no-compensate",
    is_flag=True,
    help="Stop at once: no clean-up and no undo; none of their code is run any more.",
)
@database_options
@output_option
def cancel(
    database: str | None, schema: str | None, form: Form, *, no_compensate: bool, **options: Any
) -> None:
    """Ask runs to stop.

    One that has not begun, or is parked, ends at once; the code of any other is told. Asking twice changes
    nothing. A run that has ended otherwise is too late to cancel (exit code 4).
    """
    chosen = taken(options, CANCEL.name, CANCEL.fitting)
    with client(database, schema) as app:
        act(app, chosen, CANCEL, app.runs.cancel, form, compensate=not no_compensate)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if reached:
        return Done("requested", "is told to stop" if not run.status.final else "is cancelled")
    if run.status is Status.CANCELLED or not run.status.final:
        return Done("already", "was told before")
    return Done("too_late", f"has {run.status} already", refused=True)


CANCEL: Final = Verb("cancel", UNFINISHED, _outcome, "cancelled or told to stop")
