"""Waiting until nothing runs any more: of a queue, or on a worker."""

from __future__ import annotations

import time
from typing import Final

from perdure.errors import WaitTimeout
from perdure.models import Duration, seconds_of

LOOK_AGAIN: Final = 0.2
"""Seconds between looks."""


def until_of(timeout: Duration | None) -> float | None:
    """When to give up, on the monotonic clock; None is never."""
    return None if timeout is None else time.monotonic() + seconds_of(timeout, "timeout=")


def still_running(running: int, until: float | None, message: str) -> bool:
    """Whether anything runs.

    Raises:
        WaitTimeout: something does, and it is time to give up.
    """
    if running and until is not None and time.monotonic() > until:
        raise WaitTimeout(message)
    return running > 0
