"""Whether a worker is well: what its process knows of itself, without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.worker.engine import Engine


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is at a moment.

    Attributes:
        name: of the worker.
        number: of its present life.
        accepting: whether it takes runs; not once it has been told to stop.
        lease: seconds after which it would be declared dead.
        renewed_ago: seconds since it sent the last renewal of its lease that was answered.
        answered_ago: seconds since the database last told it something: it asks for work every two seconds.
        runs: runs in memory.
        concurrency: how many there may be.
    """

    name: str
    number: int
    accepting: bool
    lease: float
    renewed_ago: float
    answered_ago: float
    runs: int
    concurrency: int

    @property
    def trouble(self) -> str | None:
        """Why it should get no work, in a few words; None if it is ready for more."""
        if not self.accepting:
            return "it is stopping"
        if self.renewed_ago >= self.lease:
            return f"its lease was not renewed for {self.renewed_ago:.1f} s"
        if self.answered_ago >= self.lease:
            return f"the database has not answered for {self.answered_ago:.1f} s"
        return None


def health_of(engine: Engine) -> Health:
    """How this engine is now."""
    incarnation, settings = engine.incarnation, engine.settings
    renewed_ago, answered_ago = incarnation.silence()
    return Health(
        settings.name,
        incarnation.worker,
        engine.accepts_runs() and not incarnation.dead,
        settings.lease,
        renewed_ago,
        answered_ago,
        engine.executor.count,
        settings.concurrency,
    )
