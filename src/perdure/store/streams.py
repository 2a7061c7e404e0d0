"""Streams as their readers look for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure.store.arrays import Bigints, Texts
from perdure.store.database import Database

PAGE_ITEMS: Final = 500
"""Rows of one stream in one answer."""

Place = tuple[int, str, int]
Row = tuple[int, int, bytes]


def find_items(database: Database, wanted: Sequence[Place]) -> dict[Place, list[Row]]:
    """The next rows of streams, by run, key and the place to begin at: their place, kind and payload."""
    parameters = {
        "run": Bigints([run for run, _, _ in wanted]),
        "key": Texts([key for _, key, _ in wanted]),
        "place": Bigints([place for _, _, place in wanted]),
        "limit": PAGE_ITEMS,
    }
    found: dict[Place, list[Row]] = {}
    for run, key, asked, place, kind, value in database.run("find_stream_items", parameters):
        found.setdefault((run, key, asked), []).append((place, kind, bytes(value)))
    return found
