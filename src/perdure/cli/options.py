"""Options that several commands share, and how the text of an option becomes a value."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from perdure.cli.writing import Form
from perdure.models import seconds_of
from perdure.serial import check_text

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
    """Add `--output`, of a command with one answer."""
    return _output(Form.TABLE, Form.TEXT, Form.JSON)(command)


def listing_option(command: C) -> C:
    """Add `--output`, of a command that lists things without ids of runs."""
    return _output(Form.TABLE, Form.TEXT, Form.JSON, Form.JSONL)(command)


def runs_option(command: C) -> C:
    """Add `--output`, of a command that lists runs."""
    return _output(*Form)(command)


def _output(*forms: Form) -> Callable[[C], C]:
    return click.option(
        "--output",
        "-o",
        "form",
        type=click.Choice([str(form) for form in forms]),
        callback=lambda _context, _option, given: Form.chosen(given),
        help="How to write the answer.  [default: table on a terminal, else text]",
    )


def word(text: str) -> str:
    """Take an id or a name; an empty one is refused, since as a filter it would mean all.

    Raises:
        BadParameter: the database could not hold it.
    """
    try:
        return check_text(text, "text")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def span(text: str) -> float:
    """Read a duration: `90` (seconds), `90s`, `15m`, `2h`, `3d`, `1w`.

    Raises:
        BadParameter: it is none.
    """
    found = _AGO.fullmatch(text if text[-1:].isalpha() else f"{text}s")
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration: write 90 (seconds), 15m, 2h or 3d")
    unit = timedelta(**{_UNITS[found["unit"]]: 1})
    try:
        return seconds_of(unit.total_seconds() * float(found["number"]), "a duration")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def json_value(text: str) -> Any:
    """Read a value as JSON; `-` reads it from stdin.

    Raises:
        BadParameter: it is none.
    """
    try:
        return json_of(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no JSON ({error}); a text is written with quotes: '\"text\"'"
        ) from None


def json_of(text: str) -> Any:
    """Read JSON, without what only Python adds to it.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not in JSON")


def id_argument(command: C) -> C:
    """Add the argument `ID`."""
    return click.argument("id", metavar="ID", type=word)(command)


def to_version_option(command: C) -> C:
    """Add `--to-version`: where there are filters, `--version` is one of them."""
    return click.option(
        "--to-version",
        metavar="VERSION",
        type=word,
        help="Of the code that is to go on.  [default: the run's]",
    )(command)


def reason_option(command: C) -> C:
    """Add `--reason`."""
    return click.option(
        "--reason", metavar="TEXT", type=word, help="Why; noted in the audit with your login."
    )(command)


def moment(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    """Read a time: ISO 8601, in local time unless it names a zone, or `2h`: so long ago.

    Raises:
        BadParameter: it is neither.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago["unit"]]: float(ago["number"])})
        except OverflowError:
            raise click.BadParameter(f"{text!r} ago is before all time", context, option) from None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
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
        tags[name] = json_or_text(text)
    return tags or None


def json_or_text(text: str) -> Any:
    """A value that is JSON is taken as it, any other as text."""
    try:
        return json_of(text)
    except ValueError:
        return text
