"""A test's own clock: months pass at a word, and nothing happens while it stands still.

Every comparison with time in perdure's SQL goes through one function in its schema; this replaces it. Leases obey
it too: a worker whose clock stands still never dies, and one whose clock leaps may.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self

import psycopg

from perdure import sql
from perdure.models import Duration, seconds_of


class Clock:
    """The time of one schema, owned by a test; it stands still unless it is advanced.

    Args:
        database: URL of the database; perdure must have been opened on it before, or migrated.
        schema: perdure's schema in it.

    Example:
        with Clock(url) as clock:
            handle = billing.start("alice")
            clock.advance(timedelta(days=30))
    """

    def __init__(self, database: str, schema: str = "perdure") -> None:
        self._url = database
        self._statements = sql.load(schema)

    def __enter__(self) -> Self:
        self._script("own_clock")
        return self

    def __exit__(self, *error: object) -> None:
        self._script("give_back_clock")

    def advance(self, duration: Duration) -> datetime:
        """Let seconds (or a `timedelta`) pass; return the time then."""
        return self._move("advance_clock", seconds=seconds_of(duration, "advance(...)"))

    def set(self, moment: datetime) -> datetime:
        """Make it this time (an aware `datetime`); return it."""
        if moment.tzinfo is None:
            raise ValueError("set(...) takes an aware datetime")
        return self._move("set_clock", moment=moment)

    def _script(self, name: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(self._statements.plain(name))

    def _move(self, name: str, **parameters: object) -> datetime:
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute(self._statements[name], parameters).fetchone()
            connection.execute(self._statements["tell_clock"], ())
        if row is None:
            raise RuntimeError("the clock is not owned: use it as `with Clock(...) as clock:`")
        moment: datetime = row[0]
        return moment
