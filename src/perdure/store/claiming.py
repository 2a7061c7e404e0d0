"""Where there is work, and claiming it within the limits of queues.

Limits hold exactly, because whoever claims from queues that have any locks their rows first, counts in a later statement
(a count in the statement that takes the lock is older than it), claims within what is left, and only then commits.
Nothing else makes a run owned, so nothing else can exceed a limit; ends and put-aways only lower a count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from perdure.models import CancelReason
from perdure.store.arrays import Bigints, Integers, Smallints, Texts
from perdure.store.claims import ClaimedRun, load_histories, utc
from perdure.store.connection import Connection
from perdure.store.database import Database
from perdure.store.workers import CLAIM_SLOT

WAKE_LIMIT: Final = 1000
GROUPS_AT_ONCE: Final = 200
"""Groups that one look follows from each place."""
LOWEST: Final = -(2**31)
"""No priority is lower."""
ANY, ONWARD, FRESH = 0, 1, 2
"""What of a group to claim: all, only what has begun before, only what has not."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The row of a queue."""

    name: str
    paused: bool = False
    concurrency: int | None = None
    worker_concurrency: int | None = None
    key_concurrency: int | None = None
    rate: int | None = None
    rate_per: float | None = None
    key_rate: int | None = None
    key_rate_per: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether claims have to be counted."""
        whole = (self.concurrency, self.worker_concurrency, self.rate)
        return any(limit is not None for limit in (*whole, self.key_concurrency, self.key_rate))

    @property
    def rated(self) -> bool:
        """Whether what begins is limited otherwise than what goes on."""
        return self.rate is not None or self.key_rate is not None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    now: datetime
    woken: int
    next_due: float | None
    cancels: dict[int, CancelReason]
    suspects: bool
    limits: dict[str, Limits]
    groups: dict[tuple[str, int, str], int]
    """From which arrival on each group with work is claimed, by queue, priority and key: that of its first run, at first."""


@dataclass(slots=True)
class Usage:
    """What is used of the limits of queues and keys, as of one moment; `free_in`: seconds until a rate allows more."""

    running: int = 0
    mine: int = 0
    begun: int = 0
    free_in: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a group to claim."""

    group: tuple[str, int, str]
    quota: int
    mode: int = ANY
    since: int = 0


def look(
    connection: Connection, database: Database, *, worker: int, places: Sequence[tuple[str, int, str]]
) -> Look:
    """Wake what is due, look for cancels of our runs, and find the groups that have work, from these places on."""
    parameters = {
        "worker": worker,
        "queue": Texts([queue for queue, _, _ in places]),
        "priority": Integers([priority for _, priority, _ in places]),
        "queue_key": Texts([key for _, _, key in places]),
        "groups": GROUPS_AT_ONCE,
        "wake_limit": WAKE_LIMIT,
    }
    row = connection.execute(database.statements["look_for_work"], parameters, binary=True).fetchone()
    assert row is not None
    now, woken, next_due, cancels, suspects, queues, groups = row
    pairs = (pair.split(":") for pair in cancels or ())
    return Look(
        now,
        woken,
        next_due,
        {int(key): CancelReason(int(reason)) for key, reason in pairs},
        suspects,
        {row["name"]: _limits(row) for row in queues or ()},
        {(queue, priority, key): arrival for queue, priority, key, arrival in groups or ()},
    )


def _limits(row: Mapping[str, Any]) -> Limits:
    return Limits(**{name: row[name] for name in Limits.__slots__})


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims, and what it can run."""

    worker: int
    workflows: Sequence[str]
    versions: Sequence[str] | None

    def claim(
        self,
        connection: Connection,
        database: Database,
        parts: Sequence[Part],
        *,
        suspects: bool = False,
        counted: bool = False,
    ) -> list[ClaimedRun]:
        """Claim runs, without their histories; `counted`: in the transaction that has counted what is used of limits."""
        parameters = {
            "worker": self.worker,
            "slot": CLAIM_SLOT,
            "queue": Texts([part.group[0] for part in parts]),
            "priority": Integers([part.group[1] for part in parts]),
            "queue_key": Texts([part.group[2] for part in parts]),
            "quota": Integers([part.quota for part in parts]),
            "since": Bigints([part.since for part in parts]),
            "mode": Smallints([part.mode for part in parts]),
            "workflows": list(self.workflows),
            "versions": None if self.versions is None else list(self.versions),
            "version": self.versions[0] if self.versions else None,
            "suspects": suspects,
            "counted": counted,
        }
        rows = connection.execute(database.statements["claim_runs"], parameters, binary=True).fetchall()
        return [
            ClaimedRun(
                key,
                id,
                workflow,
                bytes(input),
                begun,
                recoveries,
                CancelReason(cancel),
                claim,
                remaining,
                context or {},
                seed,
                utc(scheduled_at),
                group=(queue, priority, queue_key),
                arrival=arrival,
            )
            for (key, begun, workflow, recoveries, cancel, claim, id, input, context, seed,
                 scheduled_at, remaining,
                 queue, priority, queue_key, arrival) in rows
        ]  # fmt: skip

    @contextmanager
    def counted(
        self, connection: Connection, database: Database, groups: Sequence[tuple[str, int, str]]
    ) -> Iterator[tuple[dict[str, Limits], dict[str, Usage], dict[tuple[str, str], Usage]]]:
        """A transaction in which the queues of these groups are ours, but for those another worker has just now.

        It yields their limits, and what is used of them by queue and by key. What is claimed in it counts at its commit.
        """
        statements = database.statements
        names = Texts(sorted({queue for queue, _, _ in groups}))
        keys = sorted({(queue, key) for queue, _, key in groups})
        columns = {
            "queue": Texts([queue for queue, _ in keys]),
            "queue_key": Texts([key for _, key in keys]),
        }
        with connection.transaction():
            with connection.pipeline():
                begin = {
                    "lock_timeout": "5s",
                    "plans": "force_generic_plan",
                    "worker": self.worker,
                    "slot": CLAIM_SLOT,
                }
                connection.execute(statements["begin_batch"], begin)
                locked = connection.execute(statements["lock_queues"], {"names": names})
                slots = connection.execute(statements["count_slots"], {"names": names, "worker": self.worker})
                each = connection.execute(statements["count_keys"], columns)
            limits = {row[0]: Limits(*row) for row in locked.fetchall()}
            used = {name: Usage(*usage) for name, *usage in slots.fetchall()}
            by_key = {
                (queue, key): Usage(running, 0, begun, free_in)
                for queue, key, running, begun, free_in in each.fetchall()
            }
            yield limits, used, by_key


def with_histories(
    connection: Connection, database: Database, runs: Sequence[ClaimedRun]
) -> Sequence[ClaimedRun]:
    """Read what was recorded of runs that were just claimed."""
    load_histories(connection, database, [run for run in runs if run.begun])
    return runs
