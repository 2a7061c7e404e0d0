"""How to start a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perdure.models import Duration, ParentClose, seconds_of

OnConflict = Literal["attach", "reject", "restart_if_failed"]


@dataclass(frozen=True, slots=True)
class Debounce:
    """Merge starts that come close to each other into one run, with the arguments of the last.

    Args:
        wait: seconds or `timedelta` after the last start before the run begins.
        max_wait: seconds or `timedelta` after the first start at which it begins at the latest; no limit by default.
        key: starts of one workflow, queue and key are merged; by default all of the workflow and queue.

    Raises:
        ValueError: a duration is out of its range.

    Example:
        await reindex.options(debounce=Debounce(5, max_wait=60, key=user)).start(user)
    """

    wait: Duration
    max_wait: Duration | None = None
    key: str | None = None

    def merging(self) -> dict[str, Any]:
        """What the database is told."""
        longest = None if self.max_wait is None else seconds_of(self.max_wait, "Debounce(max_wait=...)")
        return {"wait": seconds_of(self.wait, "Debounce(wait=...)"), "max": longest, "key": self.key}


@dataclass(frozen=True, slots=True)
class Batch:
    """Gather the items of several starts for one run, whose only argument is a list: it gets the lists of all in one.

    Args:
        size: items, at least 1, with which it begins at once; the last start may bring more than fit.
        wait: seconds or `timedelta` after the first start at which it begins with what there is.
        key: starts of one workflow, queue and key are gathered; by default all of the workflow and queue.

    Raises:
        ValueError: the size or the duration is out of its range.

    Example:
        await send_mails.options(batch=Batch(100, wait=2)).start([mail])
    """

    size: int
    wait: Duration
    key: str | None = None

    def merging(self) -> dict[str, Any]:
        """What the database is told."""
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 10_000:
            raise ValueError(f"Batch(size=...) is a number from 1 to 10000, not {self.size!r}")
        return {"size": self.size, "wait": seconds_of(self.wait, "Batch(wait=...)"), "key": self.key}


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How to start a run; see `Workflow.options`. `merge`: with which other starts, and how."""

    id: str | None = None
    on_conflict: OnConflict = "attach"
    queue: str | None = None
    priority: int = 0
    delay: float | None = None
    timeout: float | None = None
    version: str | None = None
    tags: Mapping[str, Any] | None = None
    send: tuple[str, bytes] | None = None
    parent_close: ParentClose = "cancel"
    key: str | None = None
    dedup: str | None = None
    expires: float | None = None
    merge: Mapping[str, Any] | None = None
    connection: Any = None

    @property
    def queued(self) -> bool:
        """Whether it has to go by a queue; else it runs here, if it can."""
        at_once = self.queue is None and self.delay is None and self.expires is None
        return not at_once or self.key is not None or self.dedup is not None
