"""Which runs something is done to, as keywords: the fields of a `RunFilter`, why, and who wants to hear how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from perdure.models import RunFilter, Status

Which = str | Sequence[str] | RunFilter
"""One id, several, or a filter."""
Several = list[str] | tuple[str, ...] | RunFilter
"""The same without one id, which is a sequence of texts too."""
Progress = Callable[[int], None]


class Filters(TypedDict, total=False):
    """Fields of a `RunFilter`, but for `version`, which is a verb's own with some."""

    status: Status | str | Sequence[Status | str] | None
    workflow: str | Sequence[str] | None
    queue: str | Sequence[str] | None
    worker: int | Sequence[int] | None
    tags: Mapping[str, Any] | None
    ids: Sequence[str] | None
    prefix: str | None
    parent: str | None
    created_after: datetime | None
    created_before: datetime | None
    finished_after: datetime | None
    finished_before: datetime | None
    error: str | None


class Asked(Filters, total=False):
    """What every verb that takes a filter takes besides."""

    reason: str | None
    """For the audit."""
    progress: Progress | None
    """Called after each transaction, with the number of runs reached so far."""


class AskedOfVersion(Asked, total=False):
    """The same, where `version` is that of the filter."""

    version: str | Sequence[str] | None


class Forked(TypedDict, total=False):
    """How a fork is to differ from what it is forked from; see `Runs.fork`."""

    from_step: str | None
    outputs: Mapping[str, Any] | None
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    new_id: str | None
    version: str | None
    queue: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """Which runs something is done to, why, and who wants to hear how far it is."""

    which: Which
    reason: str | None = None
    progress: Progress | None = None

    @classmethod
    def of(cls, which: Which | None, asked: Mapping[str, Any]) -> Command:
        """The command for ids or a filter, or the fields of one as keywords.

        Raises:
            TypeError: both, or neither (all runs are meant by an empty `RunFilter()`), or a keyword that is none.
        """
        filters = dict(asked)
        reason, progress = filters.pop("reason", None), filters.pop("progress", None)
        if (which is None) == (not filters):
            raise TypeError(
                "say which runs: an id, ids, a RunFilter or its fields as keywords; RunFilter() is all"
            )
        return cls(RunFilter(**filters) if which is None else which, reason, progress)
