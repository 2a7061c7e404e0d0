"""A worker that dies at any durable effect of a run that is undone, or goes on as new, changes nothing but the time.

For every effect a worker is killed with it not sent or just committed, and another one goes on; or the answer is lost,
and the same one does.
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from perdure.store.database import Database
from perdure.store.migrate import migrate
from tests import crash_tools
from tests.crash_tools import ROOT, EffectProxy, Mode
from tests.crash_walk import TABLES
from tests.servers import TestServer
from tests.undo_walk import LIVES

AT_ONCE = 6
CALLS = "select run, position, count(*) from calls group by run, position"
RECORDED = (
    "select right(replace(i.id::text, '-', ''), 12) || '-' || to_hex(s.run), s.position "
    "from perdure.steps s, perdure.identity i"
)
TOLD = (
    "select convert_from(value, 'UTF8') from perdure.steps where position not like '!undo/%' "
    "and name ~ 'walk.(do|pay)' order by grp, ord"
)
UNDONE = (
    "select convert_from(value, 'UTF8') from perdure.steps where position like '!undo/%' order by grp, ord"
)
SAGA = "select convert_from(value, 'UTF8') from perdure.steps where name ~ 'walk.(undo|give_back)' order by grp, ord"
LEFT = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class Workers(crash_tools.Workers):
    """Workers that run `tests.undo_walk`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.undo_walk"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._said: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pids: dict[int, queue.Queue[int]] = {}
        threading.Thread(target=self._listen, daemon=True).start()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
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
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        *itertools.product(["fails", "onward"], ["before", "after", "lost"]),
        *itertools.product(["cancelled", "saga"], ["before", "after"]),
    ],
)
@pytest.mark.parametrize("colour", ["async", "blocking"])
def test_a_kill_at_any_effect_changes_nothing(
    server: TestServer, template: str, workers: Workers, colour: str, how: str, mode: Mode
) -> None:
    """Undone newest first, each once, a transaction exactly once; of a run that goes on as new each life once."""
    effects = Case(server, template, workers, colour, how, mode, 0).check()
    assert effects >= 4, "the proxy does not see what it should"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cases = [Case(server, template, workers, colour, how, mode, at) for at in range(1, effects + 1)]
        fired = [count >= case.at for case, count in zip(cases, pool.map(Case.check, cases), strict=True)]
    assert sum(fired) >= effects - 3, "batches differ from run to run, but not so much"


@dataclass(frozen=True)
class Case:
    """One run with one accident."""

    server: TestServer
    template: str
    workers: Workers
    colour: str
    how: str
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
        walk = f"{self.colour} {self.how}"
        try:
            through = direct.replace(f":{self.server.port}/", f":{proxy.port}/")
            victim[0] = self.workers.start(url=through, own=direct, colour=walk)
            known.set()
            said = self.workers.outcome(victim[0])
            with psycopg.connect(url, autocommit=True) as connection:
                if not said:
                    assert proxy.fired.wait(10), "the worker died by itself"
                    self.check_the_second(connection, direct, walk)
                else:
                    self.check_result(said)
                self.check_record(connection)
            return proxy.count
        finally:
            proxy.close()
            self.server.drop_database(url)

    def check_the_second(self, connection: psycopg.Connection[Any], direct: str, walk: str) -> None:
        """Another worker goes on: what was recorded is not called again."""
        pause = threading.Event()
        while connection.execute(LEFT).fetchone():
            pause.wait(0.01)
        recorded = set(connection.execute(RECORDED))
        before = {(run, place): count for run, place, count in connection.execute(CALLS)}
        self.check_result(self.workers.outcome(self.workers.start(url=direct, own=direct, colour=walk)))
        after = {(run, place): count for run, place, count in connection.execute(CALLS)}
        again = [place for place, count in before.items() if place in recorded and after[place] != count]
        assert not again, f"at effect {self.at}: recorded, and called again"

    def check_result(self, said: dict[str, Any]) -> None:
        wanted: dict[str, object] = {
            "fails": "LookupError('in the end')",
            "saga": "LookupError('in the end')",
            "onward": [f"life {life}" for life in range(1, LIVES + 1)],
        }
        found = said.get("result", said)
        if self.how == "cancelled":
            assert str(found).startswith("WorkflowCancelled("), f"at effect {self.at}: {found}"
        else:
            assert found == wanted[self.how], f"at effect {self.at}"

    def check_record(self, connection: psycopg.Connection[Any]) -> None:
        ledger = [name for (name,) in connection.execute("select name from ledger")]
        if self.how == "onward":
            found = connection.execute("select count(*), count(distinct key) from perdure.runs").fetchone()
            assert found == (LIVES, LIVES)
            ends = [
                status for (status,) in connection.execute("select status from perdure.ends order by status")
            ]
            assert ends == [7, *[10] * (LIVES - 1)]
            return
        if self.how == "saga":
            undone = [value.strip('"') for (value,) in connection.execute(SAGA)]
            assert undone == ["undo last", "undo paid", "undo first"], f"at effect {self.at}"
            assert ledger == ["paid"]
            return
        told = [value.strip('"') for (value,) in connection.execute(TOLD)]
        undone = [value.strip('"').removeprefix("undo ") for (value,) in connection.execute(UNDONE)]
        assert sorted(told) == ["first", "left", "paid", "right"]
        assert undone == told[::-1], f"at effect {self.at}"
        assert ledger == ["paid"]
