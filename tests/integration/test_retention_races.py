"""Pruning where it meets what runs and people do: either comes first, and nothing of an unfinished tree is ever missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from perdure import Retention, WorkflowNotFound, sync
from perdure.store import operations
from perdure.store.operations import Fork, Note
from perdure.store.pruning import Place, Pruning
from perdure.store.records import EndRecord, Outcome, StartRecord, StepRecord, WaitRecord
from perdure.testing import Clock
from tests.api_tools import rows, until
from tests.protocol_tools import Proxy, RawWorker, in_thread, start_of
from tests.servers import TestServer

pytestmark = pytest.mark.postgres

DAY = 86400.0
KEPT = Retention(succeeded=DAY, failed=DAY, cancelled=DAY)
NOTE = Note("a test")
HANGING = ("steps", "waits", "intents", "messages", "events", "streams", "takeovers")


class Family:
    """A failed run and its child, both kept no longer: what is pruned, and what somebody does to it meanwhile."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.owner = RawWorker(url)
        self.root, self.child = self.owner.start("root"), self.owner.start("child")
        rows(url, "update perdure.runs set parent = %s where key = %s", self.root, self.child)
        for key in (self.root, self.child):
            self.owner.write(StepRecord(key, "1", 1, 0, 1, "work", False, b"1"))
            self.owner.write(StepRecord(key, "2", 2, 0, 1, "work", True, b"{}"), EndRecord(key, 8, b"{}"))

    def keys(self) -> set[int]:
        return {key for (key,) in rows(self.url, "select key from perdure.runs")}

    def whole(self) -> None:
        """Both are there with their steps, or neither; and nothing hangs on a run that is not there."""
        steps = {key for (key,) in rows(self.url, "select run from perdure.steps where position = '1'")}
        both = {self.root, self.child}
        assert self.keys() & both in (both, set())
        assert steps & both in (both, set())
        for table in HANGING:
            assert not rows(
                self.url,
                f"select * from perdure.{table} t where not exists (select 1 from perdure.runs r where r.key = t.run)",
            ), table
        assert not rows(
            self.url,
            "select * from perdure.live l where not exists (select 1 from perdure.runs r where r.key = l.key)",
        )


@pytest.fixture
def family(database_url: str) -> Iterator[Family]:
    family = Family(database_url)
    with Clock(database_url) as clock:
        clock.advance(2 * DAY)
        yield family
    family.owner.close()


def restart_root(family: Family) -> Any:
    return operations.restart(family.owner.database, {family.root: (-1, None)}, NOTE)


def restart_child(family: Family) -> Any:
    return operations.restart(family.owner.database, {family.child: (-2, None)}, NOTE)


def resume_root(family: Family) -> Any:
    return operations.resume(family.owner.database, [family.root], NOTE)


def resume_child(family: Family) -> Any:
    return operations.resume(family.owner.database, [family.child], NOTE)


def wait_for_child(family: Family) -> Any:
    waiter = family.owner.start("waiter")
    family.owner.write(WaitRecord(waiter, "1", target=family.child))
    return [waiter]


def delete_root(family: Family) -> Any:
    return operations.delete(family.owner.database, [family.root], NOTE, children=True)


def start_again(family: Family) -> Any:
    """`restart_if_failed`: the id goes to a new run."""
    key = family.owner.key()
    family.owner.write(start_of(key, "root", supersede=True))
    return [key]


def start_again_from_sql(family: Family) -> Any:
    return rows(
        family.url,
        """select perdure.start('attacked', '[]', '{"id": "root", "on_conflict": "restart_if_failed"}')""",
    )


def attach(family: Family) -> Any:
    """Start it by its id: found, or begun where it is gone."""
    record = start_of(family.owner.key(), "child")
    family.owner.write(record)
    assert record.outcome in (Outcome.WON, Outcome.ATTACHED)
    return [record.run]


def fork_root(family: Family) -> Any:
    what = Fork(family.root, -3, "fork", operations.Cut("1", "work", 1, None), {}, None, None, None, None)
    try:
        return operations.fork(family.owner.database, what, NOTE)
    except operations.Deleted:
        return "deleted"


VERBS: list[Callable[[Family], Any]] = [
    restart_root, restart_child, resume_root, resume_child, wait_for_child, delete_root, start_again,
    start_again_from_sql, attach, fork_root,
]  # fmt: skip
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
KEEPS = {restart_child, resume_root, resume_child, wait_for_child}
"""What leaves an unfinished run in the tree, or one that waits for it: then all of it stays. A root that is restarted is
a past life, with a tree of its own."""


@each_verb
def test_what_happens_between_the_look_and_the_locks_is_seen(
    verb: Callable[[Family], Any], family: Family
) -> None:
    """The tree was found, then somebody does something to it, then it is locked and looked at again."""
    calls: list[int] = []

    def meddling(work: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 3:  # the page, the trees, and now the transaction that deletes them
            verb(family)
        with family.owner.database.borrow() as connection:
            return work(connection)

    pruning = Pruning(family.owner.database, KEPT, meddling)
    page = pruning.page(Place())
    assert page.roots == [family.root]
    gone = list(pruning.prune(page.roots))
    assert len(calls) == 3
    family.whole()
    if verb in KEEPS:
        assert {family.root, family.child} <= family.keys()
        assert gone[0].runs == 0
    elif verb is not delete_root:
        assert not {family.root, family.child} & family.keys()


@each_verb
def test_what_comes_after_the_locks_waits_for_them(
    verb: Callable[[Family], Any], family: Family, server: TestServer
) -> None:
    """The tree is locked and about to be deleted: whoever comes then finds that it is gone, and nothing is torn."""
    with Proxy(server, family.url) as proxy, sync.Perdure(proxy.url, worker=False) as app:
        connection = app.database.connect("pruning")
        pruning = Pruning(app.database, KEPT, lambda work: work(connection))
        proxy.hold("perdure pruning", b"with doomed")
        deleting = in_thread(lambda: list(pruning.prune([family.root])))
        until(
            lambda: rows(
                family.url,
                "select 1 from pg_stat_activity where application_name = 'perdure pruning' "
                "and state = 'idle in transaction' and query ~ 'group by r.workflow'",
            )
        )
        acting = in_thread(partial(verb, family))
        until(
            lambda: (
                not acting.going_on
                or rows(family.url, "select 1 from pg_stat_activity where wait_event_type = 'Lock'")
            )
        )
        proxy.release()
        [gone] = deleting.result()
        acting.result()
        connection.close()
    family.whole()
    assert gone.runs == 2
    assert not {family.root, family.child} & family.keys()
    if verb in (start_again, start_again_from_sql):
        assert rows(family.url, "select count(*) from perdure.live") == [(1,)]


def test_a_child_that_is_being_started_keeps_its_tree(family: Family) -> None:
    """Its parent has not ended, and once it has, the child has not."""
    parent = family.owner.start("parent")
    rows(family.url, "update perdure.runs set created = '2020-01-01'")
    family.owner.write(StepRecord(parent, "1", 1, 0, 4, "child", False, b"[]"))
    with sync.Perdure(family.url, worker=False) as app:
        assert app.runs.prune(KEPT).runs == 2
        assert family.keys() == {parent}
        options = f'{{"parent": {parent}, "position": "1", "queue": "default"}}'
        child = StartRecord(-5, "newborn", "attacked", b"[]", options, (parent, "1"))
        family.owner.write(child)
        family.owner.write(EndRecord(parent, 7, b"1"))
        with Clock(family.url) as clock:
            clock.advance(5 * DAY)
            assert app.runs.prune(KEPT).runs == 0
        with pytest.raises(WorkflowNotFound):
            app.handle("root").status()
