"""Plans that are made once are right for any size of the tables: they follow indexes to what they look for.

A prepared statement keeps the plan that was made when its tables were empty, until they are analyzed. One that reads
"all there is" then reads a million rows soon, in every commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from perdure import sql
from perdure.store.database import SETTINGS
from tests import million_runs

GROWS: Final = "runs live steps messages ends events streams waits commands entities"
"""Tables that have a row for everything that happens."""
READS_ALL: Final = {
    "list_runs": "planned for the values it has",
    "count_runs": "planned for the values it has",
    "list_versions": "counts all there are",
    "list_queues": "counts all there are",
    "sweep": "looks at all that run, as find_orphans does",
    "find_orphans": "looks at all that run",
    "requeue_orphans": "takes all that ran",
    "look_at_schedules": "an index that only runs of schedules are in",
    "take_waiting_schedules": "an index that only runs of schedules are in",
    "busy_schedules": "an index that only runs of schedules are in",
    "find_trees": "an index that only past lives are in",
    "supersede_failed": "starts with an id that a failed run has",
    "find_dedups": "starts that others bar",
}
COMMANDS: Final = """
    list_audit find_queued find_cancelled find_doomed find_tree keys_of_id revive_failed forget_last_intents
    forget_last_failure forget_last_events why_waits look_at_runs restart_runs drop_waits_of_archived copy_messages
    delete_runs export_runs
"""
"""Rare, and planned for the values they have the first five times on a connection."""
SCANS: Final = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"}
OWNED_CLOCK: Final = {"advance_clock", "set_clock"}
"""Statements on a table that only tests have."""


@pytest.mark.parametrize("count", [0, 2000])
def test_no_plan_made_early_reads_the_whole_of_a_table(database_url: str, count: int) -> None:
    """Neither by a scan, nor by a subplan that reads a table once to look into it afterwards."""
    if count:
        million_runs.build(database_url, count)
    options = SETTINGS + " -c plan_cache_mode=force_generic_plan"
    with psycopg.connect(database_url, autocommit=True, options=options) as connection:
        reading = {
            name: sorted(found)
            for name, statement in sql.load("perdure").items()
            if name not in OWNED_CLOCK and (found := set(read_whole(connection, name, statement)))
        }
    assert not {
        name: tables for name, tables in reading.items() if name not in [*READS_ALL, *COMMANDS.split()]
    }


def read_whole(connection: psycopg.Connection[Any], name: str, statement: str) -> Iterator[str]:
    """The tables that the plan of a statement for any values reads without a condition for an index."""
    if not re.match(r"\s*(select|with|insert|update|delete)\b", statement):
        return
    parameters = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${parameters.index(found[1]) + 1}", statement)
    connection.execute(f"prepare {name} as {text.replace('%%', '%')}".encode())
    values = f"({', '.join(['null'] * len(parameters))})" if parameters else ""
    row = connection.execute(f"explain (format json) execute {name}{values}".encode()).fetchone()
    assert row is not None
    for node, table in walked(row[0][0]["Plan"]):
        if table in GROWS.split() and node["Node Type"] in SCANS and "Index Cond" not in node:
            yield table


def walked(node: dict[str, Any], table: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """A plan's nodes, each with the table it reads: of the scan of a bitmap this is its parent's."""
    table = node.get("Relation Name", table)
    yield node, table
    for below in node.get("Plans", ()):
        yield from walked(below, table)
