"""A million runs, made in SQL: mixed workflows, statuses, tags, queues and parents, a hundred of each moment.

By number `n`: every 50th is unfinished, every 100th of the others failed and every 200th was cancelled, every 10th has
tags, every 20th a parent, and every 10,000th is of a rare workflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import psycopg

from perdure.store.connection import Connection

MILLION = 1_000_000

BIRTHS = """
insert into perdure.runs (key, id, workflow, input, parent, queue, version, tags, worker, created, superseded)
select n, 'customer-' || n % 5000 || '-' || n,
       case when n % 10000 = 1 then 'shop.rare' else 'shop.flow_' || n % 17 end,
       '{"args": [1, "some input"]}', case when n % 20 = 3 then n - n % 1000 + 1 end,
       case when n % 5 = 0 then 'queue_' || n % 3 end, 'v' || n / 200000,
       case when n % 10 = 7 then jsonb_build_object('customer', n % 9973, 'vip', n % 3 = 0) end, n % 8,
       timestamptz '2026-01-01 00:00+00' + n / 100 * interval '1 second', n % 2000 = 1999
from generate_series(1, :count) n
"""
UNFINISHED = """
insert into perdure.live (key, workflow, status, worker, queue, arrival, ready, cancel, version, reason)
select n, 'shop.flow_' || n % 17, status, case when status = 3 then n % 8 end,
       case when n % 5 = 0 then 'queue_' || n % 3 else 'default' end, n, null,
       case when n % 5000 = 50 and status < 6 then 1 else 0 end, 'v' || n / 200000,
       case when status = 6 then 'its code is missing: part ' || n % 10 end
from generate_series(50, :count, 50) n, lateral (select 1 + (n / 50 % 20 + 3) / 4 as status) s
"""
ENDS = """
insert into perdure.ends (key, status, value, worker, finished)
select n, case when n % 2000 = 1999 then 10 when n % 100 = 77 then 8 when n % 200 = 78 then 9 else 7 end,
       case when n % 2000 = 1999 then convert_to((n + 1)::text, 'UTF8')
            when n % 100 = 77 then convert_to('{"name":"CardDeclined","module":"shop","message":"card '
                                              || n % 9973 || ' was declined"}', 'UTF8')
            else '{"total": 5}' end,
       n % 8, timestamptz '2026-01-01 00:05+00' + n / 100 * interval '1 second'
from generate_series(1, :count) n where n % 50 <> 0
"""


LOADED = """
select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index i
where indrelid in ('perdure.runs'::regclass, 'perdure.ends'::regclass, 'perdure.live'::regclass) and not indisprimary
"""


def build(url: str, count: int = MILLION) -> None:
    """Make so many runs in an empty schema of perdure, as autovacuum would have left them.

    The indexes are made again behind the rows, as they stand in the schema, which is faster than row by row.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        indexes = connection.execute(LOADED.encode()).fetchall()
        for name, _ in indexes:
            connection.execute(f"drop index {name}".encode())
        for statement in (BIRTHS, UNFINISHED, ENDS):
            connection.execute(statement.replace(":count", str(count)).encode())
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("vacuum (analyze) perdure.runs, perdure.live, perdure.ends")


class Plan(NamedTuple):
    """How a statement was carried out; buffers are pages of 8 kB, which do not depend on the machine."""

    scanned: frozenset[str]
    indexes: frozenset[str]
    buffers: int
    milliseconds: float
    rows: int


def planned(connection: Connection, statement: str, parameters: Mapping[str, Any], *, times: int = 2) -> Plan:
    """Carry out a statement, as planned for these very values; the last time, with warm caches, counts."""
    return [explained(connection, statement, parameters) for _ in range(times)][-1]


def explained(connection: Connection, statement: str, parameters: Mapping[str, Any] | None = None) -> Plan:
    """Carry out a statement once, and tell how."""
    text = b"explain (analyze, buffers, format json) " + statement.encode()
    row = connection.execute(text, parameters, binary=True, prepare=False).fetchone()
    assert row is not None
    [told] = row[0]
    nodes = list(_walked(told["Plan"]))
    return Plan(
        frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"),
        frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
        told["Plan"]["Shared Hit Blocks"] + told["Plan"]["Shared Read Blocks"],
        told["Planning Time"] + told["Execution Time"],
        told["Plan"]["Actual Rows"],
    )


def _walked(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _walked(below)
