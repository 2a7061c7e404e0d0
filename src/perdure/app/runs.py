"""`app.runs`: the runs in the app's database, and what can be done to them."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from perdure.app.base import filter_of
from perdure.client import Handle, Operation, managing, on_loop
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
    read_which,
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
from perdure.serial import Payload

if TYPE_CHECKING:
    from perdure.app.apps import Perdure
    from perdure.app.base import BaseApp

_ANYTHING = Payload.of(Any)


def forked(app: BaseApp, which: Which, how: Forked, kind: Any) -> Operation:
    """The operation that forks runs and returns the handle of the fork, or of each, of the colour asked for."""
    chosen = read_which(which)
    made = yield from managing.forking(app, chosen, how)
    handles = [kind(app, id, _ANYTHING) for id in made]
    return handles[0] if isinstance(chosen, str) else handles


class Runs:
    """The runs in the app's database.

    What is done to several takes `which`: an id, ids or a `RunFilter`, or the fields of one as keywords. A handle or a
    `RunInfo` stands for its id. A keyword that is None is not said, and an empty one is refused: all runs are meant by
    `RunFilter()` alone. With `limit` it is done to so many at most, the newest; without, to all that match. It is done
    some hundred at a time, each in one transaction; `progress` is called after each with how many were reached so far.
    All of it is noted, with `reason`, in the audit (`audit`).
    """

    def __init__(self, app: Perdure) -> None:
        self._app = app

    def list(self, where: RunFilter | None = None, **filters: Any) -> Coroutine[object, None, list[RunInfo]]:
        """Runs that match a `RunFilter`, or its fields as keywords; newest first.

        Example:
            await app.runs.list(status="failed", workflow="shop.checkout", limit=20)
        """
        wanted = filter_of(where, filters)
        return on_loop(lambda: self._app.list_operation(wanted), self._app)

    def count(self, where: RunFilter | None = None, **filters: Any) -> Coroutine[object, None, int]:
        """How many runs match."""
        wanted = filter_of(where, filters)
        return on_loop(lambda: self._app.count_operation(wanted), self._app)

    def get(self, id: Id) -> Coroutine[object, None, RunDetail]:
        """One run with its steps, and why it waits.

        Raises:
            WorkflowNotFound: no run has this id.
        """
        return on_loop(lambda: self._app.get_operation(id_of(id)), self._app)

    def cancel(
        self,
        which: Which | None = None,
        *,
        compensate: bool = True,
        **asked: Unpack[AskedOfVersion],
    ) -> Coroutine[object, None, int]:
        """Ask runs to stop; return how many were not too late.

        Args:
            which: id, ids or filter.
            compensate: let their code clean up and undo. False stops them at once: no more of their code is run, beyond
                the durable call that it is in.
            asked: fields of a `RunFilter`, instead of `which`; `reason` and `progress`.

        Raises:
            WorkflowNotFound: a single id was given, and no run has it.
        """
        command = Command.of(which, asked)
        return on_loop(lambda: managing.cancelling(self._app, command, compensate=compensate), self._app)

    def resume(
        self,
        which: Which | None = None,
        *,
        version: str | None = None,
        **asked: Unpack[Asked],
    ) -> Coroutine[object, None, int]:
        """Have parked and failed runs go on where they stopped, on today's code; return how many do.

        Of a failed one the error that ended it is forgotten, and that step runs again. One that has undone what it did
        has nothing to go on from, and is not resumed.

        Args:
            which: id, ids or filter.
            version: of the code that is to go on with them; their own by default.
            asked: fields of a `RunFilter`, instead of `which`; `reason` and `progress`.
        """
        command = Command.of(which, asked)
        return on_loop(lambda: managing.resuming(self._app, command, version), self._app)

    def restart(
        self,
        which: Which | None = None,
        *,
        version: str | None = None,
        **asked: Unpack[Asked],
    ) -> Coroutine[object, None, int]:
        """Begin runs anew under their ids, from the beginning; return how many.

        A run that has ended, or that nobody runs at the moment (parked, queued, waiting), gets a new life with the same
        input, tags and messages; what the old one recorded is kept. One that is running is left alone: cancel it first.

        Args:
            which: id, ids or filter.
            version: of the code that is to run them; their own by default.
            asked: fields of a `RunFilter`, instead of `which`; `reason` and `progress`.
        """
        command = Command.of(which, asked)
        return on_loop(lambda: managing.restarting(self._app, command, version), self._app)

    @overload
    def fork(self, which: Id, **how: Unpack[Forked]) -> Coroutine[object, None, Handle[Any]]: ...
    @overload
    def fork(
        self, which: Several, **how: Unpack[Forked]
    ) -> Coroutine[object, None, Sequence[Handle[Any]]]: ...
    def fork(self, which: Which, **how: Unpack[Forked]) -> Coroutine[object, None, Any]:
        """Start a new run with part of another's history; that one is not touched, and may be running.

        Args:
            which: id of the run to fork; of ids or a filter, each is forked, and the handles come in a list, in the order
                of the ids, or, of a filter, the newest first.
            from_step: the step that is to run again, with all that the code was told with it and after it; its position,
                or its name, of which the last counts. By default nothing is kept.
            outputs: other results for steps that are kept, by position or name.
            args: other arguments; with `kwargs`, instead of the run's own.
            kwargs: the same, named.
            new_id: of the new run; made of the old one by default.
            version: of the code that is to run it.
            queue: in which it waits; the old one's by default.
            reason: for the audit.

        Raises:
            WorkflowNotFound: no run has this id.
            WorkflowConflict: `new_id` is taken.
            PerdureError: there is no such step.
            ValueError: outputs are given for steps that are not kept.
        """
        return on_loop(lambda: forked(self._app, which, how, Handle), self._app)

    def delete(
        self,
        which: Which | None = None,
        *,
        children: bool = True,
        **asked: Unpack[AskedOfVersion],
    ) -> Coroutine[object, None, int]:
        """Delete runs that have ended, with all that is recorded of them; return how many.

        A run is left alone if it, or one of its children, has not ended, or if one that has not is its parent or waits for it.

        Args:
            which: id, ids or filter.
            children: delete the runs that they started too, and those of these.
            asked: fields of a `RunFilter`, instead of `which`; `reason` and `progress`.
        """
        command = Command.of(which, asked)
        return on_loop(lambda: managing.deleting(self._app, command, children=children), self._app)

    def prune(
        self,
        retention: Retention | None = None,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> Coroutine[object, None, Pruned]:
        """Delete what has ended and is kept no longer, whole trees at a time; return what that was.

        The workers of an app with `Perdure(retention=...)` do it by themselves.

        Args:
            retention: how long runs are kept; the app's own by default.
            dry_run: delete nothing, and return what would go.
            limit: runs; it stops before the first tree that would exceed it.
            reason: for the audit, which gets one row for all.
            progress: called after each transaction, with the number of runs so far.

        Raises:
            ValueError: neither is there a retention of the app's; or a limit below 1.

        Example:
            would = await app.runs.prune(Retention(succeeded=timedelta(days=7)), dry_run=True)
            print(would.runs, would.workflows, would.rows)
        """
        how: Any = {"dry_run": dry_run, "limit": limit, "reason": reason, "progress": progress}
        kept = checked_retention(retention) or self._app.retention
        return on_loop(lambda: pruning(self._app, kept, **how), self._app)

    def set_timeout(
        self,
        which: Which | None = None,
        *,
        timeout: Duration | None,
        **asked: Unpack[AskedOfVersion],
    ) -> Coroutine[object, None, int]:
        """Give unfinished runs another deadline; return how many.

        Args:
            which: id, ids or filter.
            timeout: seconds or `timedelta` from now; None takes the deadline away.
            asked: fields of a `RunFilter`, instead of `which`; `reason` and `progress`.
        """
        command = Command.of(which, asked)
        return on_loop(lambda: managing.timing(self._app, command, timeout), self._app)

    def replay(
        self,
        which: Which | None = None,
        *,
        within: Duration = 10.0,
        **asked: Unpack[AskedOfVersion],
    ) -> Coroutine[object, None, tuple[ReplayInfo, ...]]:
        """Run today's code over the histories of runs, and tell of each whether they agree: the gate before a deploy.

        Nothing is written, no body of a step is run, and the runs are not disturbed: the code is stopped where the record
        ends, where it leaves the record, or where it ends.

        Args:
            which: id, ids or filter.
            within: seconds for each run, after which code that waits for something else is given up.
            asked: fields of a `RunFilter`, instead of `which`; `progress`.

        Example:
            bad = [found for found in await app.runs.replay(status=["waiting", "queued"]) if not found.agrees]
        """
        command = Command.of(which, asked)
        seconds = seconds_of(within, "within=")
        return on_loop(lambda: self._app.replay_operation(command, seconds), self._app)

    def export(self, which: Ids, *, children: bool = True) -> Coroutine[object, None, bytes]:
        """Runs with all that is recorded of them, as JSON text; docs/reference/export-format.md says what is in it.

        Args:
            which: id or ids, no filter; earlier lives under them come along. Of no ids it is an empty export.
            children: take the runs along that they started, and those of these.

        Raises:
            WorkflowNotFound: no run has such an id.

        Example:
            Path("order-7.json").write_bytes(await app.runs.export("order-7"))
        """
        return on_loop(lambda: managing.exporting(self._app, which, children=children), self._app)

    def load(
        self, document: str | bytes, *, prefix: str = "", reason: str | None = None
    ) -> Coroutine[object, None, tuple[str, ...]]:
        """Load runs that were exported, here or from another database; return their ids.

        They get new keys, and with them new idempotency keys for what they still do. What had not ended is parked until
        somebody resumes it.

        Args:
            document: what `export` gave.
            prefix: put before every id.
            reason: for the audit.

        Raises:
            WorkflowConflict: a run here has such an id; nothing is loaded.
            ValueError: it is no export, or of a newer format.
        """
        return on_loop(lambda: managing.loading(self._app, document, prefix, reason), self._app)

    def set_tags(
        self,
        which: Which,
        tags: Mapping[str, Any],
        *,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> Coroutine[object, None, int]:
        """Merge tags into those of runs; return how many runs that were.

        Args:
            which: id, ids or filter; ended ones too.
            tags: names to JSON values; a tag that is None is taken away.
            reason: for the audit.
            progress: called with the number reached so far.

        Raises:
            ValueError: they are no tags.
            WorkflowNotFound: a single id was given, and no run has it.
        """
        command = Command.of(which, {"reason": reason, "progress": progress})
        return on_loop(lambda: managing.tagging(self._app, command, tags), self._app)

    def set_output(
        self,
        which: Which,
        step: str | int,
        value: Any,
        *,
        reason: str | None = None,
        progress: Progress | None = None,
    ) -> Coroutine[object, None, int]:
        """Correct what a step was recorded with, a failure too; the run's code will be told this instead.

        Args:
            which: id, ids or filter, of runs that are not running at the moment. Of several, those are left alone where it
                cannot be done; the number of the others is returned.
            step: its position, or its name, of which the last counts.
            value: the result; of the type that the step returns.
            reason: for the audit, which keeps the old value.
            progress: called with the number reached so far.

        Raises:
            WorkflowNotFound: no run has this id.
            PerdureError: nothing is recorded there, it is no result of a step, or the run is running.
            SerializationError: the value is not what the step returns.
        """
        command = Command.of(which, {"reason": reason, "progress": progress})
        return on_loop(lambda: managing.correcting(self._app, command, step, value), self._app)

    def audit(
        self, id: Id | None = None, *, limit: int = 100
    ) -> Coroutine[object, None, tuple[AuditInfo, ...]]:
        """What was done to a run, or to all, newest first: when, by whom, what and why.

        Args:
            id: of the run; None means all.
            limit: at most so many lines, up to 10,000.
        """
        return on_loop(lambda: managing.auditing(self._app, id, limit), self._app)
