"""The listener: hears other processes' hints. Behind a transaction pooler there is none; polling does."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from psycopg import sql

from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.worker.service import Service

LISTEN_SECONDS: Final = 5.0
"""After so long without a word the connection is looked at."""


class Listener(Service):
    """Calls `heard` with the payload of every hint."""

    name = "listener"

    def __init__(self, database: Database, heard: Callable[[str], None]) -> None:
        super().__init__(0.0)
        self._database, self._heard = database, heard
        self._connection: Connection | None = None
        self._ear, self._mouth = socket.socketpair()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening at once."""
        self._stopping.set()
        with suppress(OSError):
            self._mouth.send(b"!")
        super().stop(timeout)
        self._ear.close()
        self._mouth.close()

    def tick(self) -> float | None:
        """Listen for a while."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("listener")
            self._connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._database.channel)))
            # What was said while nobody listened, or came along with that answer.
            self._heard("0 work ended cancel schedule")
        # What came along with an earlier answer is in libpq's hands already; then wait for the socket, or for `stop`.
        self._hear(self._connection)
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.register(self._ear.fileno(), select.POLLIN)
        poll.poll(LISTEN_SECONDS * 1000)
        if not self.stopping:
            self._hear(self._connection)
        return 0.0

    def _hear(self, connection: Connection) -> None:
        # By libpq itself: psycopg has a generator for it that takes ten times as long, on the way of each hint.
        connection.pgconn.consume_input()
        while (notification := connection.pgconn.notifies()) is not None:
            self._heard(notification.extra.decode())

    def lost(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = lost
