"""Which runs a command is to reach: by id, or by the filters of `ls`, and then only once somebody has agreed.

A filter that is one letter short of what was meant reaches thousands of runs. So a command says how many they are and
asks; where nobody can answer, such as in a pipe, it refuses without `--yes`; and an empty filter has to be asked for in
words, by `--all`, since it is also what a script writes whose variable is empty.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import click

from perdure import sync
from perdure.cli.exits import Exit, Failure
from perdure.cli.filters import FIELDS, filter_of, filter_options, given
from perdure.cli.options import C, reason_option, word
from perdure.cli.writing import say
from perdure.models import RunFilter, Status


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs somebody has named, and how to go about it.

    Attributes:
        ids: named one by one; empty if they are named by filter.
        where: the filter; of no use if there are ids.
        reason: for the audit.
        dry_run: change nothing, and say what would be.
        agreed: do not ask.
    """

    ids: Sequence[str]
    where: RunFilter
    reason: str | None
    dry_run: bool
    agreed: bool


def chosen_runs(command: C) -> C:
    """Add `ID...`, the filters, and how to go about many runs; `taken` reads them."""
    options = [
        click.argument("ids", metavar="[ID...]", nargs=-1, type=word),
        click.option("--all", "every", is_flag=True, help="Every run: needed where there is no filter."),
        filter_options,
        click.option("--dry-run", is_flag=True, help="Say how many runs are meant, and change nothing."),
        click.option("--yes", "-y", "agreed", is_flag=True, help="Do not ask for agreement."),
        reason_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def taken(options: Mapping[str, Any], verb: str, fitting: Collection[Status]) -> Chosen:
    """The runs that the options of `chosen_runs` name.

    Args:
        options: as click hands them to the command.
        verb: what is done to them.
        fitting: statuses of the runs to which it can be done; a filter finds no others.

    Raises:
        UsageError: none are named, or in two ways.
    """
    ids, fields = tuple(dict.fromkeys(options["ids"])), given({name: options[name] for name in FIELDS})
    if sum(map(bool, (ids, fields, options["every"]))) != 1:
        raise click.UsageError(
            "Which runs? Name them by id, or by filters such as --status, or all of them by --all"
            + ("; not in two of these ways." if ids or fields or options["every"] else ".")
        )
    asked = [Status(status) for status in fields.pop("status", ())]
    statuses = [status for status in asked or Status if status in fitting]
    if not statuses:
        raise click.UsageError(f"To {verb} runs that are {' or '.join(asked)} would do nothing.")
    where = filter_of(fields, status=statuses)
    return Chosen(ids, where, options["reason"], options["dry_run"], options["agreed"])


def settled(app: sync.Perdure, where: RunFilter) -> RunFilter:
    """A filter that finds no runs which are born from now on, so that no more are reached than were counted."""
    newest = app.runs.list(replace(where, limit=1))
    return (
        where if not newest else replace(where, created_before=newest[0].created + timedelta(microseconds=1))
    )


def agree(chosen: Chosen, verb: str, count: int) -> None:
    """Have somebody agree that something is done to so many runs.

    Raises:
        Failure: nobody is there to be asked, or they do not agree.
    """
    agree_to(verb, count, agreed=chosen.agreed)


def agree_to(verb: str, count: int, *, agreed: bool) -> None:
    """Have somebody agree, unless they have.

    Raises:
        Failure: nobody is there to be asked, or they do not agree.
    """
    if agreed:
        return
    runs = f"{count:,} run{'' if count == 1 else 's'}"
    if not sys.stdin.isatty():
        raise Failure(
            Exit.USAGE,
            f"{runs} would be reached by this {verb}, and nobody is here to agree: say --yes, or --dry-run to see them",
        )
    if not _agreed(f"{verb} {runs}?"):
        say("nothing was changed")
        raise click.exceptions.Exit(Exit.FAILED)


def _agreed(question: str) -> bool:
    """Ask; the end of what is typed (Ctrl-D) is a no, an interrupt stays one."""
    try:
        return click.confirm(question, err=True)
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise
        click.echo(err=True)
        return False
