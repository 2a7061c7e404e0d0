"""Pruning in the database: which trees have ended and are kept no longer, and their end, some at a time.

The walk goes by birth, for which there is an index: one by end would cost every end its entry, and the block ranges in
which ends are found for lists say less the more of the space that pruning frees is used again. A tree is looked at
twice: without locks, to know its runs, and once all of them are locked. What somebody else has locked stays until the next
walk, so nothing here ever waits for anybody.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from psycopg.types.json import Jsonb

from perdure.models import Status
from perdure.retention import Pruned, Retention
from perdure.store.arrays import Bigints, Booleans, Doubles, Smallints, Texts
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.operations import Note

BIRTHS_AT_ONCE: Final = 1000
"""Births that one page of the walk looks at."""
TREES_AT_ONCE: Final = 200
RUNS_AT_ONCE: Final = 1000
"""Runs that one transaction deletes; a tree that is larger goes in one all the same."""
ANSWER_WITHIN: Final = 300.0
"""Seconds for a statement: a tree may be large, and nobody waits for it."""
LOCK_TIMEOUT: Final = "100ms"
GONE_SECONDS: Final = 30 * 86400.0
"""How long workers that are gone keep their names at least."""
FORGOTTEN_AT_ONCE: Final = 1000
FORGOTTEN_PAGES: Final = 10
_TABLES: Final[tuple[str, ...]] = (
    "steps",
    "messages",
    "events",
    "streams",
    "waits",
    "intents",
    "takeovers",
    "ends",
    "runs",
)


class Place(NamedTuple):
    """How far the walk is: behind the birth of this time and key."""

    created: datetime | str = "-infinity"
    key: int = -(2**63)


class Page(NamedTuple):
    """Some births: how many were looked at, which begin trees that may go, and where the next page begins."""

    looked: int
    roots: list[int]
    end: Place

    @property
    def last(self) -> bool:
        """Whether the walk ends with it."""
        return self.looked < BIRTHS_AT_ONCE


Lend = Callable[[Callable[[Connection], Any]], Any]
"""Has a piece of work done with a connection, and returns what that returned; it may be tried again."""


class Tree(NamedTuple):
    """Runs that go together: the one with which they begin, and all of them."""

    root: int
    keys: frozenset[int]


class Pruning:
    """What the rules of one retention mean in one database.

    Args:
        database: where the runs are.
        retention: how long they are kept.
        lend: where connections come from, in autocommit.
    """

    def __init__(self, database: Database, retention: Retention, lend: Lend) -> None:
        rules = retention.rules
        self._statements, self._lend = database.statements, lend
        self._least = retention.least
        self._rules: Mapping[str, Any] = {
            "patterns": Texts([rule.pattern for rule in rules]),
            "exact": Booleans([rule.exact for rule in rules]),
            "statuses": Smallints([rule.status.code for rule in rules]),
            "seconds": Doubles([rule.seconds for rule in rules]),
        }

    def page(self, after: Place) -> Page:
        """The next births of the walk."""
        place = {"created": after.created, "key": after.key, "least": self._least, "limit": BIRTHS_AT_ONCE}

        def look(connection: Connection) -> Page:
            [(looked, created, key, roots)] = self._do(connection, "find_outdated", **place, **self._rules)
            return Page(looked, roots or [], Place(created, key) if looked else after)

        page: Page = self._lend(look)
        return page

    def prune(
        self, roots: Sequence[int], most: int | None = None, *, dry_run: bool = False
    ) -> Iterator[Pruned]:
        """Delete the trees that begin with these runs, where all of it may go; tell after each transaction.

        Args:
            roots: what `page` found.
            most: runs; at the first tree that would exceed it, it stops and says so.
            dry_run: delete nothing, and tell what would go.
        """
        end = self._count if dry_run else self._delete
        taken: set[int] = set()  # a past life may go by itself, or with the present one
        for place in range(0, len(roots), TREES_AT_ONCE):
            batch: list[Tree] = []
            some = roots[place : place + TREES_AT_ONCE]
            for tree in self._lend(partial(self._trees, some)):
                new = tree.keys - taken
                if most is not None and len(taken) + len(new) > most:
                    yield end(batch)
                    yield Pruned(complete=False, dry_run=dry_run)
                    return
                if new:
                    taken |= new
                    batch.append(Tree(tree.root, new))
                if sum(len(each.keys) for each in batch) >= RUNS_AT_ONCE:
                    yield end(batch)
                    batch = []
            yield end(batch)

    def _delete(self, trees: Sequence[Tree]) -> Pruned:
        """Delete trees in one transaction: those of which every run can be locked, and may go all the same then."""
        keys, gone, doomed = _keys_of(trees), Pruned(), frozenset[int]()

        def once(connection: Connection) -> Pruned:
            nonlocal gone, doomed
            with connection.transaction():
                self._do(connection, "begin_client_batch", lock_timeout=LOCK_TIMEOUT, plans="auto")
                locked = self._lock(connection, keys)
                # Meanwhile one may have been revived and have ended again, a child may have got a new life, or
                # somebody has begun to wait. From here on nothing of that can happen.
                found = self._trees([tree.root for tree in trees], connection)
                sure = [tree for tree in found if tree.keys <= locked]
                if not sure:  # which also the second try finds, if only the answer to the first was lost
                    return gone if doomed and not self._there(connection, doomed) else Pruned()
                doomed = _keys_of(sure)
                counts = self._counts(connection, doomed)
                [rows] = self._do(connection, "delete_runs", keys=Bigints(sorted(doomed)))
                gone = Pruned(len(doomed), len(sure), counts, dict(zip(_TABLES, rows, strict=True)))
            return gone

        return gone if not trees else self._lend(once)

    def _count(self, trees: Sequence[Tree]) -> Pruned:
        """What `_delete` would delete."""
        keys = _keys_of(trees)

        def once(connection: Connection) -> Pruned:
            counts = self._counts(connection, keys)
            [rows] = self._do(connection, "count_rows_of_runs", keys=Bigints(sorted(keys)))
            found: dict[str, int] = dict(zip(_TABLES, rows, strict=True))
            return Pruned(len(keys), len(trees), counts, found, dry_run=True)

        return Pruned(dry_run=True) if not trees else self._lend(once)

    def _lock(self, connection: Connection, keys: frozenset[int]) -> frozenset[int]:
        given = Bigints(sorted(keys))
        ends = {key for (key,) in self._do(connection, "lock_outdated_ends", keys=given)}
        return frozenset(
            key for (key,) in self._do(connection, "lock_outdated_births", keys=given) if key in ends
        )

    def _trees(self, roots: Sequence[int], connection: Connection) -> list[Tree]:
        rows = self._do(connection, "find_trees", keys=Bigints(sorted(roots)), **self._rules)
        return [Tree(root, frozenset(keys)) for root, keys in rows]

    def _counts(self, connection: Connection, keys: frozenset[int]) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for workflow, status, count in self._do(connection, "count_outdated", keys=Bigints(sorted(keys))):
            counts.setdefault(workflow, {})[status] = count
        return counts

    def _there(self, connection: Connection, keys: frozenset[int]) -> bool:
        return bool(self._do(connection, "keys_of_runs", keys=Bigints(sorted(keys))))

    def _do(self, connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return connection.execute(self._statements[name], parameters, binary=True).fetchall()


def note_pruning(database: Database, note: Note, retention: Retention, gone: Pruned) -> None:
    """Note in the audit that somebody has pruned, once for all runs: under no run's key, and the id `*`."""
    kept = {
        f"{rule.pattern}{'' if rule.exact else '*'} {rule.status}": rule.seconds for rule in retention.rules
    }
    told = {"runs": gone.runs, "trees": gone.trees, "kept": kept}
    database.run(
        "audit_pruning",
        {"who": note.who, "reason": note.reason, "detail": Jsonb(told), "command": uuid.uuid4()},
    )


def _keys_of(trees: Sequence[Tree]) -> frozenset[int]:
    return frozenset().union(*(tree.keys for tree in trees))


class Walk:
    """How far all workers with the same rules are, which they tell each other in a row of `pruning`.

    Args:
        database: where the runs are.
        retention: how long they are kept.
    """

    def __init__(self, database: Database, retention: Retention) -> None:
        self._database, self._retention = database, retention
        self._rules = hashlib.blake2b(repr(retention.rules).encode(), digest_size=16).hexdigest()

    def begin(self) -> None:
        """See to it that there is a row."""
        self._database.run("begin_pruning", {"rules": self._rules})

    def take(self, within: float) -> tuple[Place, int] | None:
        """Take the next page, if it is due: its place, and how many births were kept so far; nobody else takes it within so many seconds."""
        for created, key, kept in self._database.run("take_page", {"rules": self._rules, "within": within}):
            return (Place() if created is None else Place(created, key)), kept
        return None

    def go_on(self, place: Place, kept: int) -> None:
        """The next page begins there; so many births were kept so far."""
        given = {"created": place.created, "key": place.key, "kept": kept}
        self._database.run("end_page", {"rules": self._rules, **given})

    def end(self, rest: float) -> None:
        """That was the last page: begin again after so many seconds."""
        self._database.run("end_walk", {"rules": self._rules, "rest": rest})

    def forget(self) -> None:
        """Delete what else only grows: workers that are long gone, told commands that failed, walks that nobody goes on with."""
        seconds = max(GONE_SECONDS, self._retention.longest)
        self._forget("forget_workers", seconds)
        if (failed := self._retention.kept("", Status.FAILED)) is not None:
            self._forget("forget_told", failed)
        self._database.run("forget_walks")

    def _forget(self, name: str, seconds: float) -> None:
        for _ in range(FORGOTTEN_PAGES):
            gone = self._database.run(name, {"seconds": seconds, "limit": FORGOTTEN_AT_ONCE})
            if len(gone) < FORGOTTEN_AT_ONCE:
                return
