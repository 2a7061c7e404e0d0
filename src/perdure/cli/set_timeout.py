"""`perdure set-timeout`: give unfinished runs another deadline."""

from __future__ import annotations

from typing import Any, Final

import click

from perdure.cli.acting import UNFINISHED, Done, Verb, act
from perdure.cli.choosing import chosen_runs, taken
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, span
from perdure.cli.writing import Form, local
from perdure.models import RunInfo


@click.command()
@chosen_runs
@click.option(
    "--timeout", metavar="DURATION", type=span, help="From now: 90 (seconds), 15m, 2h, 3d; or --no-timeout."
)
@click.option("--no-timeout", is_flag=True, help="Take the deadline away.")
@database_options
@output_option
def set_timeout(
    database: str | None,
    schema: str | None,
    form: Form,
    timeout: float | None,
    *,
    no_timeout: bool,
    **options: Any,
) -> None:
    """Give unfinished runs another deadline, counted from now, or none.

    A run that has ended keeps its end (exit code 4).
    """
    if (timeout is None) != no_timeout:
        raise click.UsageError("Say either --timeout or --no-timeout.")
    chosen = taken(options, SET_TIMEOUT.name, SET_TIMEOUT.fitting)
    with client(database, schema) as app:
        act(app, chosen, SET_TIMEOUT, app.runs.set_timeout, form, timeout=timeout)


def _outcome(run: RunInfo, reached: bool) -> Done:
    if not reached:
        return Done("too_late", f"has {run.status} already", refused=True)
    if run.deadline is None:
        return Done("set", "has no deadline any more")
    return Done("set", f"has to end by {local(run.deadline)}")


SET_TIMEOUT: Final = Verb("set-timeout", UNFINISHED, _outcome, "given another deadline")
