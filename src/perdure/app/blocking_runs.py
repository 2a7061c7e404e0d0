"""`app.runs` for blocking code: the same as in `runs.py`, which says what each does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from perdure.app.base import filter_of
from perdure.app.runs import forked
from perdure.client import BlockingHandle, Operation, blocking, managing
from perdure.client.choosing import (
    Asked,
    AskedOfVersion,
    Command,
    Forked,
    Id,
    Ids,
    Progress,
    Several,
    Which,
    id_of,
)
from perdure.client.pruning import pruning
from perdure.models import (
    AuditInfo,
    Duration,
    ReplayInfo,
    RunDetail,
    RunFilter,
    RunInfo,
    seconds_of,
)
from perdure.retention import Pruned, Retention, checked_retention

if TYPE_CHECKING:
    from perdure.app.apps import BlockingPerdure


class BlockingRuns:
    """The runs in the app's database, for blocking code; see `Runs`."""

    def __init__(self, app: BlockingPerdure) -> None:
        self._app = app

    def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first."""
        wanted = filter_of(where, filters)
        return cast("list[RunInfo]", blocking(lambda: self._app.list_operation(wanted), self._app))

    def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        wanted = filter_of(where, filters)
        return cast("int", blocking(lambda: self._app.count_operation(wanted), self._app))

    def get(self, id: Id) -> RunDetail:
        """One run with its steps; raises `WorkflowNotFound`."""
        return cast("RunDetail", blocking(lambda: self._app.get_operation(id_of(id)), self._app))

    def cancel(
        self,
        which: Which | None = None,
        *,
        compensate: bool = True,
        **asked: Unpack[AskedOfVersion],
    ) -> int:
        """Ask runs to stop; return how many were not too late. See `Runs.cancel`."""
        command = Command.of(which, asked)
        return self._reached(managing.cancelling(self._app, command, compensate=compensate))

    def resume(
        self,
        which: Which | None = None,
        *,
        version: str | None = None,
        **asked: Unpack[Asked],
    ) -> int:
        """Have parked and failed runs go on where they stopped; return how many do. See `Runs.resume`."""
        return self._reached(managing.resuming(self._app, Command.of(which, asked), version))

    def restart(
        self,
        which: Which | None = None,
        *,
        version: str | None = None,
        **asked: Unpack[Asked],
    ) -> int:
        """Begin runs anew under their ids, from the beginning; return how many. See `Runs.restart`."""
        return self._reached(managing.restarting(self._app, Command.of(which, asked), version))

    @overload
    def fork(self, which: Id, **how: Unpack[Forked]) -> BlockingHandle[Any]: ...
    @overload
    def fork(self, which: Several, **how: Unpack[Forked]) -> Sequence[BlockingHandle[Any]]: ...
    def fork(self, which: Which, **how: Unpack[Forked]) -> Any:
        """Start a new run with part of another's history. See `Runs.fork`."""
        return blocking(lambda: forked(self._app, which, how, BlockingHandle), self._app)

    def delete(
        self,
        which: Which | None = None,
        *,
        children: bool = True,
        **asked: Unpack[AskedOfVersion],
    ) -> int:
        """Delete runs that have ended; return how many. See `Runs.delete`."""
        command = Command.of(which, asked)
        return self._reached(managing.deleting(self._app, command, children=children))

    def prune(
        self,
        retention: Retention | None = None,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> Pruned:
        """Delete what has ended and is kept no longer; return what that was. See `Runs.prune`."""
        how: Any = {"dry_run": dry_run, "limit": limit, "reason": reason, "progress": progress}
        kept = checked_retention(retention) or self._app.retention
        return cast("Pruned", blocking(lambda: pruning(self._app, kept, **how), self._app))

    def set_timeout(
        self,
        which: Which | None = None,
        *,
        timeout: Duration | None,
        **asked: Unpack[AskedOfVersion],
    ) -> int:
        """Give unfinished runs another deadline; return how many. See `Runs.set_timeout`."""
        return self._reached(managing.timing(self._app, Command.of(which, asked), timeout))

    def replay(
        self,
        which: Which | None = None,
        *,
        within: Duration = 10.0,
        **asked: Unpack[AskedOfVersion],
    ) -> tuple[ReplayInfo, ...]:
        """Run today's code over the histories of runs, and tell whether they agree. See `Runs.replay`."""
        command = Command.of(which, asked)
        seconds = seconds_of(within, "within=")
        found = blocking(lambda: self._app.replay_operation(command, seconds), self._app)
        return cast("tuple[ReplayInfo, ...]", found)

    def export(self, which: Ids, *, children: bool = True) -> bytes:
        """Runs with all that is recorded of them, as JSON text. See `Runs.export`."""
        found = blocking(lambda: managing.exporting(self._app, which, children=children), self._app)
        return cast("bytes", found)

    def load(self, document: str | bytes, *, prefix: str = "", reason: str | None = None) -> tuple[str, ...]:
        """Load runs that were exported; return their ids. See `Runs.load`."""
        found = blocking(lambda: managing.loading(self._app, document, prefix, reason), self._app)
        return cast("tuple[str, ...]", found)

    def set_tags(
        self,
        which: Which,
        tags: Mapping[str, Any],
        *,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Merge tags into those of runs; return how many runs that were. See `Runs.set_tags`."""
        return self._reached(
            managing.tagging(self._app, Command.of(which, {"reason": reason, "progress": progress}), tags)
        )

    def set_output(
        self,
        which: Which,
        step: str | int,
        value: Any,
        *,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Correct what a step was recorded with; return of how many runs. See `Runs.set_output`."""
        return self._reached(
            managing.correcting(
                self._app, Command.of(which, {"reason": reason, "progress": progress}), step, value
            )
        )

    def audit(self, id: Id | None = None, *, limit: int = 100) -> tuple[AuditInfo, ...]:
        """What was done to a run, or to all, newest first."""
        found = blocking(lambda: managing.auditing(self._app, id, limit), self._app)
        return cast("tuple[AuditInfo, ...]", found)

    def _reached(self, operation: Operation) -> int:
        return cast("int", blocking(lambda: operation, self._app))
