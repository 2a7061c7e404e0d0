"""`perdure workers`: the processes that work on a database, and having one of them take no more runs."""

from __future__ import annotations

import json
from typing import Any

import click
from click.core import ParameterSource

from perdure.cli.exits import Exit, Failure
from perdure.cli.opening import client
from perdure.cli.options import C, database_options, listing_option, span
from perdure.cli.writing import Form, say, write_json_list, write_lines, write_table
from perdure.models import WorkerInfo


@click.group(invoke_without_command=True)
@click.option(
    "--gone",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="Add the last N that have stopped or were declared dead.",
)
@database_options
@listing_option
@click.pass_context
def workers(context: click.Context, gone: int, database: str | None, schema: str | None, form: Form) -> None:
    """List the workers that live, on whatever machines, with the runs that each has; pause, resume or drain one."""
    if (command := context.invoked_subcommand) is not None:
        for name in ("gone", "database", "schema", "form"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"what comes before {command} is not for it: write options behind {command}"
                )
        return
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


def number_argument(command: C) -> C:
    """Add the argument `NUMBER`."""
    return click.argument("number", metavar="NUMBER", type=int)(command)


@workers.command()
@number_argument
@database_options
def pause(number: int, database: str | None, schema: str | None) -> None:
    """Have a worker take no more runs; those that it has go on."""
    with client(database, schema) as app:
        _known(number, app.workers.pause(number))


@workers.command()
@number_argument
@database_options
def resume(number: int, database: str | None, schema: str | None) -> None:
    """Have a worker take runs again."""
    with client(database, schema) as app:
        _known(number, app.workers.resume(number))


@workers.command()
@number_argument
@click.option(
    "--timeout", metavar="DURATION", type=span, help="Give up waiting after so long.  [default: never]"
)
@database_options
def drain(number: int, timeout: float | None, database: str | None, schema: str | None) -> None:
    """Pause a worker, and wait until it has no run."""
    with client(database, schema) as app:
        _known(number, app.workers.drain(number, timeout))


def _known(number: int, known: bool) -> None:
    if not known:
        raise Failure(Exit.NOT_FOUND, f"no worker {number} lives: `perdure workers` lists those that do")


def _state(found: WorkerInfo) -> str:
    """What is so of it, in a word or a few."""
    if found.reason is not None:
        return found.reason
    if found.alive and found.paused:
        return "paused"
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
        "paused": found.paused,
        "started": found.started,
        "expires": found.expires,
        "ended": found.ended,
        "reason": found.reason,
    }
