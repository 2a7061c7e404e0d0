"""A filter of runs as the parameters of the statements that find runs.

The statements have a condition for each field, which is gone from the plan where its parameter is null. What the planner
cannot see by itself is said twice: that the statuses asked for are all of unfinished runs, or all of ended ones,
or none of them success, and where a prefix ends in the order of the index.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from perdure.arguments import one_or_more
from perdure.models import RunFilter, Status
from perdure.store.arrays import Bigints

_STORED: Final = {
    Status.SCHEDULED: (1,),
    Status.QUEUED: (2,),
    Status.RUNNING: (3,),
    Status.WAITING: (4,),
    Status.CANCELLING: (2, 3, 4, 5),
    Status.PARKED: (6,),
}
"""What the row of an unfinished run can say for each status."""
LISTED: Final = 100
"""Runs of a list whose filter has no limit."""


def parameters(where: RunFilter, parents: Sequence[int] | None) -> dict[str, Any]:
    """The parameters of `run_filter`, with the cursor and the limit.

    Args:
        where: the filter.
        parents: keys of the runs that have the id `where.parent`, if one is given.
    """
    created, key = _cursor(where.cursor)
    return _of_status(where) | {
        "ids": None if where.ids is None else list(where.ids),
        "prefix": where.prefix,
        "prefix_end": None if where.prefix is None else after_prefix(where.prefix),
        "workflow": _several(where.workflow),
        "queue": _several(where.queue),
        "version": _several(where.version),
        "worker": None if where.worker is None else Bigints(one_or_more(where.worker)),
        "tags": Jsonb(dict(where.tags)) if where.tags else None,
        "parents": None if parents is None else Bigints(list(parents)),
        "created_after": where.created_after,
        "created_before": where.created_before,
        "finished_after": where.finished_after,
        "finished_before": where.finished_before,
        "error": None if where.error is None else _within_json(where.error),
        "reason": where.error,
        "cursor_created": created,
        "cursor_key": key,
        "limit": where.limit or LISTED,
    }


def after_prefix(prefix: str) -> str | None:
    """The first text, in the order of code points, after all that begin with `prefix`; None if there is none."""
    while prefix:
        point = ord(prefix[-1]) + 1
        if point <= sys.maxunicode:
            # Surrogates are no text: what comes after the last before them is the first behind them.
            return prefix[:-1] + chr(0xE000 if 0xD800 <= point <= 0xDFFF else point)
        prefix = prefix[:-1]
    return None


def _of_status(where: RunFilter) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("status", "stored", "living", "ended"))
    statuses = None if where.status is None else [Status(status) for status in one_or_more(where.status)]
    if statuses and not any(status.final for status in statuses):
        found["living"] = [status.code for status in statuses]
        found["stored"] = sorted({code for status in statuses for code in _STORED[status]})
    elif statuses and all(status.final for status in statuses):
        found["ended"] = [status.code for status in statuses]
    elif statuses is not None:
        found["status"] = [status.code for status in statuses]
    found["unhappy"] = found["ended"] is not None and Status.SUCCEEDED.code not in found["ended"]
    return found


def _several(value: Any) -> list[str] | None:
    return None if value is None else one_or_more(value)


def _within_json(text: str) -> bytes:
    """A text as it stands inside a string of JSON, where quotes and line breaks are escaped."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def _cursor(cursor: str | None) -> tuple[datetime | None, int | None]:
    if cursor is None:
        return None, None
    try:
        created, _, key = cursor.rpartition("/")
        return datetime.fromisoformat(created), int(key)
    except ValueError:
        raise ValueError(
            f"{cursor!r} is no cursor: take `RunInfo.cursor` of the last run of a page"
        ) from None
