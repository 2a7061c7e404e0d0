"""`perdure audit`: what was done to runs, by whom, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from perdure.cli.documents import audit_document
from perdure.cli.opening import client
from perdure.cli.options import database_options, listing_option, word
from perdure.cli.writing import (
    Form,
    local,
    say,
    shortened,
    write_json_list,
    write_lines,
    write_table,
)
from perdure.models import AuditInfo


@click.command()
@click.argument("id", metavar="[ID]", required=False, type=word)
@click.option(
    "--limit", "-n", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@database_options
@listing_option
def audit(id: str | None, database: str | None, schema: str | None, limit: int, form: Form) -> None:
    """List what was done to a run, or to all, newest first: when, by whom, what, and why.

    Of a run that was deleted it is still here.
    """
    with client(database, schema) as app:
        lines = app.runs.audit(id, limit=limit)
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(audit_document, lines), form)
        case Form.TABLE if lines:
            heads = ("at", "who", "did", "id", "detail", "reason")
            write_table(heads, [(local(line.at), *audit_texts(line)) for line in lines])
        case Form.TABLE:
            say("nothing was done by hand")
        case _:
            write_lines(audit_line(line) for line in lines)


def audit_line(line: AuditInfo) -> Sequence[Any]:
    """The fields of a line of text."""
    return (line.at, line.who, line.verb, line.id, line.reason, _detail(line))


def audit_texts(line: AuditInfo) -> tuple[str, ...]:
    """What people are shown of it, after its time."""
    return (line.who, line.verb, line.id, shortened(_detail(line) or ""), line.reason or "")


def _detail(line: AuditInfo) -> str | None:
    return None if line.detail is None else json.dumps(dict(line.detail), ensure_ascii=False)
