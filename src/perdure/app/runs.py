"""`app.runs`: the runs in the app's database, in two colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from perdure.client import blocking, on_loop
from perdure.models import CancelReason, RunDetail, RunFilter, RunInfo

if TYPE_CHECKING:
    from perdure.app.apps import BlockingPerdure, Perdure


class Runs:
    """The runs in the app's database."""

    def __init__(self, app: Perdure) -> None:
        self._app = app

    async def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first.

        Example:
            await app.runs.list(status="failed", workflow="shop.checkout", limit=20)
        """
        return cast("list[RunInfo]", await on_loop(self._app.list_operation(where, filters), self._app))

    async def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        return cast("int", await on_loop(self._app.count_operation(where, filters), self._app))

    async def get(self, id: str) -> RunDetail:
        """One run with its steps.

        Raises:
            WorkflowNotFound: no run has this id.
        """
        return cast("RunDetail", await on_loop(self._app.get_operation(id), self._app))

    async def cancel(self, which: str | Sequence[str] | RunFilter) -> int:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        cancel = self._app.cancel_runs
        operation = self._app.act_operation(
            which, lambda keys: cancel(keys, CancelReason.ASKED), "runs.cancel"
        )
        return cast("int", await on_loop(operation, self._app))

    async def resume(self, which: str | Sequence[str] | RunFilter) -> int:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return cast(
            "int",
            await on_loop(self._app.act_operation(which, self._app.resume_runs, "runs.resume"), self._app),
        )


class BlockingRuns:
    """The runs in the app's database, for blocking code; see `Runs`."""

    def __init__(self, app: BlockingPerdure) -> None:
        self._app = app

    def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first."""
        return cast("list[RunInfo]", blocking(self._app.list_operation(where, filters), self._app))

    def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        return cast("int", blocking(self._app.count_operation(where, filters), self._app))

    def get(self, id: str) -> RunDetail:
        """One run with its steps; raises `WorkflowNotFound`."""
        return cast("RunDetail", blocking(self._app.get_operation(id), self._app))

    def cancel(self, which: str | Sequence[str] | RunFilter) -> int:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        cancel = self._app.cancel_runs
        operation = self._app.act_operation(
            which, lambda keys: cancel(keys, CancelReason.ASKED), "runs.cancel"
        )
        return cast("int", blocking(operation, self._app))

    def resume(self, which: str | Sequence[str] | RunFilter) -> int:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return cast(
            "int", blocking(self._app.act_operation(which, self._app.resume_runs, "runs.resume"), self._app)
        )
