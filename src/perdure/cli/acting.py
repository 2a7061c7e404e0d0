"""Doing something to runs: to each of some ids, with an answer of its own, or to all that a filter finds.

Ids are taken one at a time, not as one list, so that one that is mistyped does not keep the others from theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from perdure import sync
from perdure.cli.choosing import Chosen, agree, settled
from perdure.cli.documents import run_document
from perdure.cli.exits import Exit, refused_as_usage
from perdure.cli.ls import write_runs
from perdure.cli.writing import Form, safe, say, write_json, write_lines
from perdure.errors import WorkflowNotFound
from perdure.models import RunInfo, Status

SHOWN: Final = 20
"""Runs that a dry run names."""
BAR_FROM: Final = 500
"""Runs from which on a bar shows how far it is: they are more than one transaction."""
UNFINISHED: Final = frozenset(status for status in Status if not status.final)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one run.

    Attributes:
        outcome: one word, for programs.
        text: what to tell people, after the run's id.
        refused: whether the run was in a state in which nothing could be done.
        status: where it stands now; None if there is no such run.
        missing: whether no run had this id.
    """

    outcome: str
    text: str
    refused: bool = False
    status: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """What can be done to runs.

    Attributes:
        name: the verb.
        fitting: statuses of runs to which it can be done.
        outcome: says what became of a run, from how it stands afterwards and whether it was reached.
        many: what to tell people before the number of runs that it reached by filter.
        removes: whether a run that it reached is not there any more.
    """

    name: str
    fitting: Collection[Status]
    outcome: Callable[[RunInfo, bool], Done]
    many: str
    removes: bool = False


def act(
    app: sync.Perdure, chosen: Chosen, verb: Verb, action: Callable[..., int], form: Form, **how: Any
) -> None:
    """Do something to the runs that were chosen, and write what became of them.

    Args:
        app: the open app.
        chosen: which runs.
        verb: what is done.
        action: does it: a method of `app.runs`.
        form: how to write the answer.
        how: further arguments of the action.

    Raises:
        Failure: they are named by filter, and nobody agrees.
        Exit: by id, with code 3 if a run is not there, else 4 if one was refused.
    """
    with refused_as_usage():
        if chosen.dry_run:
            _dry(app, chosen, verb, form)
        elif chosen.ids:
            _each(app, chosen, verb, lambda one: action(one, reason=chosen.reason, **how), form)
        else:
            _all(app, chosen, verb, action, form, how)


def _each(app: sync.Perdure, chosen: Chosen, verb: Verb, action: Callable[[str], int], form: Form) -> None:
    """Act on runs by id."""
    done: list[tuple[str, Done]] = []
    for id in chosen.ids:
        try:
            run = app.handle(id).describe() if verb.removes else None
            reached = bool(action(id))
            if run is None or not reached:
                run = app.handle(id).describe()
        except WorkflowNotFound:
            done.append((id, Done("not_found", "is not there: no run has this id", missing=True)))
            continue
        status = None if reached and verb.removes else str(run.status)
        done.append((id, replace(verb.outcome(run, reached), status=status)))
    _write_each(done, form)
    if any(made.missing for _, made in done):
        raise click.exceptions.Exit(Exit.NOT_FOUND)
    if any(made.refused for _, made in done):
        raise click.exceptions.Exit(Exit.WRONG_STATE)


def _write_each(done: Sequence[tuple[str, Done]], form: Form) -> None:
    if form is Form.JSON:
        write_json([{"id": id, "outcome": made.outcome, "status": made.status} for id, made in done])
    if form is Form.TEXT:
        write_lines((id, made.outcome, made.status) for id, made in done)
    for id, made in done:
        bad = made.refused or made.missing
        if bad or form is Form.TABLE:
            click.echo(f"{'perdure: ' if bad else ''}{safe(id)} {safe(made.text)}", err=bad)


def _all(
    app: sync.Perdure, chosen: Chosen, verb: Verb, action: Callable[..., int], form: Form, how: dict[str, Any]
) -> None:
    """Act on the runs that a filter finds."""
    where = settled(app, chosen.where)
    count = app.runs.count(where)
    reached = 0
    if count:
        agree(chosen, verb.name, count)
        with progress_bar(verb.name, count) as moved:
            reached = action(where, reason=chosen.reason, progress=moved, **how)
    match form:
        case Form.JSON:
            write_json({"matched": count, "reached": reached})
        case Form.TABLE:
            click.echo(f"{verb.many}: {reached:,} of {count:,}" if count else "no runs match")
        case _:
            write_lines([[reached]])


@contextmanager
def progress_bar(verb: str, count: int) -> Iterator[Callable[[int], None]]:
    """How far it is, as a bar on a terminal; whoever interrupts it is told how far it came."""
    reached = 0
    bar: Callable[[int], None] = lambda _reached: None  # noqa: E731

    def moved(so_far: int) -> None:
        nonlocal reached
        reached = so_far
        bar(so_far)

    try:
        if count <= BAR_FROM or not sys.stderr.isatty():
            yield moved
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(verb, total=count)
            bar = lambda so_far: progress.update(task, completed=so_far)  # noqa: E731
            yield moved
    except KeyboardInterrupt:
        say(f"interrupted: {reached:,} of {count:,} runs were reached, perhaps some more")
        raise


def _dry(app: sync.Perdure, chosen: Chosen, verb: Verb, form: Form) -> None:
    """Say which runs would be reached, and change nothing."""
    where = replace(chosen.where, ids=chosen.ids) if chosen.ids else chosen.where
    count, runs = app.runs.count(where), app.runs.list(replace(where, limit=SHOWN))
    match form:
        case Form.JSON:
            write_json({"matched": count, "runs": [run_document(run) for run in runs]})
        case Form.TABLE:
            write_runs(runs, form)
        case _:
            write_lines([["matched", count], *(("run", run.id, run.workflow, run.status) for run in runs)])
    more = f" The first {SHOWN} are shown." if count > SHOWN else ""
    say(f"{verb.name} would reach {count:,} run{'' if count == 1 else 's'}; nothing was changed.{more}")
