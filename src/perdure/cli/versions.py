"""`perdure versions`: what still lives on each version of the code."""

from __future__ import annotations

import json
from typing import Any

import click

from perdure.cli.opening import client
from perdure.cli.options import database_options, listing_option
from perdure.cli.writing import Form, say, write_json_list, write_lines, write_table
from perdure.models import VersionInfo


@click.command()
@database_options
@listing_option
def versions(database: str | None, schema: str | None, form: Form) -> None:
    """List the versions of the code that still have unfinished runs, or workers.

    A version without runs can be taken out of `accepts`, and its workers stopped. Runs without a version may go on
    with any.
    """
    with client(database, schema) as app:
        found = app.versions.list()
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(_document, found), form)
        case Form.TABLE if found:
            write_table(("version", "runs", "workers", "of them"), list(map(_row, found)))
        case Form.TABLE:
            say("there are neither unfinished runs nor workers")
        case _:
            write_lines(
                (each.version, _runs(each), each.workers, json.dumps(dict(each.runs))) for each in found
            )


def _runs(found: VersionInfo) -> int:
    return sum(found.runs.values())


def _document(found: VersionInfo) -> dict[str, Any]:
    return {
        "version": found.version,
        "runs": _runs(found),
        "statuses": {str(status): count for status, count in found.runs.items()},
        "workers": found.workers,
    }


def _row(found: VersionInfo) -> tuple[str, ...]:
    statuses = ", ".join(f"{count:,} {status}" for status, count in found.runs.items())
    name = "(any)" if found.version is None else found.version
    return (name, f"{_runs(found):,}", str(found.workers), statuses)
