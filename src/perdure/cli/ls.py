"""`perdure ls`: runs by filter, newest first, a page at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.documents import LINE, run_document
from perdure.cli.exits import refused_as_usage
from perdure.cli.filters import filter_of, filter_options, given
from perdure.cli.opening import client
from perdure.cli.options import database_options, runs_option
from perdure.cli.writing import (
    Form,
    local,
    say,
    shortened,
    took,
    write_json_list,
    write_lines,
    write_table,
)
from perdure.models import RunInfo


@click.command()
@filter_options
@click.option(
    "--limit", "-n", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on after this run of the page before.")
@database_options
@runs_option
def ls(
    database: str | None,
    schema: str | None,
    form: Form,
    limit: int,
    cursor: str | None,
    **filters: Any,  # the fields of RunFilter, as click reads them
) -> None:
    """List runs, newest first.

    Every filter given must match; of a repeated one, any value (of --tag all).
    """
    where = filter_of(given(filters), limit=limit, cursor=cursor)
    with client(database, schema) as app, refused_as_usage():
        runs = app.runs.list(where)
    write_runs(runs, form)
    if len(runs) == limit and form in (Form.TABLE, Form.TEXT):
        say(f"there may be more: --cursor {runs[-1].cursor}")


def write_runs(runs: Sequence[RunInfo], form: Form) -> None:
    """Write a list of runs."""
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(run_document, runs), form)
        case Form.TEXT:
            write_lines(map(run_line, runs))
        case Form.ID:
            write_lines([run.id] for run in runs)
        case Form.TABLE:
            _write_table(runs)


def run_line(run: RunInfo) -> list[Any]:
    """The fields of a run as a line of text."""
    document = run_document(run)
    if run.tags is not None:
        document["tags"] = json.dumps(dict(run.tags), ensure_ascii=False)
    return [document[name] for name in LINE]


def _write_table(runs: Sequence[RunInfo]) -> None:
    if not runs:
        say("no runs match")
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
