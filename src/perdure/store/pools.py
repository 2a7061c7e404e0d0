"""Connections for transaction steps, one pool for each colour; opened when the first step asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from perdure.store.connection import ALWAYS, AsyncStepConnection, StepConnection
from perdure.store.database import Database
from perdure.store.workers import SESSIONS


class Pools:
    """The two pools."""

    def __init__(self, database: Database, configure: Callable[[Any], None] | None) -> None:
        self._database, self._configure = database, configure
        self._lock = threading.Lock()
        self._pools: dict[bool, Any] = {}

    def get(self, *, is_async: bool) -> Any:
        """The pool of one colour."""
        with self._lock:
            if is_async not in self._pools:
                self._pools[is_async] = self._open(is_async=is_async)
            return self._pools[is_async]

    def has_async(self) -> bool:
        """Whether the asynchronous one has been used."""
        return True in self._pools

    def close(self) -> None:
        """Close the blocking one."""
        with self._lock:
            pool = self._pools.pop(False, None)
        if pool is not None:
            pool.close()

    async def close_async(self) -> None:
        """Close the asynchronous one, on its loop."""
        with self._lock:
            pool = self._pools.pop(True, None)
        if pool is not None:
            await pool.close()

    def _open(self, *, is_async: bool) -> Any:
        from psycopg_pool import AsyncConnectionPool, ConnectionPool

        options: dict[str, Any] = {
            "conninfo": self._database.url,
            "kwargs": {
                "autocommit": True,
                "prepare_threshold": None if self._database.pooler else 5,
                "application_name": "perdure transaction",
                "connect_timeout": 10,
                **ALWAYS,
            },
            "min_size": 1,
            "max_size": SESSIONS // 2,
            "open": False,
            "timeout": 30.0,
        }
        if is_async:
            pool: Any = _LazyAsyncPool(AsyncConnectionPool, options, self._configure)
        else:
            pool = ConnectionPool(connection_class=StepConnection, configure=self._configure, **options)
            pool.open()
        return pool


class _LazyAsyncPool:
    """An asynchronous pool that opens on the loop that first uses it."""

    def __init__(self, cls: Any, options: dict[str, Any], configure: Callable[[Any], None] | None) -> None:
        self._pool = cls(
            connection_class=AsyncStepConnection,
            configure=_in_thread(configure) if configure is not None else None,
            **options,
        )
        self._opened = False

    async def getconn(self) -> psycopg.AsyncConnection[Any]:
        """Take a connection."""
        if not self._opened:
            self._opened = True
            await self._pool.open()
        connection: psycopg.AsyncConnection[Any] = await self._pool.getconn()
        return connection

    async def putconn(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Give it back."""
        await self._pool.putconn(connection)

    async def close(self) -> None:
        """Close it."""
        if self._opened:
            await self._pool.close()


def _in_thread(
    configure: Callable[[Any], None],
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """The user's `configure` for an asynchronous connection: called, in a thread, with a blocking one over the same socket."""

    async def configured(connection: psycopg.AsyncConnection[Any]) -> None:
        borrowed = _Borrowed(connection.pgconn)
        borrowed.autocommit = True
        await asyncio.to_thread(configure, borrowed)

    return configured


class _Borrowed(psycopg.Connection[Any]):
    """A blocking connection over another's socket, which is not its to close."""

    def __del__(self, _warn: Any = None, /) -> None:
        """Leave the socket alone."""
