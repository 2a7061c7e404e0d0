"""The pruner of a worker: it prunes by itself, shares the walk with others, and costs next to nothing while nothing is due."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from perdure import Retention, sync
from perdure.retention import Pruned
from perdure.store.database import Database
from perdure.store.pruning import BIRTHS_AT_ONCE, Pruning
from perdure.testing import Clock
from perdure.worker.pruner import REST_SECONDS, Pruner
from tests.api_tools import rows, until
from tests.protocol_tools import in_thread

pytestmark = pytest.mark.postgres

DAY = timedelta(days=1)
WEEK = Retention(succeeded=7 * DAY)


def old_runs(url: str, count: int, first: int = 1) -> None:
    """So many runs that ended eight days ago, after a step each."""
    with psycopg.connect(url) as connection:
        span = {"first": first, "last": first + count - 1}
        connection.execute(
            "insert into perdure.runs (key, id, workflow, input, created) select n, 'old-' || n, 'w', '[]', "
            "perdure.clock() - interval '9 days' from generate_series(%(first)s::bigint, %(last)s::bigint) n",
            span,
        )
        connection.execute(
            "insert into perdure.ends (key, status, value, finished) select n, 7, '1', "
            "perdure.clock() - interval '8 days' from generate_series(%(first)s::bigint, %(last)s::bigint) n",
            span,
        )
        connection.execute(
            "insert into perdure.steps (run, position, kind, name, failed, value, attempts, seconds, worker) "
            "select n, '1', 1, 's', false, '1', 1, 0, 1 from generate_series(%(first)s::bigint, %(last)s::bigint) n",
            span,
        )


def left(url: str) -> int:
    return int(rows(url, "select count(*) from perdure.runs")[0][0])


def pruner_of(app: sync.Perdure) -> Pruner:
    """The pruner of an app, once it has done its first walk."""
    pruner = app.engine.pruner
    assert pruner is not None
    until(lambda: walks(app.url or "") > 0)
    return pruner


def walks(url: str) -> int:
    return int(rows(url, "select coalesce(sum(walks), 0) from perdure.pruning")[0][0])


def test_a_worker_prunes_by_itself(database_url: str) -> None:
    """At its start, and again when the rest is over; what is young stays."""
    with sync.Perdure(database_url, worker=False):
        old_runs(database_url, 3)
    with sync.Perdure(database_url, retention=WEEK) as app:
        until(lambda: left(database_url) == 0)
        pruner = pruner_of(app)
        with Clock(database_url) as clock:
            old_runs(database_url, 3, first=10)
            rows(database_url, "update perdure.ends set finished = perdure.clock() where key = 12")
            clock.advance(REST_SECONDS + 1)
            pruner.wake()
            until(lambda: left(database_url) == 1)


def test_a_client_does_not_prune(database_url: str) -> None:
    with sync.Perdure(database_url, worker=False, retention=WEEK) as app:
        assert app.engine.pruner is None


def test_while_nothing_is_due_a_look_is_one_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each five minutes, and without a connection of its own."""
    with sync.Perdure(database_url, retention=WEEK) as app:
        pruner = pruner_of(app)
        until(
            lambda: not rows(database_url, "select 1 from pg_stat_activity where application_name ~ 'pruner'")
        )
        asked: list[str] = []
        run = Database.run

        def noted(self: Database, name: str, *arguments: Any, **named: Any) -> Any:
            if name in ("take_page", "begin_pruning"):
                asked.append(name)
            return run(self, name, *arguments, **named)

        monkeypatch.setattr(Database, "run", noted)
        assert pruner.tick() is None
        assert (asked, pruner.interval) == (["take_page"], 300.0)
        assert not rows(database_url, "select 1 from pg_stat_activity where application_name ~ 'pruner'")


def test_workers_share_the_walk(database_url: str) -> None:
    """Each tick takes the next page, whoever makes it, and the last one lets all rest."""
    with sync.Perdure(database_url, retention=WEEK) as one, sync.Perdure(database_url, retention=WEEK) as two:
        pruners = [pruner_of(one), pruner_of(two)]
        old_runs(database_url, 2 * BIRTHS_AT_ONCE + 10)
        with Clock(database_url) as clock:
            clock.advance(REST_SECONDS + 1)
            seen: list[int] = []
            for pruner in (pruners[0], pruners[1], pruners[1]):
                pruner.tick()
                seen.append(left(database_url))
            assert seen == [BIRTHS_AT_ONCE + 10, 10, 0]
            assert [pruner.tick() for pruner in pruners] == [None, None]


def test_two_at_the_same_page_delete_each_run_once(database_url: str) -> None:
    """Whoever comes second passes by what the first has locked, and counts nothing twice."""
    with sync.Perdure(database_url, worker=False) as app:
        old_runs(database_url, 900)

        def prune() -> int:
            return app.runs.prune(WEEK).runs

        both = [in_thread(prune), in_thread(prune)]
        again = app.runs.prune(WEEK).runs
        assert sum(each.result() for each in both) + again + app.runs.prune(WEEK).runs == 900
        assert left(database_url) == 0


def test_a_walk_of_a_worker_that_died_is_gone_on_with(database_url: str) -> None:
    """The page that it had taken is due again after a while, from where it began."""
    with sync.Perdure(database_url, retention=WEEK) as app:
        pruner = pruner_of(app)
        old_runs(database_url, 5)
        with Clock(database_url) as clock:
            clock.advance(REST_SECONDS + 1)
            taken = rows(
                database_url,
                "update perdure.pruning set due = perdure.clock() + interval '300 seconds' returning 1",
            )
            assert taken
            pruner.tick()
            assert left(database_url) == 5
            clock.advance(REST_SECONDS + 1)
            pruner.tick()
            assert left(database_url) == 0


def test_a_page_that_cannot_be_pruned_does_not_keep_the_others(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The walk goes on behind it, and comes back the next time."""
    with sync.Perdure(database_url, retention=WEEK) as app:
        pruner = pruner_of(app)
        old_runs(database_url, BIRTHS_AT_ONCE + 5)
        rows(
            database_url,
            "create function refuse() returns trigger language plpgsql as "
            "$$ begin if old.key = 7 then raise 'not this one'; end if; return old; end $$",
        )
        rows(
            database_url,
            "create trigger refuse before delete on perdure.runs for each row execute function refuse()",
        )
        with Clock(database_url) as clock, caplog.at_level(logging.WARNING):
            clock.advance(REST_SECONDS + 1)
            pruner.wake()
            until(lambda: walks(database_url) == 2)
            assert rows(database_url, "select count(*) from perdure.runs where key > %s", BIRTHS_AT_ONCE) == [
                (0,)
            ]
            assert rows(database_url, "select 1 from perdure.runs where key = 7")
            assert "pruner failed (1 in a row): not this one" in caplog.text
            rows(database_url, "drop trigger refuse on perdure.runs")
            clock.advance(REST_SECONDS + 1)
            pruner.wake()
            until(lambda: left(database_url) == 0)


def test_what_else_only_grows_is_forgotten_too(database_url: str) -> None:
    """Workers that are long gone, told commands that failed, walks by other rules; entities and the audit stay."""
    kept = Retention(succeeded=DAY, failed=2 * DAY)
    with sync.Perdure(database_url, worker=False):
        rows(
            database_url,
            "insert into perdure.workers_gone (id, name, host, pid, started, reason, ended) select n, 'w', 'h', 1, "
            "perdure.clock(), 'stopped', perdure.clock() - n * interval '20 days' from generate_series(1, 1500) n",
        )
        rows(
            database_url,
            "insert into perdure.told (id, type, key, command, args, told, error) select 'c' || n, 't', 'k', 'c', '[]', "
            "perdure.clock() - n * interval '1 day', case when n <> 3 then ''::bytea end from generate_series(1, 5) n",
        )
        rows(
            database_url,
            "insert into perdure.pruning (rules, due) values ('others', perdure.clock() - interval '31 days')",
        )
    with sync.Perdure(database_url, retention=kept) as app:
        pruner_of(app)
        assert rows(database_url, "select id from perdure.workers_gone where name = 'w'") == [(1,)]
        assert rows(database_url, "select id from perdure.told order by id") == [("c1",), ("c3",)]
        assert rows(database_url, "select count(*) from perdure.pruning") == [(1,)]


def test_an_answer_that_was_lost_is_not_counted_twice_and_not_forgotten(database_url: str) -> None:
    """The second try finds that all of it is gone, and says what the first one did."""
    with sync.Perdure(database_url, worker=False) as app:
        old_runs(database_url, 5)

        def twice(work: Any) -> Any:
            with app.database.borrow() as connection:
                work(connection)
                return work(connection)

        pruning = Pruning(app.database, WEEK, twice)
        counted = Pruned(5, 5, {"w": {"succeeded": 5}})
        [gone] = pruning.prune([1, 2, 3, 4, 5])
        assert (gone.runs, gone.trees, gone.workflows) == (counted.runs, counted.trees, counted.workflows)
        assert gone.rows["steps"] == 5
