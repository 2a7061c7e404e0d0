"""`perdure set-output`: correct what a step was recorded with."""

from __future__ import annotations

from typing import Any

import click

from perdure.cli.exits import refused_as_usage
from perdure.cli.fork import wrong_state
from perdure.cli.opening import client
from perdure.cli.options import database_options, id_argument, json_value, reason_option, word
from perdure.cli.writing import say
from perdure.errors import PerdureError


@click.command()
@id_argument
@click.argument("step", metavar="STEP", type=word)
@click.argument("value", metavar="JSON", type=json_value)
@reason_option
@database_options
def set_output(
    id: str,
    step: str,
    value: Any,  # whatever JSON has
    reason: str | None,
    database: str | None,
    schema: str | None,
) -> None:
    """Correct what a step of a run was recorded with, a failure too.

    STEP is its position, or its name, of which the last counts; JSON - is read from stdin. The run's code will be told
    this instead when it is replayed. It must not be running at the moment, and the step must be one that has a result
    (else exit code 4). The audit keeps the old value.
    """
    with client(database, schema) as app:
        try:
            with refused_as_usage():
                app.runs.set_output(id, step, value, reason=reason)
        except PerdureError as error:
            raise wrong_state(error) from None
    say(f"{id}: {step} has another output")
