"""Pruning a million runs: what it looks at and deletes is found by index, and a walk that keeps all of them costs seconds.

Bounds are counted in buffers, as in `test_runs_at_a_million.py`; the times are printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from perdure import Retention, sync
from perdure.store.arrays import Bigints
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.migrate import migrate
from perdure.store.pruning import BIRTHS_AT_ONCE, RUNS_AT_ONCE, TREES_AT_ONCE, Place, Pruning
from tests.api_tools import rows
from tests.million_runs import MILLION, Plan, build, planned
from tests.servers import TestServer

STEPS = """
insert into perdure.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
select n, s::text, s, 0, 1, 'work', false, '{"some": "result"}', 1, 0.1, n % 8
from generate_series(1, %s) n, generate_series(1, 2) s
"""
HISTORY = {"runs", "ends", "steps"}
KEPT = Retention(succeeded=86400, workflows={"shop.flow_1*": None, "shop.rare": 3600})
"""All of it is old; of seventeen workflows eight are kept for ever, and so are what failed or was cancelled."""


@pytest.fixture(scope="module")
def database(server: TestServer) -> Iterator[Database]:
    """A million runs with two steps each."""
    url = server.create_database()
    opened = Database(url)
    migrate(opened)
    build(url)
    rows(url, STEPS.replace("%s", str(MILLION)))
    rows(url, "vacuum (analyze) perdure.steps")
    yield opened
    opened.close()
    server.drop_database(url)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect("pruning", 300.0) as opened:
        yield opened


def parameters(pruning: Pruning, **more: Any) -> dict[str, Any]:
    return {**pruning._rules, "least": pruning._least, "limit": BIRTHS_AT_ONCE, **more}


def shown(what: str, plan: Plan) -> Plan:
    print(f"{what}: {plan.milliseconds:.1f} ms, {plan.buffers} buffers, by {', '.join(sorted(plan.indexes))}")
    return plan


def test_a_page_and_its_trees_are_found_by_index(database: Database, connection: Connection) -> None:
    """The first page and one in the middle; two hundred trees, some of fifty runs; and their rows, to be deleted."""
    pruning = Pruning(database, KEPT, lambda work: work(connection))
    statements = database.statements
    middle = rows(database.url, "select created, key from perdure.runs where key = %s", MILLION // 2)[0]
    for what, place in (("first page", Place()), ("middle", Place(*middle))):
        given = parameters(pruning, created=place.created, key=place.key)
        page = shown(what, planned(connection, statements["find_outdated"], given))
        assert not page.scanned & HISTORY
        assert page.buffers < 20_000
    roots = pruning.page(Place(*middle)).roots
    assert len(roots) > TREES_AT_ONCE
    given = parameters(pruning, keys=Bigints(roots[:TREES_AT_ONCE]))
    trees = shown("trees", planned(connection, statements["find_trees"], given))
    assert not trees.scanned & HISTORY
    assert trees.buffers < 20_000
    doomed = rows(database.url, "select key from perdure.ends order by key limit %s", RUNS_AT_ONCE)
    keys = {"keys": Bigints([key for (key,) in doomed])}
    for name in (
        "lock_outdated_ends",
        "lock_outdated_births",
        "count_outdated",
        "count_rows_of_runs",
        "delete_runs",
    ):
        with connection.transaction(force_rollback=True):
            plan = shown(name, planned(connection, statements[name], keys, times=1))
        assert not plan.scanned & HISTORY
        assert plan.buffers < 60_000


def test_a_walk_that_keeps_all_is_a_matter_of_seconds(database: Database) -> None:
    """Its rest is counted by births (`pruner.REST_FOR_EACH`): a hundred times what looking at them takes."""
    with sync.Perdure(database.url, worker=False) as app:
        began = time.perf_counter()
        gone = app.runs.prune(Retention(workflows={"shop.flow_1*": 10**9, "shop.none": 60}), dry_run=True)
        took = time.perf_counter() - began
    print(f"a walk of a million births: {took:.1f} s, {took / MILLION * 1e6:.1f} µs each")
    assert (gone.runs, gone.complete) == (0, True)


def test_a_hundred_thousand_go(database: Database) -> None:
    """All that may go of the births until then; nothing else, and none of an unfinished tree."""
    with sync.Perdure(database.url, worker=False) as app:
        there = MILLION
        began = time.perf_counter()
        gone = app.runs.prune(KEPT, limit=100_000)
        took = time.perf_counter() - began
    print(f"{gone.runs} runs in {gone.trees} trees: {took:.1f} s, {gone.runs / took:.0f} runs/s")
    assert 99_000 < gone.runs <= 100_000
    assert not gone.complete
    assert gone.rows["steps"] == 2 * gone.rows["runs"] == 2 * gone.rows["ends"] == 2 * gone.runs
    assert rows(database.url, "select count(*) from perdure.runs") == [(there - gone.runs,)]
    assert rows(database.url, "select count(*) from perdure.live") == [(MILLION // 50,)]
    assert not any(name.startswith("shop.flow_1") for name in gone.workflows)
    kept = rows(database.url, "select count(*) from perdure.ends where status in (8, 9)")
    assert kept == [(MILLION // 100 + MILLION // 200,)]
