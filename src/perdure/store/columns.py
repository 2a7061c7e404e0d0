"""Records as the parameters of statements: one record as single values, many as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.store.arrays import Bigints, Blobs, Booleans, Doubles, Integers, Moments, Reals, Smallints, Texts
from perdure.store.records import (
    EndRecord,
    ProgressRecord,
    PutAway,
    StartRecord,
    StepRecord,
    StreamRecord,
    WaitRecord,
)


def lives(records: Sequence[Any]) -> dict[str, Any]:
    """Runs, and which of their lives is meant."""
    return {"keys": Bigints([r.run for r in records]), "claims": Integers([r.claim for r in records])}


def places(records: Sequence[Any]) -> dict[str, Any]:
    """Where in which run."""
    return {"run": Bigints([r.run for r in records]), "position": Texts([r.position for r in records])}


def step_parameters(step: StepRecord) -> dict[str, Any]:
    """One step."""
    return {
        "run": step.run,
        "position": step.position,
        "grp": step.group,
        "ord": step.order,
        "kind": step.kind,
        "name": step.name,
        "failed": step.failed,
        "value": step.value,
        "attempts": step.attempts,
        "seconds": step.seconds,
        "message": step.message,
    }


def start_parameters(start: StartRecord) -> dict[str, Any]:
    """One start, without its options."""
    return {"key": start.run, "id": start.id, "workflow": start.workflow, "input": start.input}


def end_parameters(end: EndRecord) -> dict[str, Any]:
    """One end."""
    return {"run": end.run, "status": end.status, "end_value": end.value, "regardless": end.regardless}


def step_columns(steps: Sequence[StepRecord]) -> dict[str, Any]:
    """Many steps."""
    return {
        "run": Bigints([s.run for s in steps]),
        "position": Texts([s.position for s in steps]),
        "grp": Integers([s.group for s in steps]),
        "ord": Integers([s.order for s in steps]),
        "kind": Smallints([s.kind for s in steps]),
        "name": Texts([s.name for s in steps]),
        "failed": Booleans([s.failed for s in steps]),
        "value": Blobs([s.value for s in steps]),
        "attempts": Integers([s.attempts for s in steps]),
        "seconds": Reals([s.seconds for s in steps]),
        "message": Bigints([s.message for s in steps]),
    }


def end_columns(ends: Sequence[EndRecord]) -> dict[str, Any]:
    """Many ends."""
    return {
        "key": Bigints([end.run for end in ends]),
        "status": Smallints([end.status for end in ends]),
        "value": Blobs([end.value for end in ends]),
        "regardless": Bigints([end.run for end in ends if end.regardless]),
    }


def wait_columns(waits: Sequence[WaitRecord]) -> dict[str, Any]:
    """Many waits."""
    return places(waits) | {
        "seconds": Doubles([wait.seconds for wait in waits]),
        "at": Moments([wait.at for wait in waits]),
        "target": Bigints([wait.target for wait in waits]),
        "topic": Texts([wait.topic for wait in waits]),
    }


def waiting_columns(away: Sequence[PutAway]) -> dict[str, Any]:
    """What runs that are put away wait for: where, and up to which message they have seen."""
    waits = [(record.run, position, seen) for record in away for position, seen in record.waits.items()]
    return {
        "run": Bigints([run for run, _, _ in waits]),
        "position": Texts([position for _, position, _ in waits]),
        "seen": Bigints([seen for _, _, seen in waits]),
    }


def stream_columns(items: Sequence[StreamRecord]) -> dict[str, Any]:
    """Many rows of streams."""
    return {
        "run": Bigints([item.run for item in items]),
        "key": Texts([item.key for item in items]),
        "place": Bigints([item.place for item in items]),
        "kind": Smallints([item.kind for item in items]),
        "value": Blobs([item.value for item in items]),
        "position": Texts([item.position for item in items]),
        "rides": Texts([item.rides for item in items]),
    }


def progress_columns(notes: Sequence[ProgressRecord]) -> dict[str, Any]:
    """What bodies said of their progress."""
    names = {"name": Texts([note.name for note in notes])}
    return places(notes) | names | {"detail": Blobs([note.detail for note in notes])}


def dedup_columns(starts: Sequence[StartRecord]) -> dict[str, Any]:
    """In which queue each of these starts is to be the only one, and of what."""
    return {
        "queue": Texts([start.queue for start in starts]),
        "dedup": Texts([start.dedup for start in starts]),
    }
