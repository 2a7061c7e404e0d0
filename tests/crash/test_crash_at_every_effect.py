"""A worker that crashes at any durable effect costs nothing but time.

One run of `tests.crash_walk` has plain, retried, failing, transactional and concurrent steps and a child. For every
effect of it, a worker dies before it or after it, or loses the answer to it and lives on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest

from perdure.store.database import Database
from perdure.store.migrate import migrate
from tests.crash_tools import EffectProxy, Mode, Workers
from tests.crash_walk import BOOKED, EXPECTED, TABLES
from tests.servers import TestServer

AT_ONCE = 6
MOST_EFFECTS = 60
Places = set[tuple[str, str]]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Where worker processes come from."""
    mother = Workers()
    yield mother
    mother.close()


@pytest.fixture(scope="module")
def template(server: TestServer) -> Iterator[str]:
    """The name of a database that is ready to be copied."""
    url = server.create_database()
    database = Database(url)
    migrate(database)
    database.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        row = connection.execute("select current_database()").fetchone()
    assert row is not None
    yield row[0]
    server.drop_database(url)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["before", "after", "lost"])
@pytest.mark.parametrize("colour", ["async", "blocking"])
def test_a_crash_at_any_effect_changes_nothing(
    server: TestServer, template: str, workers: Workers, colour: str, mode: Mode
) -> None:
    """Same result, no transaction twice, no recorded step again, no body before what it depends on is safe."""
    effects = Case(server, template, workers, colour, mode, 0).check()
    assert effects >= 12, "the proxy does not see what it should"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cases = [Case(server, template, workers, colour, mode, at) for at in range(1, effects + 1)]
        fired = [count >= case.at for case, count in zip(cases, pool.map(Case.check, cases), strict=True)]
    assert sum(fired) >= effects - 3, "batches differ from run to run, but not so much"


@dataclass(frozen=True)
class Case:
    """One run with one accident."""

    server: TestServer
    template: str
    workers: Workers
    colour: str
    mode: Mode
    at: int

    def check(self) -> int:
        """Go through it; return how many effects the first worker had."""
        url = self.server.create_database(template=self.template)
        direct = self.server.tcp(url) + "?sslmode=disable&gssencmode=disable"
        known, victim = threading.Event(), [0]

        def crash() -> None:
            assert known.wait(30)
            os.kill(victim[0], signal.SIGKILL)

        proxy = EffectProxy(self.server.host, self.server.port, self.at, self.mode, crash)
        try:
            through = direct.replace(f":{self.server.port}/", f":{proxy.port}/")
            victim[0] = self.workers.start(url=through, own=direct, colour=self.colour)
            known.set()
            said = self.workers.outcome(victim[0])
            if not said:
                assert proxy.fired.wait(10), "the worker died by itself"
                recorded, begun = self.left_behind(url)
                said = self.workers.outcome(self.workers.start(url=direct, own=direct, colour=self.colour))
                self.check_bodies(url, recorded, begun)
            else:
                self.check_each_body_once(url)
            assert said == {"result": EXPECTED}, f"at effect {self.at}"
            self.check_ledger(url)
            return proxy.count
        finally:
            proxy.close()
            self.server.drop_database(url)

    def left_behind(self, url: str) -> tuple[Places, list[tuple[str, str, int]]]:
        """What the dead worker had recorded, and which bodies it had begun, once its backends are gone."""
        with psycopg.connect(url, autocommit=True) as connection:
            pause = threading.Event()
            while connection.execute(
                "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            ).fetchone():
                pause.wait(0.01)
            recorded = places_recorded(connection)
            begun = [
                (run, position, count)
                for run, position, count in connection.execute(
                    "select run, position, count(*) from calls group by run, position"
                )
            ]
        for run, position, _ in begun:
            if position.isdigit():
                before = {(run, str(number)) for number in range(1, int(position))}
                assert before <= recorded, "a body began before the record that precedes it was safe"
        return recorded, begun

    def check_bodies(self, url: str, recorded: Places, begun: list[tuple[str, str, int]]) -> None:
        """What was recorded when the worker died was not called again; what was not, was."""
        with psycopg.connect(url, autocommit=True) as connection:
            calls = {
                (run, position): count
                for run, position, count in connection.execute(
                    "select run, position, count(*) from calls group by run, position"
                )
            }
        for run, position, count in begun:
            if (run, position) in recorded:
                assert calls[run, position] == count, f"{position} was recorded, and ran again"
        assert len({run for run, _ in calls}) == 2

    def check_each_body_once(self, url: str) -> None:
        """A worker that lives never calls a body twice."""
        with psycopg.connect(url, autocommit=True) as connection:
            twice = connection.execute(
                "select name, attempt, count(*) from calls group by run, position, name, attempt having count(*) > 1"
            ).fetchall()
        assert twice == []

    def check_ledger(self, url: str) -> None:
        """Every transaction has left its row once."""
        with psycopg.connect(url, autocommit=True) as connection:
            rows = connection.execute("select name from ledger order by name").fetchall()
            ends = connection.execute("select count(*) from perdure.ends where status = 7").fetchone()
        assert [name for (name,) in rows] == BOOKED
        assert ends == (2,), "both runs have succeeded"


def places_recorded(connection: psycopg.Connection[tuple[object, ...]]) -> Places:
    """Every recorded step as bodies call themselves: the run in hexadecimal, behind the database's mark."""
    rows = connection.execute(
        "select right(replace(i.id::text, '-', ''), 12) || '-' || to_hex(s.run), s.position "
        "from perdure.steps s, perdure.identity i"
    ).fetchall()
    return {(str(run), str(position)) for run, position in rows}
