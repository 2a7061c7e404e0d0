"""`app.schedules`: what is to run by itself, looked at and changed live."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from perdure.client import BlockingHandle, Handle, Operation, blocking, on_loop
from perdure.client import scheduling as operations
from perdure.declare.schedules import Schedule
from perdure.models import Duration
from perdure.schedules import Overlap, ScheduleInfo
from perdure.serial import Payload

if TYPE_CHECKING:
    from perdure.app.apps import BlockingPerdure, Perdure

_ANYTHING = Payload.of(Any)


class Changes(TypedDict, total=False):
    """What of a schedule can be changed live; see `Schedules.update`."""

    cron: str | None
    every: Duration | None
    anchor: datetime | None
    timezone: str
    overlap: Overlap
    jitter: Duration
    catch_up: Duration | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    queue: str | None
    priority: int
    timeout: Duration | None
    version: str | None
    tags: Mapping[str, Any] | None


def _triggered(app: Any, kind: Any, name: str, overlap: Overlap | None, reason: str | None) -> Operation:
    """Trigger, and return the run's handle, of the colour asked for."""
    id = yield from operations.triggering(app, name, overlap, reason)
    return None if id is None else kind(app, id, _ANYTHING)


class Schedules:
    """The schedules in the app's database. What is done to them is noted in the audit, under their names."""

    def __init__(self, app: Perdure) -> None:
        self._app = app

    def apply(self, *schedules: Schedule) -> Coroutine[object, None, tuple[str, ...]]:
        """Declare schedules, as `@scheduled` does; return the names of those that are new, or declared otherwise than before.

        It may be done at every start of the program: what has been changed live is undone only where the declaration has
        changed since. Those that are not named stay as they are.

        Args:
            schedules: what to declare; without any, all that `@scheduled` has declared in this process.

        Raises:
            ValueError: two have one name.
            SerializationError: arguments are not of the workflow's types.

        Example:
            weekly = [Schedule(report, "0 7 * * MON", name=f"report-{team}", args=(team,)) for team in teams]
            await app.schedules.apply(*weekly)
        """
        return on_loop(lambda: operations.applying(self._app, schedules), self._app)

    def list(
        self,
        *,
        workflow: str | None = None,
        paused: bool | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Coroutine[object, None, Sequence[ScheduleInfo]]:
        """Schedules, by name.

        Args:
            workflow: only those of this workflow, by its stored name.
            paused: only those that rest, or only those that do not.
            limit: at most so many, up to 10,000.
            after: name of the last one of the page before.
        """
        return on_loop(
            lambda: operations.listing(self._app, workflow=workflow, paused=paused, limit=limit, after=after),
            self._app,
        )

    def get(self, name: str) -> Coroutine[object, None, ScheduleInfo]:
        """One schedule, with its next five ticks and the runs that its ticks wait for.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        return on_loop(lambda: operations.getting(self._app, name), self._app)

    def pause(self, name: str, note: str | None = None) -> Coroutine[object, None, None]:
        """Have a schedule rest: no ticks, and those that wait go on waiting; until somebody resumes it.

        Args:
            name: of the schedule.
            note: why, for others and for the audit.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        return on_loop(lambda: operations.pausing(self._app, name, note, paused=True), self._app)

    def resume(self, name: str, reason: str | None = None) -> Coroutine[object, None, None]:
        """Have a schedule go on with the next tick; what came while it rested is not made up (`backfill` does that).

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        return on_loop(lambda: operations.pausing(self._app, name, reason, paused=False), self._app)

    def update(
        self, name: str, *, reason: str | None = None, **changes: Unpack[Changes]
    ) -> Coroutine[object, None, None]:
        """Change a schedule, until the code declares it otherwise than now.

        Args:
            name: of the schedule.
            reason: for the audit.
            changes: fields of `Schedule`, such as `cron="0 3 * * *"`; the others stay. `every=` replaces `cron=`, and the
                other way round; `args` and `kwargs` replace all arguments.

        Raises:
            ScheduleNotFound: there is none of this name.
            ValueError: a field has a value that it cannot have.
            TypeError: there is no such field, or the workflow does not take these arguments.
        """
        return on_loop(lambda: operations.updating(self._app, name, changes, reason), self._app)

    def trigger(
        self, name: str, *, overlap: Overlap | None = None, reason: str | None = None
    ) -> Coroutine[object, None, Handle[Any] | None]:
        """Have the schedule's workflow run now, also while it is paused; `info().scheduled_at` is now.

        Returns the run's handle. Where the policy has it wait for another to end, the run is there only once it begins; where
        it has it skipped, there is none, and None is returned.

        Args:
            name: of the schedule.
            overlap: another policy for this once; `"allow"` starts it whatever runs.
            reason: for the audit.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        return on_loop(lambda: _triggered(self._app, Handle, name, overlap, reason), self._app)

    def backfill(
        self,
        name: str,
        first: datetime,
        until: datetime,
        *,
        queue: str | None = None,
        reason: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Coroutine[object, None, int]:
        """Start a run for every past tick of a span that has none; return how many.

        A tick that has a run, of whatever outcome, gets no other: a backfill can be repeated, and can overlap with others and
        with what the schedule does. All its runs are queued at once, and the schedule's own ticks do not wait for them; how many
        run at a time is the queue's to say. It is done 500 at a time; `progress` is called after each with how many so far.

        Args:
            name: of the schedule, which may be paused.
            first: aware; a tick of this very moment is in it.
            until: aware; a tick of this very moment is not. What lies ahead is left to the schedule.
            queue: in which the runs wait; the schedule's by default.
            reason: for the audit.
            progress: called with the number of runs started so far.

        Raises:
            ScheduleNotFound: there is none of this name.
            ValueError: a time has no zone.
        """
        return on_loop(
            lambda: operations.backfilling(self._app, name, first, until, queue, reason, progress), self._app
        )

    def delete(self, name: str, reason: str | None = None) -> Coroutine[object, None, None]:
        """Delete a schedule; its runs stay. One that the code declares comes back when a worker with that code opens.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        return on_loop(lambda: operations.deleting(self._app, name, reason), self._app)


class BlockingSchedules:
    """The schedules in the app's database, for blocking code; see `Schedules`."""

    def __init__(self, app: BlockingPerdure) -> None:
        self._app = app

    def apply(self, *schedules: Schedule) -> tuple[str, ...]:
        """Declare schedules; return the names of those that are new or changed. See `Schedules.apply`."""
        return cast("tuple[str, ...]", self._do(lambda: operations.applying(self._app, schedules)))

    def list(
        self,
        *,
        workflow: str | None = None,
        paused: bool | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Sequence[ScheduleInfo]:
        """Schedules, by name. See `Schedules.list`."""
        found = self._do(
            lambda: operations.listing(self._app, workflow=workflow, paused=paused, limit=limit, after=after)
        )
        return cast("Sequence[ScheduleInfo]", found)

    def get(self, name: str) -> ScheduleInfo:
        """One schedule; raises `ScheduleNotFound`."""
        return cast("ScheduleInfo", self._do(lambda: operations.getting(self._app, name)))

    def pause(self, name: str, note: str | None = None) -> None:
        """Have a schedule rest. See `Schedules.pause`."""
        self._do(lambda: operations.pausing(self._app, name, note, paused=True))

    def resume(self, name: str, reason: str | None = None) -> None:
        """Have a schedule go on with the next tick. See `Schedules.resume`."""
        self._do(lambda: operations.pausing(self._app, name, reason, paused=False))

    def update(self, name: str, *, reason: str | None = None, **changes: Unpack[Changes]) -> None:
        """Change a schedule until the code declares it otherwise. See `Schedules.update`."""
        self._do(lambda: operations.updating(self._app, name, changes, reason))

    def trigger(
        self, name: str, *, overlap: Overlap | None = None, reason: str | None = None
    ) -> BlockingHandle[Any] | None:
        """Have the schedule's workflow run now. See `Schedules.trigger`."""
        handle = self._do(lambda: _triggered(self._app, BlockingHandle, name, overlap, reason))
        return cast("BlockingHandle[Any] | None", handle)

    def backfill(
        self,
        name: str,
        first: datetime,
        until: datetime,
        *,
        queue: str | None = None,
        reason: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Start a run for every past tick of a span that has none; return how many. See `Schedules.backfill`."""
        return cast(
            "int",
            self._do(lambda: operations.backfilling(self._app, name, first, until, queue, reason, progress)),
        )

    def delete(self, name: str, reason: str | None = None) -> None:
        """Delete a schedule; its runs stay. See `Schedules.delete`."""
        self._do(lambda: operations.deleting(self._app, name, reason))

    def _do(self, make: Callable[[], Operation]) -> Any:
        return blocking(make, self._app)
