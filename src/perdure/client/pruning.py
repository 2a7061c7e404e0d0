"""Pruning by hand: the same walk as the pruner's, to its end, without its rests, and without its row in the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from perdure.client.choosing import Progress
from perdure.client.current import App
from perdure.client.managing import note_of
from perdure.client.operations import Operation, read
from perdure.retention import Pruned, Retention
from perdure.serial import Payload
from perdure.store.connection import Connection
from perdure.store.pruning import ANSWER_WITHIN, Place, Pruning, note_pruning

_PRUNED: Final = Payload.of(Pruned)


def pruning(
    app: App,
    retention: Retention | None,
    *,
    dry_run: bool,
    limit: int | None,
    reason: str | None,
    progress: Progress | None,
) -> Operation:
    """Delete trees that have ended and are kept no longer.

    Raises:
        ValueError: there is no retention, or the limit is no number of runs.
    """
    if retention is None:
        raise ValueError("there is no retention: give prune(Retention(...)), or open the app with retention=")
    if limit is not None and limit < 1:
        raise ValueError(f"limit= must be at least 1 run, not {limit}")
    note = note_of(app, reason)

    def work() -> Pruned:
        gone = _walked(app, retention, limit, progress, dry_run=dry_run)
        if gone.runs and not dry_run:
            note_pruning(app.database, note, retention, gone)
            app.changed()
        return gone

    return read("runs.prune", work, _PRUNED)


def _walked(
    app: App, retention: Retention, limit: int | None, progress: Progress | None, *, dry_run: bool
) -> Pruned:
    gone = Pruned(dry_run=dry_run)
    if retention.least is None:
        return gone

    def lend(work: Callable[[Connection], Any]) -> Any:
        return app.database.repeat(work, ANSWER_WITHIN)

    pruning, place = Pruning(app.database, retention, lend), Place()
    while gone.complete:
        page = pruning.page(place)
        most = None if limit is None else limit - gone.runs
        for some in pruning.prune(page.roots, most, dry_run=dry_run):
            gone += some
            if progress is not None and some.runs:
                progress(gone.runs)
        if page.last:
            break
        place = page.end
    return gone
