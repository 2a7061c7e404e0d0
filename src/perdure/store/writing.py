"""What a journal needs of others: who knows how to write its batches, and who is told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from perdure.store.batch import Batch
from perdure.store.connection import Connection
from perdure.store.records import Ticket


class Writer(Protocol):
    """Knows how to write a batch: of records, or of commands."""

    def begin(self, connection: Connection, batch: Batch, /) -> None:
        """Send it without waiting, if that can be done; `write` waits for the answer then."""
        ...

    def write(self, connection: Connection, batch: Batch, lock_timeout: float, /) -> Sequence[Ticket] | None:
        """Write it, and set the outcome of each record; return what was left out, because somebody is in its way."""
        ...


@dataclass(frozen=True, slots=True)
class JournalHooks:
    """What a journal tells its owner, from whatever thread writes."""

    connect: Callable[..., Connection]
    fenced: Callable[[], None]
    committed: Callable[[Batch], None]
