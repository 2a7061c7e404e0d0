"""What people do to families of runs: a child's new life belongs to its parent, and a circle of parents holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.errors import WorkflowFailed
from perdure.models import Status
from perdure.serial import encode_failure
from perdure.store import archive, operations
from perdure.store.database import Database
from perdure.store.records import EndRecord, PutAway, StepRecord, WaitRecord
from tests.api_tools import rows
from tests.protocol_tools import RawWorker

NOTE = operations.Note("a test", "to see")
ERROR = encode_failure(WorkflowFailed("it is broken"))


@pytest.fixture
def owner(database_url: str) -> Iterator[RawWorker]:
    with RawWorker(database_url) as worker:
        yield worker


def failed(owner: RawWorker, id: str = "one") -> int:
    """A run with a step that has failed."""
    run = owner.start(id)
    owner.write(StepRecord(run, "1", 1, 0, 1, "work", False, b"1"))
    owner.write(EndRecord(run, Status.FAILED.code, ERROR))
    return run


@pytest.mark.session
def test_a_tree_that_names_itself_is_deleted_all_the_same(owner: RawWorker, database_url: str) -> None:
    """No recursion without an end, whatever the rows say."""
    one, two = failed(owner, "one"), failed(owner, "two")
    rows(
        database_url, "update perdure.runs set parent = case when key = %s then %s else %s end", one, two, one
    )
    limit = f"{database_url}&options=-c%20statement_timeout%3D10s"
    database = Database(limit)
    try:
        assert operations.delete(database, [one], NOTE, children=True) == [one]
    finally:
        database.close()
    assert rows(database_url, "select 1 from perdure.runs") == []


def test_a_restarted_child_still_ends_with_its_parent(owner: RawWorker, database_url: str) -> None:
    """`parent_close="cancel"` holds for the new life too."""
    parent, child = owner.start("parent"), owner.start("child")
    rows(database_url, "update perdure.runs set parent = %s where key = %s", parent, child)
    rows(database_url, "update perdure.live set parent = %s where key = %s", parent, child)
    owner.write(WaitRecord(child, "1", 3600.0))
    owner.write(PutAway(child, {"1": None}))
    assert operations.restart(owner.database, {child: (-child, None)}, NOTE) == [-child]
    assert rows(database_url, "select parent from perdure.live where key = %s", -child) == [(parent,)]


def test_what_a_run_waits_for_is_not_deleted_before_it_has_heard(owner: RawWorker, database_url: str) -> None:
    """It has ended, and who waits for its end, or for that of a parent of it, has not been run since."""
    parent, child, waiter = owner.start("parent"), owner.start("child"), owner.start("waiter")
    rows(database_url, "update perdure.runs set parent = %s where key = %s", parent, child)
    owner.write(WaitRecord(waiter, "1", target=child))
    owner.write(PutAway(waiter, {"1": None}))
    owner.write(EndRecord(child, 7, b"1"), EndRecord(parent, 7, b"1"))
    assert operations.delete(owner.database, [child], NOTE, children=True) == []
    assert operations.delete(owner.database, [parent], NOTE, children=True) == []
    assert operations.delete(owner.database, [parent], NOTE, children=False) == [parent]
    owner.write(EndRecord(waiter, 7, b"1", waited=True))
    rows(database_url, "delete from perdure.waits; delete from perdure.live")
    assert operations.delete(owner.database, [child], NOTE, children=True) == [child]


def test_earlier_lives_go_with_a_run_and_with_its_children(owner: RawWorker, database_url: str) -> None:
    """An export has those of the run and of what it started; deleted, it leaves none of its own."""
    parent, child = failed(owner, "parent"), failed(owner, "child")
    for run, next_life in ((parent, -parent), (child, -child)):
        assert operations.restart(owner.database, {run: (next_life, None)}, NOTE) == [next_life]
    rows(database_url, "update perdure.runs set parent = %s where key = %s", -parent, -child)
    everything = archive.export(owner.database, ["parent"], children=True)
    assert sorted(run.id for run in everything.runs) == ["child", "child", "parent", "parent"]
    alone = archive.export(owner.database, ["parent"], children=False)
    assert [run.id for run in alone.runs] == ["parent", "parent"]
    rows(
        database_url,
        "with gone as (delete from perdure.live returning key) "
        "insert into perdure.ends (key, status, value) select key, 7, '1' from gone",
    )
    assert operations.delete(owner.database, [-child], NOTE, children=True) == [-child]
    assert rows(database_url, "select id from perdure.runs") == [("parent",), ("parent",)]
