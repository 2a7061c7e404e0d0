"""Options that several commands share, and how the text of an option becomes a value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from perdure.cli.writing import Form

C = TypeVar("C", bound=Callable[..., Any])

_AGO: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def database_options(command: C) -> C:
    """Add `--database` and `--schema`."""
    command = click.option(
        "--schema", metavar="NAME", help="perdure's schema.  [default: PERDURE_SCHEMA, else perdure]"
    )(command)
    return click.option(
        "--database",
        "-d",
        metavar="URL",
        help="Postgres URL or conninfo.  [default: PERDURE_DATABASE_URL, else the embedded server in .perdure/]",
    )(command)


def output_option(command: C) -> C:
    """Add `--output`."""
    return click.option(
        "--output",
        "-o",
        "form",
        type=click.Choice([str(form) for form in Form]),
        callback=lambda _context, _option, given: Form.chosen(given),
        help="How to write the answer.  [default: table on a terminal, else text]",
    )(command)


def run_ids(command: C) -> C:
    """Add the argument `ID...`."""
    return click.argument("ids", metavar="ID...", nargs=-1, required=True)(command)


def moment(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """Read a time: ISO 8601, in local time unless it names a zone, or `2h`: so long ago.

    Raises:
        BadParameter: it is neither.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago["unit"]]: float(ago["number"])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: write 2026-11-22, 2026-11-22T14:30+01:00 or 2h (ago)", context, option
        ) from None


def tags_of(pairs: Iterable[str]) -> Mapping[str, Any] | None:
    """Read `name=value` pairs; a value that is JSON is taken as it, any other as text.

    Raises:
        BadParameter: a pair has no `=`.
    """
    tags: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not of the form name=value", param_hint="--tag")
        try:
            tags[name] = json.loads(text)
        except ValueError:
            tags[name] = text
    return tags or None
