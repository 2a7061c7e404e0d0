"""The tables of a comparison: in the terminal, and as `RESULTS.md`.

Every figure stands beside how many times better perdure is than it, in the same colour where there are two:
ratios survive a change of machine, absolute figures do not. Where a peer is ahead, that stands first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.contestants.registry import ALL, PEERS, PERDURE
from benchmarks.measures import GROUPS, Row
from benchmarks.results import Results, ahead

_TWO_ROWS: Final = "A start is a row of `runs` and one of `live`, with six index entries: some 20 us of the server, and 12 of Python."
_JOBS: Final = (
    "It takes and ends jobs a thousand at a time; a run here gets a task of its own, and a record of its end."
)
_MESSAGES: Final = (
    "A message is a commit of its own, a look for it, and the record that it was received, each waited for."
)
_TRANSACTION: Final = (
    "A transaction step takes the fence twice, looks for its record and writes it: no more round trips than a bare "
    "transaction, but its two statements cost the server more than the body's one."
)
_START: Final = (
    "A start waits for its commit, NOTIFY, a claim that is a transaction of its own, and the event loop."
)
_COLD: Final = "Besides the import, an app opens connections, looks at the schema and at its limits, and registers a worker."
_WAITING: Final = (
    "A run that is put away leaves nothing: what is measured is how much memory the busiest moment took, which Python "
    "keeps for the next. 100,000 take hardly more."
)
_IMPORT: Final = "perdure imports all of its modules at once, and psycopg and asyncio with them."
_QUEUES: Final = ("pgqueuer", "awa", "procrastinate", "oban", "absurd")
SPREAD: Final = 1.5
REASONS: Final[dict[tuple[str, str], str]] = {
    **{(row, peer): _TWO_ROWS for row in ("enqueue-one", "enqueue-bulk") for peer in _QUEUES},
    **{(row, "pgqueuer"): _JOBS for row in ("bare-1", "bare-2")},
    **{
        (f"{what}-{centile}", peer): _MESSAGES
        for what in ("send", "event")
        for centile in (50, 99)
        for peer in ("Restate", "absurd", "Temporal")
    },
    ("transaction", "absurd"): _TRANSACTION,
    **{(f"start-{centile}", peer): _START for centile in (50, 99) for peer in (*_QUEUES, "Restate")},
    **{("import", peer.name): _IMPORT for peer in PEERS},
    **{("cold", peer.name): _COLD for peer in PEERS},
    **{("waiting-10k", peer.name): _WAITING for peer in PEERS},
}
"""Why a peer is ahead, by row and peer, as far as that is known of our side; nobody has profiled the peers."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table, before it is known how it will be shown."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets(results: Results) -> Iterator[Sheet]:
    """All tables, those about CPU time last."""
    for group in GROUPS:
        columns = sorted(results.columns(group), key=_place)
        if columns:
            heads = ["", *(f"{row.label}, {row.unit}" for row in group.rows)]
            yield Sheet(
                group.title,
                heads,
                [[column, *(_cell(results, row, column) for row in group.rows)] for column in columns],
            )
    for group in GROUPS:
        columns = sorted(results.columns(group), key=_place)
        rows = [[column, *(_cpu(results, row, column) for row in group.rows)] for column in columns]
        rows = [row for row in rows if any(row[1:])]
        if rows:
            heads = ["", *(row.label for row in group.rows)]
            yield Sheet(f"CPU time of a run, us, its own process + the server: {group.title}", heads, rows)


def show(console: Console, results: Results) -> None:
    """Print it all."""
    console.print("\n".join(results.about.values()), highlight=False)
    for line in leads(results):
        console.print(line, highlight=False)
    for sheet in sheets(results):
        table = Table(
            title=sheet.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for place, head in enumerate(sheet.heads):
            table.add_column(head, justify="right" if place else "left", no_wrap=not place)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    for note in results.notes:
        console.print(note, style="dim", highlight=False)


def markdown(results: Results, command: str) -> str:
    """The same as a page."""
    lines = ["# Results", "", *(f"{line}  " for line in results.about.values()), f"`{command}`", ""]
    lines += [
        "Behind each figure: how many times better perdure is than it, in the same colour where there are two. Medians of",
        "the rounds; what is done in each measure: [contestants/README.md](contestants/README.md).",
        "",
        "## Where a peer is ahead",
        "",
    ]
    lines += [f"- {line}" for line in leads(results)] or ["Nowhere in this run."]
    for sheet in sheets(results):
        lines += ["", f"## {sheet.title}", "", _line(sheet.heads)]
        lines += [_line(["---", *("---:" for _ in sheet.heads[1:])])]
        lines += [_line(row) for row in sheet.rows]
    lines += ["", f"## Figures whose rounds differ by more than {SPREAD} times: lowest to highest", ""]
    lines += [f"- {line}" for line in spreads(results)]
    lines += ["", "## Notes", "", *(f"- {note}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def leads(results: Results) -> Iterator[str]:
    """A line for each row in which a peer is ahead of perdure, with the reason."""
    for row, column, theirs, own, ours in ahead(results, PERDURE.name, [peer.name for peer in PEERS]):
        group = next(group for group in GROUPS if row in group.rows)
        reason = REASONS.get((row.key, column.partition(",")[0]), "the reason has not been looked for yet")
        yield (
            f"{group.title}; {row.label}: {column} {figure(theirs)} {row.unit}, {own} {figure(ours)}. {reason}"
        )


def spreads(results: Results) -> Iterator[str]:
    """A line for each row of which the rounds differ much, with those of whom they do."""
    for group in GROUPS:
        for row in group.rows:
            ranges = {c: results.range(row, c) for c in sorted(results.columns(group), key=_place)}
            far = {c: found for c, found in ranges.items() if found and found[1] > SPREAD * found[0]}
            if far:
                told = "; ".join(f"{c} {figure(low)} to {figure(high)}" for c, (low, high) in far.items())
                yield f"{group.title}; {row.label}, {row.unit}: {told}"


def figure(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    """Two digits: the rounds differ too much for more."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(results: Results, row: Row, column: str) -> str:
    value = results.median(row, column)
    if value is None:
        return ""
    contestant, _, colour = column.partition(", ")
    if contestant == PERDURE.name:
        return figure(value)
    own = results.median(row, f"{PERDURE.name}, {colour}") if colour else None
    if own is None:
        best = results.best(row, PERDURE.name)
        own = best[1] if best else None
    if own is None:
        return figure(value)
    return f"{figure(value)} (x {_ratio(row.times_better(own, value))})"


def _cpu(results: Results, row: Row, column: str) -> str:
    spent = results.cpu(row, column)
    return f"{spent[0]:,.0f} + {spent[1]:,.0f}" if spent else ""


def _place(column: str) -> int:
    """Perdure first, then the limits, then the peers, as in the registry."""
    names = [contestant.name for contestant in ALL]
    return names.index(column.partition(",")[0])
