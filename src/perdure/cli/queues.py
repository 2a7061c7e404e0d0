"""`perdure queues`: what is in them, and what can be changed of them live; a group, since its verbs are those of runs."""

from __future__ import annotations

from typing import Any, Final

import click

from perdure.cli.opening import client
from perdure.cli.options import C, database_options, listing_option, span, word
from perdure.cli.writing import Form, say, write_json_list, write_lines, write_table
from perdure.models import seconds_of
from perdure.queues import LARGEST, QueueInfo, Rate

COUNTS: Final = ("scheduled", "queued", "running", "waiting", "parked", "workers")
NO_LIMIT: Final = "none"


@click.group()
def queues() -> None:
    """Look at queues, and pause, resume, drain or limit them.

    What is changed here holds for all workers, and stays until the code declares the queue otherwise.
    """


def name_argument(command: C) -> C:
    """Add the argument `NAME`."""
    return click.argument("name", metavar="NAME", type=word)(command)


@queues.command()
@database_options
@listing_option
def ls(database: str | None, schema: str | None, form: Form) -> None:
    """List queues that were declared, are served, or have unfinished runs."""
    with client(database, schema) as app:
        found = app.queues.list()
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(_document, found), form)
        case Form.TABLE if found:
            write_table(("name", *COUNTS, "limits"), [_row(each) for each in found])
        case Form.TABLE:
            say("there are no queues")
        case _:
            write_lines(map(_row, found))


@queues.command()
@name_argument
@database_options
def pause(name: str, database: str | None, schema: str | None) -> None:
    """Begin no more runs of a queue; those that have begun go on."""
    with client(database, schema) as app:
        app.queues.pause(name)


@queues.command()
@name_argument
@database_options
def resume(name: str, database: str | None, schema: str | None) -> None:
    """Begin runs of a queue again."""
    with client(database, schema) as app:
        app.queues.resume(name)


@queues.command()
@name_argument
@click.option(
    "--timeout", metavar="DURATION", type=span, help="Give up waiting after so long.  [default: never]"
)
@database_options
def drain(name: str, timeout: float | None, database: str | None, schema: str | None) -> None:
    """Pause a queue, and wait until none of its runs is running."""
    with client(database, schema) as app:
        app.queues.drain(name, timeout)


def limit(text: str) -> int | str:
    """Read a count, or `none`.

    Raises:
        BadParameter: it is neither.
    """
    if text == NO_LIMIT:
        return text
    if not text.isdecimal() or not 0 < int(text) <= LARGEST:
        raise click.BadParameter(f"{text!r} is no number from 1: write 20, or {NO_LIMIT}")
    return int(text)


def rate(text: str) -> Rate | str:
    """Read runs in a time, `100/1m`, or `none`.

    Raises:
        BadParameter: it is neither.
    """
    if text == NO_LIMIT:
        return text
    count, _, per = text.partition("/")
    try:
        return Rate(int(limit(count)), span(per))
    except (ValueError, click.BadParameter):
        raise click.BadParameter(
            f"{text!r} is not of the form N/DURATION: write 100/1m, or {NO_LIMIT}"
        ) from None


@queues.command("set")
@name_argument
@click.option("--concurrency", metavar="N", type=limit, help="Runs at a time, over all workers.")
@click.option("--worker-concurrency", metavar="N", type=limit, help="Runs at a time in each worker.")
@click.option("--key-concurrency", metavar="N", type=limit, help="Runs at a time of each key.")
@click.option("--size", metavar="N", type=limit, help="Runs that wait to begin.")
@click.option("--rate", metavar="N/DURATION", type=rate, help="Runs that begin in a time, such as 100/1m.")
@click.option("--key-rate", metavar="N/DURATION", type=rate, help="The same for each key.")
@database_options
def set_(name: str, database: str | None, schema: str | None, **limits: Any) -> None:
    """Change limits of a queue, those that are given; `none` takes one away."""
    given = {
        each: None if value == NO_LIMIT else value for each, value in limits.items() if value is not None
    }
    if not given:
        raise click.UsageError("Say what to change, such as --concurrency 5.")
    with client(database, schema) as app:
        app.queues.set(name, **given)


def _row(queue: QueueInfo) -> tuple[Any, ...]:
    return (queue.name, *(getattr(queue, count) for count in COUNTS), ", ".join(_limits(queue)))


def _limits(queue: QueueInfo) -> list[str]:
    counts = {
        name: getattr(queue, name)
        for name in ("concurrency", "worker_concurrency", "key_concurrency", "size")
    }
    rates = {"rate": queue.rate, "key_rate": queue.key_rate}
    return [
        *(["paused"] if queue.paused else []),
        *(f"{name}={count}" for name, count in counts.items() if count is not None),
        *(
            f"{name}={most.limit}/{seconds_of(most.per, 'per'):g}s"
            for name, most in rates.items()
            if most is not None
        ),
    ]


def _document(queue: QueueInfo) -> dict[str, Any]:
    rates = {
        name: most and {"limit": most.limit, "per": most.per}
        for name, most in (("rate", queue.rate), ("key_rate", queue.key_rate))
    }
    return queue._asdict() | rates
