"""What `-o json` writes of a run: the field names that scripts rely on.

They are listed in docs/reference/command-line.md. A field is added when there is more to tell; none is
renamed or taken away. Payloads are handed on as they are stored, so that no number loses a digit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from perdure.models import RunDetail, RunInfo, Status, StepInfo

LINE: Final = (
    "id",
    "workflow",
    "status",
    "queue",
    "created",
    "finished",
    "wakes",
    "worker",
    "version",
    "parent",
    "tags",
    "reason",
)
"""Fields of a run as a line of text, in this order."""


class StoredError(msgspec.Struct):
    """What is shown of a stored error."""

    module: str = ""
    name: str = ""
    message: str = ""
    traceback: str = ""

    @property
    def type(self) -> str:
        """Its class, as Python names it."""
        return self.name if self.module in ("", "builtins") else f"{self.module}.{self.name}"

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def run_document(info: RunInfo) -> dict[str, Any]:
    """A run, as `perdure ls` lists it."""
    return {
        "id": info.id,
        "workflow": info.workflow,
        "status": str(info.status),
        "queue": info.queue,
        "version": info.version,
        "tags": None if info.tags is None else dict(info.tags),
        "parent": info.parent,
        "worker": info.worker,
        "created": _utc(info.created),
        "finished": _utc(info.finished),
        "wakes": _utc(info.wakes),
        "deadline": _utc(info.deadline),
        "recoveries": info.recoveries,
        "takeovers": info.takeovers,
        "reason": info.reason,
        "cancel_requested": info.cancel_requested,
        "cursor": info.cursor,
    }


def detail_document(detail: RunDetail) -> dict[str, Any]:
    """A run with everything recorded of it, as `perdure show` shows it."""
    failed = detail.info.status in (Status.FAILED, Status.CANCELLED)
    return run_document(detail.info) | {
        "input": _payload(detail.input),
        "result": None if failed or detail.output is None else _payload(detail.output),
        "error": _error(detail.output) if failed and detail.output is not None else None,
        "why": detail.info.why,
        "waits": list(detail.waits),
        "steps": [_step_document(step) for step in detail.steps],
        "workers": {str(number): name for number, name in detail.workers.items()},
    }


def stored_error(payload: bytes) -> StoredError:
    """Read a stored error; one that cannot be read is shown as the text it is."""
    try:
        return msgspec.json.decode(payload, type=StoredError)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return StoredError(message=payload.decode("utf-8", "replace"))


def _step_document(step: StepInfo) -> dict[str, Any]:
    return {
        "position": step.position,
        "group": step.group,
        "kind": step.kind,
        "name": step.name,
        "failed": step.failed,
        "value": None if step.failed else _payload(step.value),
        "error": _error(step.value) if step.failed else None,
        "attempts": step.attempts,
        "seconds": step.seconds,
        "worker": step.worker,
        "recorded": _utc(step.recorded),
    }


def _payload(stored: bytes) -> Any:
    """The JSON as it is stored; what is no JSON, as text."""
    try:
        msgspec.json.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return stored.decode("utf-8", "replace")
    return msgspec.Raw(stored)


def _error(stored: bytes) -> dict[str, str]:
    error = stored_error(stored)
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
