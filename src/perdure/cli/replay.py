"""`perdure replay`: run today's code over recorded histories: the gate before a deploy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from perdure.cli.check import import_workflows
from perdure.cli.exits import Exit, Failure
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option
from perdure.cli.writing import Form, safe, write_json, write_lines
from perdure.client import replaying
from perdure.models import ReplayInfo, RunFilter, Status

UNFINISHED = [str(status) for status in Status if not status.final]


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.argument(
    "files", metavar="[FILE]...", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--id", "ids", metavar="ID", multiple=True, help="Only this run; repeatable.")
@click.option("--status", "-s", type=click.Choice([str(status) for status in Status]), multiple=True,
              help="Runs that stand so; repeatable.  [default: all that have not ended]")  # fmt: skip
@click.option("--workflow", "-w", metavar="NAME", multiple=True, help="Runs of this workflow; repeatable.")
@click.option("--within", metavar="SECONDS", type=float, default=10.0, show_default=True,
              help="For each run, after which code that waits for something else is given up.")  # fmt: skip
@database_options
@output_option
def replay(
    target: str,
    files: Sequence[Path],
    ids: Sequence[str],
    status: Sequence[str],
    workflow: Sequence[str],
    within: float,
    database: str | None,
    schema: str | None,
    form: Form,
) -> None:
    """Run the code of MODULE over recorded histories, and say where they part first.

    Without FILEs, over the runs of a database as they are at this moment: all that have not ended, or those that the
    options name. With FILEs, over what `perdure export` wrote; no database is needed. Nothing is written, and no body of
    a step is run. Of an APP the instances, middleware and exceptions are used, and its database where none is named.

    Ends with 0 if code and records agree, 1 if one does not, and 2 if the module cannot be imported.
    """
    app = import_workflows(target)
    given = {} if app is None else app.for_code()
    if files:
        found = [each for file in files for each in _of_file(file, given, within)]
    else:
        where = RunFilter(
            ids=list(ids) or None,
            status=list(status) or (None if ids else UNFINISHED),
            workflow=list(workflow) or None,
        )
        url = database or (None if app is None else app.url)
        with client(url, schema or (None if app is None else app.schema), **given) as opened:
            found = list(opened.runs.replay(where, within=within))
    _write(found, form)
    bad = sum(not each.agrees for each in found)
    if form is not Form.JSON:
        click.echo(f"perdure: replayed: {len(found)}; agree: {len(found) - bad}; do not: {bad}", err=True)
    if bad:
        raise click.exceptions.Exit(Exit.FAILED)


def _of_file(file: Path, given: dict[str, Any], within: float) -> Sequence[ReplayInfo]:
    try:
        return replaying.replay_document(file.read_bytes(), replaying.Settings(**given, within=within))
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{file}: {error}") from None


def _write(found: Sequence[ReplayInfo], form: Form) -> None:
    if form is Form.JSON:
        write_json([asdict(each) for each in found])
        return
    if form is Form.TEXT:
        write_lines(("ok" if each.agrees else "differs", each.id, each.workflow, each.text) for each in found)
        return
    for each in found:
        if not each.agrees or sys.stdout.isatty():
            mark = "✓" if each.agrees else "✗"
            click.echo(safe(f"{mark} {each.id} ({each.workflow}): {each.text}"))
