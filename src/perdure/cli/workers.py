"""`perdure workers`: the processes that work on a database."""

from __future__ import annotations

import json
from typing import Any

import click

from perdure.cli.opening import client
from perdure.cli.options import database_options, listing_option
from perdure.cli.writing import Form, say, write_json_list, write_lines, write_table
from perdure.models import WorkerInfo


@click.command()
@click.option(
    "--gone",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="Add the last N that have stopped or were declared dead.",
)
@database_options
@listing_option
def workers(gone: int, database: str | None, schema: str | None, form: Form) -> None:
    """List the workers that live, on whatever machines, with the runs that each has."""
    with client(database, schema) as app:
        found = app.workers.list(gone=gone)
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(_document, found), form)
        case Form.TABLE if found:
            head = ("number", "name", "host", "pid", "version", "queues", "runs", "since", "state")
            write_table(head, list(map(_row, found)))
        case Form.TABLE:
            say("there are no workers")
        case _:
            write_lines(_line(each) for each in found)


def _state(found: WorkerInfo) -> str:
    """What is so of it, in a word or a few."""
    if found.reason is not None:
        return found.reason
    return "alive" if found.alive else "lease ran out"


def _line(found: WorkerInfo) -> tuple[Any, ...]:
    where = (found.number, found.name, found.host, found.pid, found.version)
    times = (found.started, found.expires, found.ended)
    return (*where, json.dumps(found.queues), found.running, *times, _state(found))


def _row(found: WorkerInfo) -> tuple[str, ...]:
    since = found.ended or found.started
    return (
        str(found.number),
        found.name,
        found.host,
        str(found.pid),
        found.version or "",
        ", ".join(found.queues),
        f"{found.running:,}",
        f"{since:%Y-%m-%d %H:%M:%S}",
        _state(found),
    )


def _document(found: WorkerInfo) -> dict[str, Any]:
    return {
        "number": found.number,
        "name": found.name,
        "host": found.host,
        "pid": found.pid,
        "version": found.version,
        "queues": list(found.queues),
        "runs": found.running,
        "alive": found.alive,
        "started": found.started,
        "expires": found.expires,
        "ended": found.ended,
        "reason": found.reason,
    }
