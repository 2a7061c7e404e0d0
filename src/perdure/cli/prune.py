"""`perdure prune`: delete runs that ended long ago, whole trees at a time, by how long they are to be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from perdure.cli.acting import progress_bar
from perdure.cli.choosing import agree_to
from perdure.cli.exits import refused_as_usage
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option, reason_option, span
from perdure.cli.writing import Form, safe, say, write_json, write_lines, write_table
from perdure.models import Duration
from perdure.retention import Pruned, Retention

FOREVER: Final = "forever"


@click.command()
@click.option("--succeeded", metavar="DURATION", type=span, help="Keep runs that succeeded so long.")
@click.option("--failed", metavar="DURATION", type=span, help="Keep runs that failed so long.")
@click.option("--cancelled", metavar="DURATION", type=span, help="Keep runs that were cancelled so long.")
@click.option(
    "--workflow",
    "workflows",
    metavar="NAME=DURATION",
    multiple=True,
    help=f"Keep runs of this workflow (or NAME*: of those that begin so) so long, however they ended; or {FOREVER}.",
)
@click.option("--limit", "-n", type=click.IntRange(1), help="At most so many runs.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option("--yes", "-y", "agreed", is_flag=True, help="Do not ask for agreement.")
@reason_option
@database_options
@output_option
def prune(
    database: str | None,
    schema: str | None,
    form: Form,
    workflows: Sequence[str],
    limit: int | None,
    reason: str | None,
    *,
    dry_run: bool,
    agreed: bool,
    **kept: float | None,
) -> None:
    """Delete runs that ended long ago: whole trees, of which every run is kept no longer.

    What has no duration is kept for ever. Workers of an app with a Retention do the same by themselves.
    """
    retention = _retention(kept, workflows)
    with client(database, schema) as app:
        would = app.runs.prune(retention, dry_run=True, limit=limit)
        if dry_run or not would.runs:
            _write(would, 0, form)
            _say_so(would)
            return
        agree_to("prune", would.runs, agreed=agreed)
        with progress_bar("prune", would.runs) as moved:
            gone = app.runs.prune(retention, limit=would.runs, reason=reason, progress=moved)
    # More may be due by now than was agreed to: whether the limit was reached is what the count said.
    _write(replace(gone, complete=would.complete), gone.runs, form)


def _retention(kept: Mapping[str, float | None], workflows: Sequence[str]) -> Retention:
    """What the options mean.

    Raises:
        UsageError: nothing would ever go, or a value cannot be.
    """
    if not workflows and all(duration is None for duration in kept.values()):
        raise click.UsageError(
            "How long are runs to be kept? Say --succeeded, --failed, --cancelled or --workflow; what is not "
            "named is kept for ever."
        )
    with refused_as_usage():
        return Retention(**kept, workflows=dict(map(_rule, workflows)))


def _rule(text: str) -> tuple[str, Duration | None]:
    name, equals, duration = text.rpartition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME=DURATION", param_hint="--workflow")
    return name, None if duration == FOREVER else span(duration)


def _write(pruned: Pruned, reached: int, form: Form) -> None:
    counts = [
        (name, status, count)
        for name, statuses in sorted(pruned.workflows.items())
        for status, count in sorted(statuses.items())
    ]
    match form:
        case Form.JSON:
            write_json(_document(pruned, reached))
        case Form.TABLE if counts:
            write_table(("workflow", "status", "runs"), [(n, s, f"{count:,}") for n, s, count in counts])
            if not pruned.dry_run:
                click.echo(f"{reached:,} runs in {pruned.trees:,} trees are pruned")
        case Form.TABLE:
            click.echo("no runs are to go")
        case _:
            write_lines(counts)


def _document(pruned: Pruned, reached: int) -> dict[str, Any]:
    return {
        "matched": pruned.runs,
        "reached": reached,
        "trees": pruned.trees,
        "complete": pruned.complete,
        "workflows": pruned.workflows,
        "rows": pruned.rows,
    }


def _say_so(would: Pruned) -> None:
    if would.runs:
        rows = ", ".join(f"{count:,} {table}" for table, count in would.rows.items() if count)
        say(
            f"prune would delete {would.runs:,} run{'' if would.runs == 1 else 's'} in {would.trees:,} "
            f"tree{'' if would.trees == 1 else 's'} (rows: {safe(rows)}); nothing was changed."
        )
