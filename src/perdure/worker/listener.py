"""The listener: hears other processes' hints. Behind a transaction pooler there is none; polling does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from psycopg import sql

from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.worker.service import Service

LISTEN_SECONDS: Final = 1.0
"""The longest that stopping has to wait for it."""


class Listener(Service):
    """Calls `heard` with the payload of every hint."""

    name = "listener"

    def __init__(self, database: Database, heard: Callable[[str], None]) -> None:
        super().__init__(0.0)
        self._database, self._heard = database, heard
        self._connection: Connection | None = None

    def tick(self) -> float | None:
        """Listen for a while."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("listener")
            self._connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._database.channel)))
            self._heard("work ended cancel")  # what was said while nobody listened
        for notification in self._connection.notifies(timeout=LISTEN_SECONDS):
            self._heard(notification.payload)
            if self.stopping:
                break
        return 0.0

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost
