"""How answers are written: tables for people, JSON and plain lines for programs, and texts that are safe to show.

What a run holds was written by anybody who may start one, and a terminal obeys what it is shown; so every
text is freed of control characters, and nothing is read as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

import click

LONGEST_VALUE: Final = 60
"""Characters of a value that are shown to people; JSON has all of it."""

STYLES: Final = {
    "scheduled": "yellow",
    "queued": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "cancelling": "magenta",
    "parked": "bold magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
}


class Form(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    TEXT = "text"
    JSON = "json"

    @classmethod
    def chosen(cls, given: str | None) -> Self:
        """The form asked for; else a table on a terminal, and text in a pipe."""
        return cls(given or ("table" if sys.stdout.isatty() else "text"))


def write_json(document: Any) -> None:
    """Write a document as one JSON value: in lines on a terminal, in one line else."""
    import msgspec

    text = msgspec.json.encode(document)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    click.echo(text)


def write_lines(rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as lines with tabs between the fields."""
    for row in rows:
        click.echo("\t".join(plain(field) for field in row))


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[int] = (0,)) -> None:
    """Write rows as a table for people.

    Args:
        heads: names of the columns; one called `status` is coloured.
        rows: texts.
        whole: columns that are never cut short.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        overflow = "fold" if number in whole else "ellipsis"
        table.add_column(head, no_wrap=number not in whole, overflow=overflow)  # type: ignore[arg-type]
    for row in rows:
        cells = (safe(cell) for cell in row)
        table.add_row(
            *(
                Text(cell, style=STYLES.get(cell, "") if head == "status" else "")
                for head, cell in zip(heads, cells, strict=True)
            )
        )
    write_drawn(table)


def write_drawn(*drawn: Any) -> None:
    """Write what rich draws."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False, soft_wrap=False).print(*drawn, sep="\n")


def safe(text: str) -> str:
    """Return a text without control characters, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def plain(value: Any) -> str:
    """Return a field of a line: nothing for None, RFC 3339 in UTC for a time, no tabs and line breaks within."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return safe(str(value))


def shortened(text: str, longest: int = LONGEST_VALUE) -> str:
    """Return a text that fits, with an ellipsis if it was cut."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def local(moment: datetime | None) -> str:
    """Return a time as people here read it."""
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def took(seconds: float) -> str:
    """Return a duration in the unit that says most about it."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
