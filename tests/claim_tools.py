"""One poll of a worker, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.store.claiming import Claimant
from perdure.store.claims import ClaimedRun
from perdure.worker.claimer import Claimer


def poll(
    owner: Any,
    *workflows: str,
    queues: Sequence[str] = ("default",),
    limit: int = 10,
    claimer: Claimer | None = None,
) -> Sequence[ClaimedRun]:
    """Look for work once, as a worker does, and claim what there is of these workflows."""
    claimer = claimer or Claimer(owner.database)
    found = claimer.look(owner.connection, owner.number, queues)
    return claimer.claim(owner.connection, Claimant(owner.number, workflows, None), found, limit)
