"""`perdure start`: start a run of a workflow by its name, whose code need not be here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from perdure.cli.calling import Arguments, argument_options, arguments_of
from perdure.cli.exits import refused_as_usage
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, span, tags_of, word
from perdure.cli.result import write_result
from perdure.cli.writing import Form, say, write_json, write_lines


@click.command()
@click.argument("name", metavar="NAME", type=word)
@argument_options
@click.option(
    "--id", metavar="ID", type=word, help="Of the run: starting it again attaches to the run that is there."
)
@click.option(
    "--on-conflict",
    type=click.Choice(["attach", "reject", "restart_if_failed"]),
    default="attach",
    show_default=True,
    help="If a run has this id.",
)
@click.option(
    "--queue", "-q", metavar="NAME", type=word, help="In which it waits for a worker.  [default: default]"
)
@click.option(
    "--priority", type=click.IntRange(-(2**31), 2**31 - 1), default=0, help="In the queue; lower comes first."
)
@click.option("--delay", metavar="DURATION", type=span, help="Begin after so long: 90 (seconds), 15m, 2h.")
@click.option("--timeout", metavar="DURATION", type=span, help="Of the run, from start to finish.")
@click.option("--version", metavar="VERSION", type=word, help="Only workers of this version take it.")
@click.option("--tag", metavar="NAME=VALUE", multiple=True, help="To find it by; repeatable.")
@click.option("--wait", is_flag=True, help="Wait for its end, and write its result as `perdure result` does.")
@database_options
@output_option
def start(
    name: str,
    database: str | None,
    schema: str | None,
    form: Form,
    arg: Sequence[str],
    json_args: Any,  # an open file, as click hands it on
    tag: Sequence[str],
    *,
    wait: bool,
    **options: Any,  # of the start, by the names of the library
) -> None:
    """Start a run of the workflow that is stored as NAME, and write its id.

    A worker that has its code takes it; the arguments are checked there. An --id makes it safe to say this again.
    """
    given = arguments_of(arg, json_args) or Arguments()
    tags = tags_of(tag)
    with client(database, schema) as app:
        with refused_as_usage():
            handle = app.start(name, given.args, given.kwargs, tags=tags, **options)
        if wait:
            say(f"started {handle.id}" if handle.created else f"{handle.id} was there already")
            write_result(app, handle.id, wait=True)
        elif form is Form.JSON:
            write_json({"id": handle.id, "workflow": name, "created": handle.created})
        else:
            write_lines([[handle.id]])
            if not handle.created:
                say(f"{handle.id} was there already")
