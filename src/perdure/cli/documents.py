"""What `-o json` writes of a run: the field names that scripts rely on.

They are listed in docs/reference/command-line.md. A field is added when there is more to tell; none is
renamed or taken away. Payloads are handed on as they are stored, so that no number loses a digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from perdure.models import AuditInfo, MessageInfo, RunDetail, RunInfo, Status, StepInfo

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


def detail_document(
    detail: RunDetail, children: Sequence[RunInfo] = (), audit: Sequence[AuditInfo] = ()
) -> dict[str, Any]:
    """A run with everything recorded of it, as `perdure show` shows it."""
    failed = detail.info.status in (Status.FAILED, Status.CANCELLED)
    return run_document(detail.info) | {
        "input": stored_json(detail.input),
        "result": None if failed or detail.output is None else stored_json(detail.output),
        "error": _error(detail.output) if failed and detail.output is not None else None,
        "why": detail.info.why,
        "waits": list(detail.waits),
        "steps": [_step_document(step) for step in detail.steps],
        "workers": {str(number): name for number, name in detail.workers.items()},
        "children": [
            {"id": child.id, "workflow": child.workflow, "status": str(child.status)} for child in children
        ],
        "messages": [_message_document(message) for message in detail.messages],
        "audit": [audit_document(line) for line in audit],
    }


def audit_document(line: AuditInfo) -> dict[str, Any]:
    """Something that was done to a run, as `perdure audit` lists it."""
    return {
        "at": _utc(line.at),
        "who": line.who,
        "verb": line.verb,
        "id": line.id,
        "reason": line.reason,
        "detail": None if line.detail is None else dict(line.detail),
    }


def stored_error(payload: bytes) -> StoredError:
    """Read a stored error; one that cannot be read is shown as the text it is."""
    try:
        return msgspec.json.decode(payload, type=StoredError)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return StoredError(message=payload.decode("utf-8", "replace"))


def _message_document(message: MessageInfo) -> dict[str, Any]:
    return {
        "topic": message.topic,
        "key": message.key,
        "value": stored_json(message.value),
        "sent": _utc(message.sent),
    }


def _step_document(step: StepInfo) -> dict[str, Any]:
    return {
        "position": step.position,
        "group": step.group,
        "kind": step.kind,
        "name": step.name,
        "failed": step.failed,
        "value": None if step.failed else stored_json(step.value),
        "error": _error(step.value) if step.failed else None,
        "attempts": step.attempts,
        "seconds": step.seconds,
        "worker": step.worker,
        "recorded": _utc(step.recorded),
    }


def stored_json(stored: bytes) -> Any:
    """A payload as it is stored, to be written within JSON; what is no JSON, as text."""
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
