"""`perdure export` and `perdure load`: runs as JSON, out of a database and into one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import BinaryIO

import click

from perdure.cli.exits import Exit, Failure
from perdure.cli.opening import client
from perdure.cli.options import database_options
from perdure.errors import WorkflowConflict


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--no-children", is_flag=True, help="Only these runs, without those that they started.")
@database_options
def export(ids: Sequence[str], no_children: bool, database: str | None, schema: str | None) -> None:
    """Write runs with all that is recorded of them, as JSON, to stdout.

    Earlier lives under their ids come along, and the runs that they started. `perdure load` reads it, `perdure replay` runs
    code over it.
    """
    with client(database, schema) as app:
        document = app.runs.export(list(ids), children=not no_children)
    sys.stdout.buffer.write(document + b"\n")
    sys.stdout.buffer.flush()


@click.command()
@click.argument("file", metavar="FILE", type=click.File("rb"))
@click.option("--prefix", metavar="TEXT", default="", help="Put before every id.")
@click.option("--reason", metavar="TEXT", help="For the audit.")
@database_options
def load(file: BinaryIO, prefix: str, reason: str | None, database: str | None, schema: str | None) -> None:
    """Load what `perdure export` wrote, from FILE or - for stdin, and print the ids.

    What had not ended is parked until `perdure resume`. If a run has one of the ids already, nothing is loaded (exit
    code 4).
    """
    with client(database, schema) as app:
        try:
            ids = app.runs.load(file.read(), prefix=prefix, reason=reason)
        except WorkflowConflict as error:
            told = str(error)  # ends with how to go on in Python
            raise Failure(Exit.WRONG_STATE, told.removesuffix("prefix=") + "--prefix") from None
        except ValueError as error:
            raise Failure(Exit.USAGE, str(error)) from None
    for id in ids:
        click.echo(id)
