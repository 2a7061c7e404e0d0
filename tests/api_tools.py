"""What tests of the public API share: async tests as plain functions, and waiting until something is so.

A test that is a coroutine runs on an event loop of its own, as `asyncio.run` makes it, because that is what
users do; a plugin's loop would be one more thing between the test and the engine.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import psycopg

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a wait for something that must happen fails its test."""


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def until(check: Callable[[], T], within: float = PATIENCE) -> T:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not so within {within:g} s: {check}"
        pause.wait(0.02)
    return answer


async def until_true(check: Callable[[], Awaitable[T]], within: float = PATIENCE) -> T:
    """Ask again and again, on the loop, until the answer is true, and return it."""
    deadline = time.monotonic() + within
    while not (answer := await check()):
        assert time.monotonic() < deadline, f"not so within {within:g} s: {check}"
        await asyncio.sleep(0.02)
    return answer


def rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, asked on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []
