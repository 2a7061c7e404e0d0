"""What ends a worker without a signal: it has run enough, takes too much memory, has nothing to do, or its parent is gone.

Looked at once a second by a thread of its own; the worker then stops in order, as it would at a signal.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perdure.cli.exits import Exit
from perdure.cli.signals import Stopper
from perdure.worker.engine import Engine

logger = logging.getLogger("perdure.cli")

LOOK_EVERY: Final = 1.0
_STATM: Final = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is to stop by itself.

    Attributes:
        runs: times that a run has come into memory: begun, or gone on with after a wait.
        memory: megabytes (of a million bytes) that the process occupies.
        until_idle: whether it ends where there is nothing to do.
        due_within: seconds within which a run that becomes due is something to do.
    """

    runs: int | None = None
    memory: int | None = None
    until_idle: bool = False
    due_within: float = 0.0

    def passed(self, engine: Engine) -> tuple[str, int] | None:
        """Why to stop now, and the exit code that says so."""
        if self.runs is not None and engine.executor.entered >= self.runs:
            return f"{engine.executor.entered} runs have come here", Exit.RECYCLED
        if self.memory is not None and (used := occupied()) > self.memory * 1_000_000:
            return f"the process occupies {used / 1_000_000:.0f} MB", Exit.RECYCLED
        if self.until_idle and engine.is_idle(self.due_within):
            return "there is nothing to do", Exit.DONE
        return None


def occupied() -> int:
    """Bytes of memory that the process occupies; where the system does not tell, the most that it ever did."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def keep(limits: Limits, engine: Engine, stopper: Stopper) -> None:
    """See to it, in a thread, that the worker stops once a limit is passed."""
    if limits == Limits():
        return

    def look() -> None:
        while not stopper.stopping.wait(LOOK_EVERY):
            try:
                passed = limits.passed(engine)
            except Exception as error:  # the database is away, which others deal with
                logger.warning("cannot tell whether there is something to do: %s", error)
                continue
            if passed is not None:
                stopper.stop(*passed)

    threading.Thread(target=look, name="perdure-limits", daemon=True).start()


def follow_parent(stop: Callable[[str, int], object]) -> None:
    """Stop when the parent is gone, however it went: it holds the other end of our standard input."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        stop("the parent process is gone", Exit.DONE)

    threading.Thread(target=wait, name="perdure-parent", daemon=True).start()
