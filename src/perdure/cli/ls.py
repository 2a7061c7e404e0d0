"""`perdure ls`: runs by filter, newest first, a page at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.documents import LINE, run_document
from perdure.cli.opening import client
from perdure.cli.options import database_options, moment, output_option, tags_of
from perdure.cli.writing import Form, local, shortened, took, write_json, write_lines, write_table
from perdure.models import RunFilter, RunInfo, Status


@click.command()
@click.option(
    "--status",
    "-s",
    type=click.Choice([str(status) for status in Status]),
    multiple=True,
    help="Where the run stands; repeatable.",
)
@click.option(
    "--workflow", "-w", metavar="NAME", multiple=True, help="Stored name of the workflow; repeatable."
)
@click.option("--queue", "-q", metavar="NAME", multiple=True, help="Queue; repeatable.")
@click.option("--version", metavar="VERSION", multiple=True, help="Version of the code; repeatable.")
@click.option("--worker", metavar="NUMBER", type=int, multiple=True, help="Number of the worker; repeatable.")
@click.option(
    "--tag", metavar="NAME=VALUE", multiple=True, help="Tag that the run has; repeatable, all must match."
)
@click.option("--parent", metavar="ID", help="Run that started it.")
@click.option("--prefix", metavar="TEXT", help="Beginning of the id.")
@click.option(
    "--created-after", metavar="TIME", callback=moment, help="Born at or after: ISO 8601, or 2h (ago)."
)
@click.option("--created-before", metavar="TIME", callback=moment, help="Born before.")
@click.option("--error", metavar="TEXT", help="Text in the error, or in the reason for parking.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on after this run of the page before.")
@database_options
@output_option
def ls(
    database: str | None,
    schema: str | None,
    form: Form,
    tag: Sequence[str],
    limit: int,
    **filters: Any,  # the fields of RunFilter, as click reads them
) -> None:
    """List runs, newest first.

    Every filter given must match; of a repeated one, any value (of --tag all).
    """
    given = {name: value for name, value in filters.items() if value not in (None, ())}
    try:
        where = RunFilter(**given, tags=tags_of(tag), limit=limit)
        with client(database, schema) as app:
            runs = app.runs.list(where)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    match form:
        case Form.JSON:
            write_json([run_document(run) for run in runs])
        case Form.TEXT:
            write_lines(_line(run) for run in runs)
        case Form.TABLE:
            _write_table(runs)
    if len(runs) == limit and form is not Form.JSON:
        click.echo(f"perdure: there may be more: --cursor {runs[-1].cursor}", err=True)


def _line(run: RunInfo) -> list[Any]:
    document = run_document(run)
    if run.tags is not None:
        document["tags"] = json.dumps(dict(run.tags), ensure_ascii=False)
    return [document[name] for name in LINE]


def _write_table(runs: Sequence[RunInfo]) -> None:
    if not runs:
        click.echo("no runs match", err=True)
        return
    now = datetime.now(UTC)
    heads = ("id", "workflow", "status", "queue", "created", "took", "remark")
    rows = [
        (
            run.id,
            run.workflow,
            str(run.status),
            run.queue or "",
            local(run.created),
            took(max(0.0, ((run.finished or now) - run.created).total_seconds())),
            _remark(run),
        )
        for run in runs
    ]
    write_table(heads, rows)


def _remark(run: RunInfo) -> str:
    remarks = [
        f"until {local(run.wakes)}" if run.wakes and not run.finished else "",
        "to be cancelled" if run.cancel_requested and not run.finished else "",
        f"taken over {run.takeovers} times" if run.takeovers else "",
        shortened(run.reason or ""),
    ]
    return ", ".join(filter(None, remarks))
