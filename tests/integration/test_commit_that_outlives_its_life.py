"""Law 4: a transaction step's COMMIT that lost its connection may come to its end when its run is in another life already.

A worker that lives hands a run over, or parks it, and waits for no COMMIT that has had no answer. Here that COMMIT is a
stranger's transaction, which holds what an earlier life had written, the record among it.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from perdure import AsyncConnection, Connection, step, transaction, workflow
from perdure.serial import record_failure
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.protocol_tools import stranger

bodies: list[str] = []
door = threading.Event()
MANY = 100


@pytest.fixture
def url(database_url: str) -> str:
    bodies.clear()
    rows(database_url, "create table entries (text text primary key)")
    return database_url


def _once(conn: Connection) -> int:
    bodies.append("write")
    conn.execute("insert into entries values ('once')")
    return 1


write = transaction(name="outlives.write", retry=None)(_once)
write_locked = transaction(name="outlives.write_locked", retry=None, lock={"entries": "share row exclusive"})(
    _once
)


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


@workflow(name="outlives.writes_locked")
def writes_locked() -> int:
    return write_locked()


RECORD = """
insert into perdure.steps (run, position, grp, ord, kind, name, failed, value, attempts, seconds, worker)
select key, %s, 1, 0, 2, %s, %s, %s, 1, 0, 1 from perdure.runs
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


@pytest.mark.parametrize("name", ["outlives.write", "outlives.write_async"])
def test_what_it_wrote_counts_though_it_came_after_the_body(name: str, url: str) -> None:
    """The body runs into what the COMMIT has written, for good; whether it fails is asked of the record."""
    id = begun(url, name.replace("write", "writes"))
    with stranger(url) as earlier:
        earlier.execute("insert into entries values ('once')")
        earlier.execute(RECORD, ("1", name, False, b"7"))
        with Perdure(url) as app:
            until(lambda: rows(url, WAITS_FOR_THE_ENTRY))
            earlier.commit()
            assert app.handle(id).result(20) == 7
    assert bodies == ["write"]
    assert rows(url, "select text from entries") == [("once",)]


@pytest.mark.parametrize("failed", [False, True])
def test_what_it_recorded_counts_though_the_body_went_well(failed: bool, url: str) -> None:
    """The next life waits for the table until the COMMIT is done; its body is done in vain, and meets the record."""
    id = begun(url, "outlives.writes_locked")
    with stranger(url) as earlier:
        earlier.execute("lock table entries in share row exclusive mode")
        value = record_failure(LookupError("refused"))[0] if failed else b"7"
        earlier.execute(RECORD, ("1", "outlives.write_locked", failed, value))
        with Perdure(url) as app:
            until(lambda: rows(url, WAITS_FOR_THE_TABLE))
            earlier.commit()
            if failed:
                with pytest.raises(LookupError, match="refused"):
                    app.handle(id).result(20)
            else:
                assert app.handle(id).result(20) == 7
    assert bodies == ["write"]
    assert rows(url, "select text from entries") == []


def test_record_of_another_step_parks_the_run(url: str) -> None:
    """What is found late has to fit the code, as what came with the claim has to."""
    id = begun(url, "outlives.writes_locked")
    with stranger(url) as earlier:
        earlier.execute("lock table entries in share row exclusive mode")
        earlier.execute(RECORD, ("1", "outlives.of_before", False, b"7"))
        with Perdure(url) as app:
            until(lambda: rows(url, WAITS_FOR_THE_TABLE))
            earlier.commit()
            until(lambda: app.handle(id).status() == "parked")
            (reason,) = rows(url, "select reason from perdure.live")[0]
            assert "outlives.of_before" in reason


@step(name="outlives.count")
async def count(number: int) -> int:
    return number


@step(name="outlives.after")
async def after(number: int) -> int:
    return number


@step(name="outlives.stay")
async def stay(order: list[str]) -> list[str]:
    while not door.is_set():  # noqa: ASYNC110  (set by another thread)
        await asyncio.sleep(0.01)
    return order


@workflow(name="outlives.branches")
async def branches() -> list[str]:
    order: list[str] = []

    async def counting() -> None:
        for number in range(4):
            await count(number)
            order.append(f"count {number}")

    async def writing() -> None:
        await write_async()
        order.append("write")

    await asyncio.gather(counting(), writing())
    await (after if order[-1] == "write" else count)(9)
    return await stay(order)


def test_what_is_found_late_is_handed_out_late_by_a_replay_too(url: str) -> None:
    """Other branches have gone on while the record was waited for: the life after that sees the same order."""
    door.clear()
    id = begun(url, "outlives.branches")
    with stranger(url) as earlier:
        earlier.execute("insert into entries values ('once')")
        with Perdure(url, grace=0) as app:
            until(lambda: rows(url, WAITS_FOR_THE_ENTRY))
            until(lambda: rows(url, "select count(*) from perdure.steps") == [(4,)])
            earlier.execute(RECORD, ("2/1", "outlives.write_async", False, b"7"))
            earlier.commit()
            until(lambda: rows(url, "select 1 from perdure.steps where name = 'outlives.after'"))
            assert all(run.agrees for run in app.runs.replay(id))
    door.set()
    with Perdure(url) as app:
        assert app.handle(id).result(20) == [*(f"count {number}" for number in range(4)), "write"]


@transaction(name="outlives.serializable", isolation="serializable")
def note(conn: Connection, number: int) -> None:
    bodies.append("note")
    conn.execute("insert into notes values (%s)", (number,))


@workflow(name="outlives.notes")
def notes(number: int) -> None:
    note(number)


def test_serializable_steps_of_later_lives_leave_each_other_alone(url: str) -> None:
    """A look for a record, in each of them, would read what the others insert into."""
    rows(url, "create table notes (number integer not null)")
    with Perdure(url, worker=False) as app:
        handles = [app.start("outlives.notes", [number]) for number in range(MANY)]
        rows(url, "update perdure.live set begun = true")
        with Perdure(url):
            for handle in handles:
                handle.result(60)
    assert len(bodies) == MANY
