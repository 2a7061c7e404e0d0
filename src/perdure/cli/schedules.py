"""`perdure schedules`: what is to run by itself, and what can be done to it; a group, since its verbs are those of runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.documents import stored_json
from perdure.cli.exits import refused_as_usage
from perdure.cli.opening import client
from perdure.cli.options import (
    C,
    database_options,
    listing_option,
    moment,
    output_option,
    reason_option,
    word,
)
from perdure.cli.writing import (
    Form,
    local,
    plain,
    say,
    shortened,
    took,
    write_json,
    write_json_list,
    write_lines,
    write_table,
)
from perdure.schedules import OVERLAPS, ScheduleInfo


@click.group()
def schedules() -> None:
    """Look at schedules, and pause, trigger, backfill or delete them.

    What is changed here stays until the code declares the schedule otherwise.
    """


def name_argument(command: C) -> C:
    """Add the argument `NAME`."""
    return click.argument("name", metavar="NAME", type=word)(command)


@schedules.command()
@click.option("--workflow", "-w", metavar="NAME", type=word, help="Only those of this workflow.")
@click.option("--paused/--not-paused", default=None, help="Only those that rest, or that do not.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="At most so many."
)
@click.option("--after", metavar="NAME", type=word, help="Go on after this one of the page before.")
@database_options
@listing_option
def ls(database: str | None, schema: str | None, form: Form, limit: int, **which: Any) -> None:
    """List schedules by name."""
    with client(database, schema) as app:
        found = app.schedules.list(limit=limit, **which)
    match form:
        case Form.JSON | Form.JSONL:
            write_json_list(map(document, found), form)
        case Form.TABLE if found:
            heads = ("name", "workflow", "when", "next", "last", "overlap", "remark")
            write_table(heads, [_row(each) for each in found])
        case Form.TABLE:
            say("there are no schedules")
        case _:
            write_lines(map(_line, found))
    if len(found) == limit and form in (Form.TABLE, Form.TEXT):
        say(f"there may be more: --after {found[-1].name}")


@schedules.command()
@name_argument
@database_options
@output_option
def show(name: str, database: str | None, schema: str | None, form: Form) -> None:
    """Show one schedule: its next ticks, and the runs that they wait for."""
    with client(database, schema) as app:
        found = app.schedules.get(name)
    if form is Form.JSON:
        write_json(document(found))
        return
    lines = [(field, value) for field, value in document(found).items() if value not in (None, [], {})]
    write_lines(
        (field, plain(each) if form is Form.TEXT or not isinstance(each, datetime) else local(each))
        for field, value in lines
        for each in (value if isinstance(value, list) else [_text(value)])
    )


@schedules.command()
@name_argument
@click.option("--note", metavar="TEXT", type=word, help="Why; shown in the list, and noted in the audit.")
@database_options
def pause(name: str, note: str | None, database: str | None, schema: str | None) -> None:
    """Have a schedule rest, until somebody resumes it."""
    with client(database, schema) as app:
        app.schedules.pause(name, note)


@schedules.command()
@name_argument
@reason_option
@database_options
def resume(name: str, reason: str | None, database: str | None, schema: str | None) -> None:
    """Have a schedule go on with its next tick; what came while it rested is not made up."""
    with client(database, schema) as app:
        app.schedules.resume(name, reason)


@schedules.command()
@name_argument
@click.option(
    "--overlap", type=click.Choice(OVERLAPS), help="Another policy for this once.  [default: the schedule's]"
)
@reason_option
@database_options
@output_option
def trigger(
    name: str, overlap: Any, reason: str | None, database: str | None, schema: str | None, form: Form
) -> None:
    """Have the schedule's workflow run now, and write the id of the run.

    Where the policy skips it, because another has not ended, nothing is written but on stderr.
    """
    with client(database, schema) as app:
        handle = app.schedules.trigger(name, overlap=overlap, reason=reason)
    if form is Form.JSON:
        write_json({"id": None if handle is None else handle.id})
    elif handle is not None:
        write_lines([[handle.id]])
    if handle is None:
        say(f"skipped: a run of {name} has not ended; --overlap allow starts one beside it")


@schedules.command()
@name_argument
@click.option(
    "--from", "first", metavar="TIME", required=True, callback=moment, help="First tick: then or later."
)
@click.option(
    "--until", metavar="TIME", default="0s", callback=moment, help="Ticks before then.  [default: now]"
)
@click.option(
    "--queue", "-q", metavar="NAME", type=word, help="In which the runs wait.  [default: the schedule's]"
)
@reason_option
@database_options
@output_option
def backfill(
    name: str,
    first: datetime,
    until: datetime,
    queue: str | None,
    reason: str | None,
    database: str | None,
    schema: str | None,
    form: Form,
) -> None:
    """Start a run for every past tick of a span that has none, and write how many.

    Times are as for `ls --created-after`. It can be repeated: no tick gets a second run.
    """
    with client(database, schema) as app, refused_as_usage():
        begun = app.schedules.backfill(name, first, until, queue=queue, reason=reason)
    match form:
        case Form.JSON:
            write_json({"started": begun})
        case Form.TABLE:
            click.echo(f"{begun:,} runs are started")
        case _:
            write_lines([[begun]])


@schedules.command()
@name_argument
@reason_option
@database_options
def delete(name: str, reason: str | None, database: str | None, schema: str | None) -> None:
    """Delete a schedule; its runs stay. One that the code declares comes back with its next worker."""
    with client(database, schema) as app:
        app.schedules.delete(name, reason)


def document(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule, with the field names that scripts rely on."""
    return {
        "name": info.name,
        "workflow": info.workflow,
        "cron": info.cron,
        "every": None if info.every is None else info.every.total_seconds(),
        "timezone": info.timezone,
        "overlap": info.overlap,
        "jitter": info.jitter.total_seconds(),
        "catch_up": None if info.catch_up is None else info.catch_up.total_seconds(),
        "queue": info.queue,
        "options": dict(info.options),
        "input": stored_json(info.input),
        "paused": info.paused,
        "note": info.note,
        "next": _utc(info.next),
        "last": _utc(info.last),
        "pending": [_utc(tick) for tick in info.pending],
        "skipped": info.skipped,
        "missed": info.missed,
        "created": _utc(info.created),
        "changed": _utc(info.changed),
        "running": list(info.running),
        "upcoming": [_utc(tick) for tick in info.upcoming],
    }


def _text(value: Any) -> Any:
    return bytes(value).decode() if type(value).__name__ == "Raw" else value


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)


def _when(info: ScheduleInfo) -> str:
    if info.every is not None:
        return f"every {took(info.every.total_seconds())}"
    return f"{info.cron}" if info.timezone == "UTC" else f"{info.cron} {info.timezone}"


def _row(info: ScheduleInfo) -> Sequence[str]:
    remarks = [
        ("paused" + (f": {shortened(info.note)}" if info.note else "")) if info.paused else "",
        f"{len(info.pending):,} waiting" if info.pending else "",
        f"{info.skipped:,} skipped" if info.skipped else "",
        f"{info.missed:,} missed" if info.missed else "",
    ]
    remark = ", ".join(filter(None, remarks))
    return (info.name, info.workflow, _when(info), local(info.next), local(info.last), info.overlap, remark)


def _line(info: ScheduleInfo) -> Sequence[Any]:
    return (
        info.name,
        info.workflow,
        _when(info),
        info.next,
        info.last,
        info.overlap,
        "paused" if info.paused else "",
        len(info.pending),
        info.skipped,
        info.missed,
        info.note,
    )
