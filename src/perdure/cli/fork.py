"""`perdure fork`: start a new run with part of another's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from perdure.cli.calling import argument_options, arguments_of
from perdure.cli.exits import Exit, Failure, refused_as_usage
from perdure.cli.opening import client
from perdure.cli.options import database_options, id_argument, json_of, output_option, reason_option, word
from perdure.cli.writing import Form, write_json, write_lines
from perdure.errors import PerdureError


@click.command()
@id_argument
@click.option(
    "--from-step",
    metavar="STEP",
    type=word,
    help="Step that runs again, with all after it: its position, or its name, of which the last counts. "
    "By default nothing is kept.",
)
@click.option(
    "--set-output",
    metavar="STEP=JSON",
    multiple=True,
    help="Another result of a step that is kept; repeatable.",
)
@argument_options
@click.option("--new-id", metavar="ID", type=word, help="Of the new run.  [default: made of the old one]")
@click.option("--version", metavar="VERSION", type=word, help="Of the code that is to run it.")
@click.option("--queue", "-q", metavar="NAME", type=word, help="In which it waits.  [default: the old run's]")
@reason_option
@database_options
@output_option
def fork(
    id: str,
    database: str | None,
    schema: str | None,
    form: Form,
    set_output: Sequence[str],
    arg: Sequence[str],
    json_args: Any,  # an open file, as click hands it on
    **options: Any,  # of the fork, by the names of the library
) -> None:
    """Start a new run with part of another's history, and write its id.

    The other run is not touched, and may be running. Arguments replace all of its own.
    """
    outputs, given = _outputs(set_output), arguments_of(arg, json_args)
    if given is not None:
        options |= {"args": given.args, "kwargs": given.kwargs}
    with client(database, schema) as app:
        try:
            with refused_as_usage():
                made = app.runs.fork(id, outputs=outputs, **options)
        except PerdureError as error:
            raise wrong_state(error) from None
    if form is Form.JSON:
        write_json({"id": made.id, "forked_from": id})
    else:
        write_lines([[made.id]])


def wrong_state(error: PerdureError) -> PerdureError | Failure:
    """What the run's own state does not allow, as exit code 4; other errors as they are."""
    return Failure(Exit.WRONG_STATE, str(error)) if type(error) is PerdureError else error


def _outputs(pairs: Iterable[str]) -> dict[str, Any] | None:
    """Read `step=json` pairs; a step's name may have `=` in it, JSON begins at the first that makes some.

    Raises:
        BadParameter: a pair is none.
    """
    outputs: dict[str, Any] = {}
    for pair in pairs:
        why = ""
        for place in (place for place, letter in enumerate(pair) if letter == "=" and place):
            try:
                outputs[pair[:place]] = json_of(pair[place + 1 :])
                break
            except ValueError as error:
                why = why or f": {error}"
        else:
            raise click.BadParameter(f"{pair!r} is not of the form step=JSON{why}", param_hint="--set-output")
    return outputs or None
