"""What is used of the limits of queues, counted while their rows are locked.

Limits hold exactly, because whoever claims from queues that have any locks their rows first, counts in a later statement
(a count in the statement that takes the lock is older than it), claims within what is left, and only then commits.
Nothing else makes a run owned, so nothing else can exceed a limit; ends and put-aways only lower a count.

A count goes on from the last one. Slots are numbered as they are taken, and those of a queue with limits only by who has
its row locked, so all of its slots up to the last number are known to whoever counts under the lock: the next time it asks
which of those are free again, run by run, and which were taken since. It never passes what has died in between, of which
there are hundreds of thousands while a snapshot is held. Claims that began before a queue had limits may still commit
numbers that were passed, so a count from the beginning is made every few seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from perdure.store.arrays import Bigints, Texts
from perdure.store.claiming import Limits
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.prepared import BEGIN, COMMIT, Statement, execute, roll_back, rows
from perdure.store.workers import CLAIM_SLOT

RECOUNT_SECONDS: Final = 10.0
"""After so long a queue is counted from the beginning."""


@dataclass(slots=True)
class Usage:
    """What is used of the limits of a queue or a key, as of one moment; `free_in`: seconds until a rate allows more."""

    running: int = 0
    mine: int = 0
    begun: int = 0
    free_in: float | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """What is used of the limits of the queues that were locked, and of the keys that were asked for."""

    limits: dict[str, Limits]
    queues: dict[str, Usage]
    keys: dict[tuple[str, str], Usage]


class _Held:
    """The slots of one queue, as of the last count."""

    def __init__(self) -> None:
        self.since = 0
        self.until = time.monotonic() + RECOUNT_SECONDS
        self.runs: dict[int, tuple[int, str, int]] = {}
        self.keys: Counter[str] = Counter()
        self.workers: Counter[int] = Counter()

    def take(self, run: int, slot: int, queue_key: str, worker: int) -> None:
        self.runs[run] = slot, queue_key, worker
        self.keys[queue_key] += 1
        self.workers[worker] += 1

    def leave(self, run: int) -> None:
        _, queue_key, worker = self.runs.pop(run)
        self.keys[queue_key] -= 1
        self.workers[worker] -= 1


class Slots:
    """Who holds the slots of queues with limits, as one worker counted them last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, _Held] = {}

    @contextmanager
    def counted(
        self, connection: Connection, worker: int, groups: Sequence[tuple[str, int, str]]
    ) -> Iterator[Count]:
        """A transaction in which the queues of these groups are ours, but for those another worker has just now.

        It yields what is used of their limits. What is claimed in it counts at its commit.
        """
        names = sorted({queue for queue, _, _ in groups})
        keys = sorted({(queue, key) for queue, _, key in groups})
        now = time.monotonic()
        held = {name: known for name in names if (known := self._held.get(name)) and now < known.until}
        try:
            locked, taken, left, begun = self._ask(connection, worker, names, keys, held)
            limits = {row[0]: Limits(*row) for row in locked}
            self._note(limits, held, taken, left)
            used = {name: self._used(name, worker) for name in limits}
            by_key = {(queue, key): self._used_by(queue, key) for queue, key in keys if queue in limits}
            for queue, key, runs, free_in in begun:
                usage = used.get(queue) if key is None else by_key.get((queue, key))
                if usage is not None:
                    usage.begun, usage.free_in = runs, free_in
            yield Count(limits, used, by_key)
        except BaseException:
            if not connection.closed:
                roll_back(connection)
            raise
        execute(connection, [COMMIT])

    def _ask(
        self,
        connection: Connection,
        worker: int,
        names: Sequence[str],
        keys: Sequence[tuple[str, str]],
        held: dict[str, _Held],
    ) -> list[list[tuple[Any, ...]]]:
        runs = [(run, slot) for known in held.values() for run, (slot, _, _) in known.runs.items()]
        since = [held[name].since if name in held else 0 for name in names]
        rated = [(name, None) for name in names] + list(keys)
        begin = {"lock_timeout": "5s", "plans": "force_generic_plan", "worker": worker, "slot": CLAIM_SLOT}
        asked: list[tuple[str, dict[str, Any]]] = [
            ("lock_queues", {"names": Texts(names)}),
            ("slots_taken", {"queue": Texts(names), "since": Bigints(since)}),
            ("slots_left", {"key": Bigints([r for r, _ in runs]), "slot": Bigints([s for _, s in runs])}),
            (
                "count_begun",
                {"queue": Texts([q for q, _ in rated]), "queue_key": Texts([k for _, k in rated])},
            ),
        ]
        statements = self._database.statements
        packet = [
            Statement(statements[name], values, name) for name, values in [("begin_batch", begin), *asked]
        ]
        _, _, *answers = execute(connection, [BEGIN, *packet])
        return [rows(connection, answer) for answer in answers]

    def _note(
        self,
        limits: dict[str, Limits],
        held: dict[str, _Held],
        taken: Sequence[tuple[Any, ...]],
        left: Sequence[tuple[Any, ...]],
    ) -> None:
        """Bring what is known of the queues that are locked up to now; of others nothing is known by this."""
        gone = {run for (run,) in left}
        for name in limits:
            known = self._held[name] = held.get(name) or _Held()
            for run in known.runs.keys() & gone:
                known.leave(run)
        for name, last, run, slot, queue_key, worker in taken:
            if name in limits:
                self._held[name].since = last
                if run is not None:
                    self._held[name].take(run, slot, queue_key, worker)

    def _used(self, queue: str, worker: int) -> Usage:
        held = self._held[queue]
        return Usage(len(held.runs), held.workers[worker])

    def _used_by(self, queue: str, key: str) -> Usage:
        return Usage(self._held[queue].keys[key])
