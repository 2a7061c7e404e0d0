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

_LEAST_LAST: Final = 30
"""Width that a table's last column has at least, if it needs it."""

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
    JSONL = "jsonl"
    ID = "id"

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


def write_json_list(documents: Iterable[Any], form: Form) -> None:
    """Write documents as one JSON array, or each as a line of its own (`jsonl`)."""
    import msgspec

    if form is Form.JSONL:
        for document in documents:
            click.echo(msgspec.json.encode(document))
    else:
        write_json(list(documents))


def say(text: str) -> None:
    """Tell people something, on stderr."""
    click.echo(f"perdure: {safe(text)}", err=True)


def write_lines(rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as lines with tabs between the fields."""
    for row in rows:
        click.echo("\t".join(plain(field) for field in row))


def write_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows as a table for people.

    Only the last column gives way to a narrow terminal: half an id is of no use, so a line that does not
    fit goes over the edge.

    Args:
        heads: names of the columns; the one called `status` is coloured.
        rows: texts.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[safe(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads[:-1]:
        table.add_column(head, no_wrap=True)
    table.add_column(heads[-1], overflow="fold")
    for row in cells:
        styles = (
            STYLES.get(cell, "") if head == "status" else "" for head, cell in zip(heads, row, strict=True)
        )
        table.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    widths = [max(map(len, column)) + 2 for column in zip(heads, *cells, strict=True)]
    write_drawn(table, width=sum(widths[:-1]) + min(widths[-1], _LEAST_LAST))


def terminal_width() -> int:
    """Columns of the terminal."""
    from rich.console import Console

    return Console().width


def write_drawn(drawn: Any, *, width: int = 0) -> None:
    """Write what rich draws, in the terminal's width, but in no less than this."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.size = (max(console.width, width), console.height)
    console.print(drawn, soft_wrap=False)


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
