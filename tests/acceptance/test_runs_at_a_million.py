"""Finding runs among a million: each filter reads little, the first page and a deep one, and says how long it took.

What is bounded is counted in buffers (pages of 8 kB that the plan touches), which do not depend on the machine: a scan of
all runs is some 17,000 of them, one of all ends 8,000. The filters that scan are named here as in the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.models import RunFilter
from perdure.store import filters, runs
from perdure.store.database import Database
from perdure.store.migrate import migrate
from tests.million_runs import MILLION, Plan, build
from tests.million_runs import planned as explained
from tests.servers import TestServer

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


# name: filter, how many match, the most buffers for a page, the most for the count (None: it scans)
FOUND: dict[str, tuple[dict[str, Any], int, int, int | None]] = {
    "nothing": ({}, 999_500, 1_500, None),
    "ids": ({"ids": ["customer-42-42", "customer-43-43"]}, 2, 60, 20),
    "prefix": ({"prefix": "customer-42-"}, 200, 1_500, 500),
    "wide prefix": ({"prefix": "customer-4"}, 222_100, 1_500, None),
    "scheduled": ({"status": "scheduled"}, 1_000, 30_000, 30_000),
    "running": ({"status": "running"}, 4_000, 30_000, 30_000),
    "cancelling": ({"status": "cancelling"}, 4_200, 30_000, 30_000),
    "parked": ({"status": "parked"}, 3_000, 30_000, 30_000),
    "failed": ({"status": "failed"}, 10_000, 60_000, 60_000),
    "cancelled": ({"status": "cancelled"}, 5_000, 60_000, 60_000),
    "succeeded": ({"status": "succeeded"}, 964_500, 2_500, None),
    "workflow": ({"workflow": "shop.flow_3"}, 58_788, 1_500, None),
    "rare workflow": ({"workflow": "shop.rare"}, 100, 1_500, 500),
    "no workflow": ({"workflow": "shop.none"}, 0, 20, 20),
    "tags": ({"tags": {"customer": 7}}, 11, 500, 100),
    "common tag": ({"tags": {"vip": True}}, 33_333, 3_000, None),
    "parent": ({"parent": "customer-1001-601001"}, 50, 1_500, 500),
    "nobody's child": ({"parent": "nobody"}, 0, 20, 20),
    "created after": ({"created_after": after(9_990)}, 1_000, 1_500, 500),
    "created before": ({"created_before": after(10)}, 999, 1_500, 500),
    "finished after": ({"finished_after": after(10_290)}, 979, 8_000, 8_000),
    "finished before": ({"finished_before": after(310)}, 980, 8_000, 8_000),
    "error": ({"error": "card 77 was"}, 2, 12_000, 12_000),
    "failed of a workflow": ({"status": "failed", "workflow": "shop.flow_3"}, 589, 60_000, 60_000),
}


@pytest.fixture(scope="module")
def database(server: TestServer) -> Iterator[Database]:
    """A million runs."""
    url = server.create_database()
    opened = Database(url)
    migrate(opened)
    build(url)
    yield opened
    opened.close()
    server.drop_database(url)


def planned(database: Database, name: str, where: RunFilter) -> Plan:
    """Carry out one of the two statements as `store.runs` does."""
    parents = None
    if where.parent is not None:
        parents = [key for (key,) in database.run("keys_of_id", {"id": where.parent})]
    with database.borrow() as connection:
        return explained(connection, database.statements[name], filters.parameters(where, parents))


@pytest.mark.parametrize("name", FOUND)
def test_a_filter_reads_little(name: str, database: Database) -> None:
    """A page of a hundred, the first and one in the middle, and the count where it can: by index, within a bound."""
    fields, matches, most, most_of_count = FOUND[name]
    where = RunFilter(**fields)
    first = planned(database, "list_runs", where)
    plans = {"first page": first}
    if matches > 200:
        page = runs.list_runs(database, RunFilter(**fields, limit=min(10_000, matches // 2)))
        plans["deep page"] = planned(database, "list_runs", RunFilter(**fields, cursor=page[-1].cursor))
    count = planned(database, "count_runs", where)
    for what, plan in [*plans.items(), ("count", count)]:
        print(f"{name}, {what}: {plan.milliseconds:.1f} ms, {plan.buffers} buffers")
    assert runs.count_runs(database, where) == matches
    for plan in plans.values():
        assert plan.rows == min(100, matches)
        assert not plan.scanned & {"runs", "ends"}
        assert plan.buffers <= most
    if most_of_count is not None:
        assert not count.scanned & {"runs", "ends"}
        assert count.buffers <= most_of_count


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ({"queue": "queue_1"}, 66_667),
        ({"version": "v2"}, 199_900),
        ({"worker": 3}, None),
        ({"status": ["failed", "parked"]}, 13_000),
    ],
    ids=str,
)
def test_filters_that_scan_stop_at_a_page(
    fields: dict[str, Any], matches: int | None, database: Database
) -> None:
    """Without an index a list reads the newest until it has its page; where many match, that is soon."""
    plan = planned(database, "list_runs", RunFilter(**fields))
    print(f"{fields}: {plan.milliseconds:.1f} ms, {plan.buffers} buffers")
    assert plan.rows == 100
    if matches is not None:
        assert runs.count_runs(database, RunFilter(**fields)) == matches


def test_one_moment_has_pages_too(database: Database) -> None:
    """A hundred runs share each moment, and a hundred thousand one: every run once, in order, a page reads a page."""
    with database.borrow() as connection:
        connection.execute(
            b"insert into perdure.runs (key, id, workflow, input, created) select n, 'crowd-' || n, 'crowd', '[]', "
            b"timestamptz '2027-01-01 00:00+00' from generate_series(%s::bigint, %s::bigint) n",
            (MILLION + 1, MILLION + 100_000),
        )
        connection.execute(
            b"insert into perdure.live (key, workflow, status) select key, workflow, 2 from perdure.runs "
            b"where key > %s",
            (MILLION,),
        )
        connection.execute(b"analyze perdure.runs, perdure.live")
    seen: list[int] = []
    cursor = None
    for _ in range(5):
        page = runs.list_runs(database, RunFilter(workflow="crowd", limit=1_000, cursor=cursor))
        seen += [run.key for run in page]
        cursor = page[-1].cursor
    assert seen == list(range(MILLION + 100_000, MILLION + 95_000, -1))
    plan = planned(database, "list_runs", RunFilter(cursor=cursor))
    assert plan.buffers < 2_500
