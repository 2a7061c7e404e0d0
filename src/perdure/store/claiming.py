"""Where there is work, and claiming it; what of it the limits of queues leave is counted in `counting.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
EVER: Final = 1e10
"""Seconds, in which whatever is due became so."""
_REASONS: Final = {int(reason): reason for reason in CancelReason}
"""Cheaper than the enumeration's own search, which is in Python."""
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
    """What one look found; `paused`: this worker is to take no more runs."""

    now: datetime
    woken: int
    next_due: float | None
    cancels: dict[int, CancelReason]
    paused: bool
    suspects: bool
    limits: dict[str, Limits]
    groups: dict[tuple[str, int, str], int]
    """The arrival of the first run of each group with work, by queue, priority and key."""


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a group to claim."""

    group: tuple[str, int, str]
    quota: int
    mode: int = ANY
    since: int = 0


def look(
    connection: Connection,
    database: Database,
    *,
    worker: int,
    listen: Sequence[str],
    places: Sequence[tuple[str, int, str]],
    ready_within: float = EVER,
) -> Look:
    """Wake what is due, look for cancels of our runs, and find the groups that have work, from these places on.

    Args:
        connection: in autocommit.
        database: it is of.
        worker: who looks.
        listen: the queues that it serves.
        places: where to look for groups: a queue, and from which priority and key on.
        ready_within: seconds; what became due before that is not woken.
    """
    parameters = {
        "worker": worker,
        "listen": Texts(listen),
        "queue": Texts([queue for queue, _, _ in places]),
        "priority": Integers([priority for _, priority, _ in places]),
        "queue_key": Texts([key for _, _, key in places]),
        "groups": GROUPS_AT_ONCE,
        "wake_limit": WAKE_LIMIT,
        "ready_within": ready_within,
    }
    (row,) = database.fetch(connection, "look_for_work", parameters)
    now, woken, next_due, cancels, paused, suspects, queues, groups = row
    pairs = (pair.split(":") for pair in cancels or ())
    return Look(
        now,
        woken,
        next_due,
        {int(key): CancelReason(int(reason)) for key, reason in pairs},
        paused,
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
            "workflows": Texts(self.workflows),
            "versions": None if self.versions is None else Texts(self.versions),
            "version": self.versions[0] if self.versions else None,
            "suspects": suspects,
            "counted": counted,
        }
        rows = database.fetch(connection, "claim_runs", parameters)
        return [
            ClaimedRun(
                key,
                id,
                workflow,
                bytes(input),
                begun,
                recoveries,
                _REASONS[cancel],
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


def with_histories(
    connection: Connection, database: Database, runs: Sequence[ClaimedRun]
) -> Sequence[ClaimedRun]:
    """Read what was recorded of runs that were just claimed."""
    load_histories(connection, database, [run for run in runs if run.begun])
    return runs
