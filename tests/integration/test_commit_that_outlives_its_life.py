"""Law 4: a transaction step's COMMIT that lost its connection may come to its end when its run is in another life already.

A worker that lives hands a run over, or parks it, and waits for no COMMIT that has had no answer. Here that COMMIT is a
stranger's transaction, which holds what an earlier life had written, the record among it.
"""

from __future__ import annotations

import pytest

from perdure import AsyncConnection, Connection, transaction, workflow
from perdure.serial import record_failure
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.protocol_tools import stranger

bodies: list[str] = []


@pytest.fixture
def url(database_url: str) -> str:
    bodies.clear()
    rows(database_url, "create table entries (text text primary key)")
    return database_url


@transaction(name="outlives.write", retry=None)
def write(conn: Connection) -> int:
    bodies.append("write")
    conn.execute("insert into entries values ('once')")
    return 1


@workflow(name="outlives.writes")
def writes() -> int:
    return write()


@transaction(name="outlives.write_async", retry=None)
async def write_async(conn: AsyncConnection) -> int:
    bodies.append("write")
    await conn.execute("insert into entries values ('once')")
    return 1


@workflow(name="outlives.writes_async")
async def writes_async() -> int:
    return await write_async()


@transaction(name="outlives.write_locked", retry=None, lock={"entries": "share row exclusive"})
def write_locked(conn: Connection) -> int:
    bodies.append("write")
    conn.execute("insert into entries values ('once')")
    return 1


@workflow(name="outlives.writes_locked")
def writes_locked() -> int:
    return write_locked()


RECORD = """
insert into perdure.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
select key, '1', 1, 0, 2, %s, %s, %s, 1, 0, 1 from perdure.runs
"""
WAITS_FOR_THE_ENTRY = (
    "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into entries%'"
)
WAITS_FOR_THE_TABLE = "select 1 from pg_locks where locktype = 'relation' and not granted"


def begun(url: str, workflow: str) -> str:
    """A run whose first life has ended without a record; it waits for a worker."""
    with Perdure(url, worker=False) as app:
        handle = app.start(workflow)
    rows(url, "update perdure.live set begun = true")
    return handle.id


@pytest.mark.parametrize("step", ["outlives.write", "outlives.write_async"])
def test_what_it_wrote_counts_though_it_came_after_the_body(step: str, url: str) -> None:
    """The body runs into what the COMMIT has written, for good; whether it fails is asked of the record."""
    id = begun(url, step.replace("write", "writes"))
    with stranger(url) as earlier:
        earlier.execute("insert into entries values ('once')")
        earlier.execute(RECORD, (step, False, b"7"))
        with Perdure(url) as app:
            until(lambda: rows(url, WAITS_FOR_THE_ENTRY))
            earlier.commit()
            assert app.handle(id).result(20) == 7
    assert bodies == ["write"]
    assert rows(url, "select text from entries") == [("once",)]


@pytest.mark.parametrize("failed", [False, True])
def test_what_it_recorded_is_found_before_the_body_where_tables_are_locked(failed: bool, url: str) -> None:
    """The next life waits for the lock until the COMMIT is done, and sees its record then."""
    id = begun(url, "outlives.writes_locked")
    with stranger(url) as earlier:
        earlier.execute("lock table entries in share row exclusive mode")
        value = record_failure(LookupError("refused"))[0] if failed else b"7"
        earlier.execute(RECORD, ("outlives.write_locked", failed, value))
        with Perdure(url) as app:
            until(lambda: rows(url, WAITS_FOR_THE_TABLE))
            earlier.commit()
            if failed:
                with pytest.raises(LookupError, match="refused"):
                    app.handle(id).result(20)
            else:
                assert app.handle(id).result(20) == 7
    assert bodies == []
