"""`app.runs`: the runs in the app's database, in two colours."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from perdure.app.base import filter_of
from perdure.client import blocking, on_loop
from perdure.models import RunDetail, RunFilter, RunInfo

if TYPE_CHECKING:
    from perdure.app.apps import BlockingPerdure, Perdure

Which = str | Sequence[str] | RunFilter
"""One id, several, or a filter."""


class Runs:
    """The runs in the app's database."""

    def __init__(self, app: Perdure) -> None:
        self._app = app

    def get(self, id: str) -> Coroutine[object, None, RunDetail]:
        """One run with its steps.

        Raises:
            WorkflowNotFound: no run has this id.
        """
        return on_loop(lambda: self._app.get_operation(id), self._app)

    def count(self, where: RunFilter | None = None, **filters: Any) -> Coroutine[object, None, int]:
        """How many runs match."""
        wanted = filter_of(where, filters)
        return on_loop(lambda: self._app.count_operation(wanted), self._app)

    def cancel(self, which: Which) -> Coroutine[object, None, int]:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        return on_loop(lambda: self._app.cancel_operation(which), self._app)

    def resume(self, which: Which) -> Coroutine[object, None, int]:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return on_loop(lambda: self._app.resume_operation(which), self._app)

    def set_tags(self, which: Which, tags: Mapping[str, Any]) -> Coroutine[object, None, int]:
        """Merge tags into those of runs, by id, ids or filter; return how many runs that were.

        Args:
            which: the runs, ended ones too.
            tags: names to JSON values; a tag that is None is taken away.

        Raises:
            ValueError: they are no tags.
            WorkflowNotFound: a single id was given, and no run has it.
        """
        return on_loop(lambda: self._app.set_tags_operation(which, tags), self._app)

    def list(self, where: RunFilter | None = None, **filters: Any) -> Coroutine[object, None, list[RunInfo]]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first.

        Example:
            await app.runs.list(status="failed", workflow="shop.checkout", limit=20)
        """
        wanted = filter_of(where, filters)
        return on_loop(lambda: self._app.list_operation(wanted), self._app)


class BlockingRuns:
    """The runs in the app's database, for blocking code; see `Runs`."""

    def __init__(self, app: BlockingPerdure) -> None:
        self._app = app

    def get(self, id: str) -> RunDetail:
        """One run with its steps; raises `WorkflowNotFound`."""
        return cast("RunDetail", blocking(lambda: self._app.get_operation(id), self._app))

    def count(self, where: RunFilter | None = None, **filters: Any) -> int:
        """How many runs match."""
        wanted = filter_of(where, filters)
        return cast("int", blocking(lambda: self._app.count_operation(wanted), self._app))

    def cancel(self, which: Which) -> int:
        """Ask runs to stop, by id, ids or filter; return how many were not too late."""
        return cast("int", blocking(lambda: self._app.cancel_operation(which), self._app))

    def resume(self, which: Which) -> int:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do."""
        return cast("int", blocking(lambda: self._app.resume_operation(which), self._app))

    def set_tags(self, which: Which, tags: Mapping[str, Any]) -> int:
        """Merge tags into those of runs, by id, ids or filter; return how many runs that were."""
        return cast("int", blocking(lambda: self._app.set_tags_operation(which, tags), self._app))

    def list(self, where: RunFilter | None = None, **filters: Any) -> list[RunInfo]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first."""
        wanted = filter_of(where, filters)
        return cast("list[RunInfo]", blocking(lambda: self._app.list_operation(wanted), self._app))
