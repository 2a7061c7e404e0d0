"""Runs started in the transactions of asyncpg: with a business row, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from tests.api_tools import on_loop
from tests.outbox_tools import check_rolled_back, check_shipped_once, example, shop
from tests.servers import TestServer


class Refused(Exception):
    """What rolls a transaction back."""


@on_loop
async def test_asyncpg_starts_the_run_with_its_row(server: TestServer, database_url: str) -> None:
    """Rolled back there is neither, committed both, and the run is executed once."""
    place_order = example("## asyncpg").place_order
    with shop(database_url) as app:
        connection = await asyncpg.connect(server.tcp(database_url))
        try:
            with suppress(Refused):
                async with connection.transaction():
                    await place_order(connection, "Anna")
                    raise Refused
            check_rolled_back(database_url)
            async with connection.transaction():
                order = await place_order(connection, "Anna")
        finally:
            await connection.close()
        await asyncio.to_thread(check_shipped_once, app, database_url, order)


@on_loop
async def test_errors_have_their_code(server: TestServer, database_url: str) -> None:
    """Its errors tell the code of an error that is perdure's own."""
    with shop(database_url):
        connection = await asyncpg.connect(server.tcp(database_url))
        try:
            with pytest.raises(asyncpg.PostgresError, match="option foo is not known") as caught:
                await connection.execute("select perdure.start('x', '[]', '{\"foo\": 1}')")
            assert caught.value.sqlstate == "PD005"
        finally:
            await connection.close()
