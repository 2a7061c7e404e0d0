"""Runs started in the transactions of SQLAlchemy's sessions: with a business row, or not at all, in both colours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.api_tools import on_loop, rows
from tests.outbox_tools import check_rolled_back, check_shipped_once, example, shop
from tests.servers import TestServer


class Refused(Exception):
    """What rolls a session back."""


def address(server: TestServer, url: str, driver: str) -> str:
    return server.tcp(url).replace("postgresql:", f"postgresql+{driver}:")


def test_a_session_starts_the_run_with_its_row(server: TestServer, database_url: str) -> None:
    """Rolled back there is neither, committed both, and the run is executed once."""
    place_order = example("## SQLAlchemy").place_order
    engine = create_engine(address(server, database_url, "psycopg"))
    try:
        with shop(database_url) as app:
            with suppress(Refused), Session(engine) as session, session.begin():
                place_order(session, "Anna")
                raise Refused
            check_rolled_back(database_url)
            with Session(engine) as session, session.begin():
                order = place_order(session, "Anna")
                assert rows(database_url, "select * from perdure.runs") == []
            check_shipped_once(app, database_url, order)
    finally:
        engine.dispose()


def test_a_savepoint_that_is_rolled_back_takes_the_start_along(server: TestServer, database_url: str) -> None:
    """What a nested transaction started is gone with it; what the outer one started stays."""
    place_order = example("## SQLAlchemy").place_order
    engine = create_engine(address(server, database_url, "psycopg"))
    try:
        with shop(database_url) as app:
            with Session(engine) as session, session.begin():
                with suppress(Refused), session.begin_nested():
                    place_order(session, "Bert")
                    raise Refused
                order = place_order(session, "Anna")
            check_shipped_once(app, database_url, order)
    finally:
        engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@on_loop
async def test_an_async_session_does_too(server: TestServer, database_url: str, driver: str) -> None:
    """The same for `AsyncSession`, on either driver."""
    place_order = example("## SQLAlchemy, async").place_order
    engine = create_async_engine(address(server, database_url, driver))
    with shop(database_url) as app:
        try:
            async with AsyncSession(engine) as session:
                await session.begin()
                await place_order(session, "Anna")
                await session.rollback()
                check_rolled_back(database_url)
                order = await place_order(session, "Anna")
                await session.commit()
        finally:
            await engine.dispose()
        await asyncio.to_thread(check_shipped_once, app, database_url, order)
