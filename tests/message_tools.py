"""What tests of messages, events and updates share: receivers in both colours, a stranger in the way, no hints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import perdure
from perdure import WaitTimeout, sync, workflow
from perdure.worker.hints import Hints
from perdure.worker.listener import Listener
from tests.api_tools import rows, until_true
from tests.protocol_tools import stranger

COLOURS = ("async", "blocking")


@workflow(name="mail.collect")
async def collect(count: int, topic: str = "t") -> list[Any]:
    return [await perdure.receive(topic) for _ in range(count)]


@workflow(name="mail.collect_blocking")
def collect_blocking(count: int, topic: str = "t") -> list[Any]:
    return [sync.receive(topic) for _ in range(count)]


@workflow(name="mail.send_each")
async def send_each(id: str, values: list[int], topic: str = "t") -> str:
    for value in values:
        await perdure.send(id, topic, value)
    return "sent"


@workflow(name="mail.send_each_blocking")
def send_each_blocking(id: str, values: list[int], topic: str = "t") -> str:
    for value in values:
        sync.send(id, topic, value)
    return "sent"


@workflow(name="mail.wait_a_little")
async def wait_a_little(seconds: float) -> list[Any]:
    seen = [await perdure.receive("t", timeout=seconds, default="nothing")]
    try:
        seen.append(await perdure.receive("t", timeout=seconds))
    except WaitTimeout as error:
        seen.append(str(error))
    return seen


@workflow(name="mail.wait_a_little_blocking")
def wait_a_little_blocking(seconds: float) -> list[Any]:
    seen = [sync.receive("t", timeout=seconds, default="nothing")]
    try:
        seen.append(sync.receive("t", timeout=seconds))
    except WaitTimeout as error:
        seen.append(str(error))
    return seen


COLLECT: dict[str, Any] = {"async": collect, "blocking": collect_blocking}
SEND: dict[str, Any] = {"async": send_each, "blocking": send_each_blocking}
WAIT_A_LITTLE: dict[str, Any] = {"async": wait_a_little, "blocking": wait_a_little_blocking}


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, and nobody hints: what is found is found in the tables."""
    monkeypatch.setattr(Listener, "start", lambda self: None)
    monkeypatch.setattr(Hints, "committed", lambda self, batch: None)
    for name in ("work", "ended", "cancel"):
        monkeypatch.setattr(Hints, name, lambda self: None)


@contextmanager
def holding(url: str, id: str, topic: str = "of a stranger") -> Iterator[psycopg.Connection[Any]]:
    """Somebody who has sent the run a message in a transaction that is still open; rolled back at the end."""
    with stranger(url) as connection:
        connection.execute("select perdure.send(%s, %s, '0')", (id, topic))
        yield connection


async def asked(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a statement, without standing in the loop's way."""
    return await asyncio.to_thread(rows, url, statement, *values)


async def waiting(url: str, count: int = 1) -> None:
    """Wait until so many runs are put away."""
    await until_true(
        lambda: asked(url, "select 1 from perdure.live where status = 4 having count(*) >= %s", count)
    )


def sent(url: str, topic: str = "t") -> list[Any]:
    """What stands in the table of messages of a topic, in order."""
    found = rows(
        url, "select convert_from(value, 'UTF8') from perdure.messages where topic = %s order by seq", topic
    )
    return [value for (value,) in found]
