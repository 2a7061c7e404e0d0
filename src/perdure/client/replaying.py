"""Replaying what is recorded against the code that is here: the gate before a deploy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from perdure.client.choosing import Command
from perdure.client.current import App, bound_app
from perdure.client.managing import pages
from perdure.client.operations import Operation, read
from perdure.core.gate import Recorded, recorded_rows
from perdure.core.middleware import Middleware
from perdure.core.registry import workflows
from perdure.core.replaying import History, Replayer, replay
from perdure.core.runtime import Runtime
from perdure.errors import PerdureError
from perdure.models import CancelReason, ReplayInfo, Status
from perdure.store import archive, claims
from perdure.store.archive import Export, kind_of, stored
from perdure.store.claims import ClaimedRun

WITHIN: Final = 10.0
"""Seconds for one run, by default."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What code needs besides its history: what an app was given."""

    exceptions: tuple[type[BaseException], ...] = ()
    middleware: tuple[Middleware, ...] = ()
    instances: Mapping[str, object] = field(default_factory=dict)
    within: float = WITHIN


class _Looking:
    """The app of code that is only looked at: it has a runtime, and no database."""

    blocking = False

    def __init__(self, runtime: Any) -> None:
        self.name, self.pid, self.runtime = "replay", os.getpid(), runtime

    def on_its_loop(self) -> bool:
        """Nothing of it is anybody's loop."""
        return False

    def __getattr__(self, name: str) -> Any:
        raise PerdureError(
            f"code that is replayed has no {name}: only durable calls are answered, from the record"
        )


def replay_history(history: History, settings: Settings) -> ReplayInfo:
    """Replay one history."""
    definition = workflows.get(history.workflow)
    if definition is None:
        return ReplayInfo(
            history.id, history.workflow, False, "its code is not here: no workflow has this name"
        )
    replayer = Replayer(
        history,
        exceptions=settings.exceptions,
        middleware=settings.middleware,
        instances=settings.instances,
    )
    context = Context()
    looking: Any = _Looking(replayer)
    context.run(bound_app.set, looking)
    verdict = replay(replayer, definition, context, settings.within)
    return ReplayInfo(history.id, history.workflow, verdict.agrees, verdict.text)


def replaying(app: App, command: Command, settings: Settings) -> Operation:
    """Replay runs of the app's database, as they are at this moment; nothing is changed."""

    def look() -> tuple[ReplayInfo, ...]:
        return tuple(replay_history(history, settings) for history in _histories(app, command))

    return read("runs.replay", look)


def _histories(app: App, command: Command) -> Iterator[History]:
    runtime: Runtime = app.runtime
    done = 0
    for page in pages(app, command.which):
        keys = [run.key for run in page]
        for claimed, end in claims.look_at(app.database, keys):
            yield history_of(claimed, runtime, end)
            done += 1
            if command.progress is not None:
                command.progress(done)


def history_of(claimed: ClaimedRun, runtime: Runtime, end: Any = None) -> History:
    """A history as the database has it."""
    return History(
        runtime.realm,
        runtime.now(),
        claimed.key,
        claimed.id,
        claimed.workflow,
        claimed.input,
        recorded_rows(claimed.steps),
        claimed.waits,
        claimed.intents,
        CancelReason.NONE if claimed.cancel is CancelReason.UNDOING else claimed.cancel,
        claimed.context,
        claimed.seed,
        end,
        claimed.scheduled_at,
    )


def replay_document(document: bytes | str, settings: Settings) -> tuple[ReplayInfo, ...]:
    """Replay exported histories; needs no database.

    Raises:
        ValueError: it is no export, or of a newer format.
    """
    export = archive.decode(document)
    return tuple(replay_history(each, settings) for each in histories_of(export))


def histories_of(export: Export) -> Iterator[History]:
    """The histories in an export; needs no database."""
    now = export.exported
    for run in export.runs:
        yield History(
            export.realm,
            now,
            int(run.key),
            run.id,
            run.workflow,
            stored(run.input),
            [
                Recorded(
                    step.position,
                    step.group,
                    step.order or 0,
                    kind_of(step),
                    step.name,
                    step.failed,
                    stored(step.value),
                    step.attempts,
                    step.message,
                )
                for step in run.steps
            ],
            {wait.position: max(0.0, ((wait.due or now) - now).total_seconds()) for wait in run.waits},
            {it.position: None if it.detail is None else stored(it.detail) for it in run.intents},
            CancelReason.NONE
            if run.state is None or run.state.cancel == CancelReason.UNDOING
            else CancelReason(run.state.cancel),
            run.context or {},
            run.seed,
            None if run.end is None else Status(run.end.status),
            None if run.scheduled_at is None else run.scheduled_at.astimezone(UTC),
        )
