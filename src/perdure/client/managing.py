"""What people do to runs: by id, ids or filter, some hundred at a time, each time noted in `audit`.

Every verb is one operation for both colours. Inside a workflow it is a recorded step, as everything is there.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from perdure.arguments import limit as check_limit
from perdure.arguments import truth
from perdure.client.choosing import Chosen, Command, Forked, id_of, read_which
from perdure.client.current import App
from perdure.client.operations import Operation, arguments_of, check_tags, describe, read
from perdure.core.branch import current
from perdure.core.registry import steps, workflows
from perdure.errors import PerdureError, WorkflowConflict, WorkflowNotFound
from perdure.models import CancelReason, Duration, RunFilter, RunInfo, seconds_of
from perdure.serial import Payload, check_size, check_text
from perdure.store import archive, operations
from perdure.store import runs as stored
from perdure.store.loading import Taken, load

AT_ONCE: Final = 500
"""Runs changed in one transaction."""
_COUNT: Final = Payload.of(int)
_ANYTHING: Final = Payload.of(Any)


def note_of(app: App, reason: str | None) -> operations.Note:
    """What `audit` is to say: the run that does it, or who is logged in and the app's name."""
    branch = current.get()
    who = f"{_login()} ({app.name})" if branch is None else f"run {branch.run.id}"
    return operations.Note(who, None if reason is None else check_text(reason, "reason="))


def checked_name(name: Any, what: str) -> None:
    """Refuse a name that is given and cannot be one.

    Raises:
        TypeError: it is no text.
        ValueError: the database would not take it.
    """
    if name is not None:
        check_text(name, what)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"


def pages(app: App, which: Chosen) -> Iterator[list[RunInfo]]:
    """The runs meant, some hundred at a time, the newest first; of a filter no more than its limit.

    Raises:
        WorkflowNotFound: a single id was given, and no run has it.
    """
    if isinstance(which, str):
        yield [describe(app, which)]
        return
    where = which if isinstance(which, RunFilter) else RunFilter(ids=which)
    cursor, left = where.cursor, where.limit
    while left is None or left > 0:
        at_once = AT_ONCE if left is None else min(left, AT_ONCE)
        found = stored.list_runs(app.database, replace(where, limit=at_once, cursor=cursor))
        if found:
            yield found
        if len(found) < at_once:
            return
        cursor, left = found[-1].cursor, None if left is None else left - at_once


def bulk(app: App, command: Command, action: Callable[[list[RunInfo]], list[int]]) -> int:
    """Do something to runs; return how many it reached."""
    reached = 0
    for found in pages(app, command.which):
        some, runs = action(found), found
        while not some and isinstance(command.which, str):
            latest = describe(app, command.which)
            if latest.key == runs[0].key:
                break
            runs = [latest]  # it has gone on as new meanwhile: the same for its next life
            some = action(runs)
        reached += len(some)
        if command.progress is not None:
            command.progress(reached)
    return reached


def _keys(runs: Sequence[RunInfo]) -> list[int]:
    return [run.key for run in runs]


def cancelling(app: App, command: Command, *, compensate: bool) -> Operation:
    """Ask runs to stop."""
    reason = CancelReason.ASKED if compensate else CancelReason.AT_ONCE
    note = note_of(app, command.reason)
    work: Any = lambda runs: app.cancel_runs(_keys(runs), reason, note)  # noqa: E731
    return read("runs.cancel", lambda: bulk(app, command, work), _COUNT)


def resuming(app: App, command: Command, version: str | None) -> Operation:
    """Have parked and failed runs go on."""
    checked_name(version, "version=")
    note = note_of(app, command.reason)
    return _changing(
        app, "resume", command, lambda runs: operations.resume(app.database, _keys(runs), note, version)
    )


def restarting(app: App, command: Command, version: str | None) -> Operation:
    """Begin runs anew under their ids."""
    checked_name(version, "version=")
    note = note_of(app, command.reason)

    def restart(runs: list[RunInfo]) -> list[int]:
        news = {run.key: (app.runtime.new_key(), _timeout_of(run)) for run in runs}
        return operations.restart(app.database, news, note, version)

    return _changing(app, "restart", command, restart)


def timing(app: App, command: Command, timeout: Duration | None) -> Operation:
    """Give unfinished runs another deadline."""
    note = note_of(app, command.reason)
    seconds = None if timeout is None else seconds_of(timeout, "timeout=")
    return _changing(
        app,
        "set_timeout",
        command,
        lambda runs: operations.set_deadlines(app.database, _keys(runs), note, seconds),
    )


def tagging(app: App, command: Command, tags: Mapping[str, Any]) -> Operation:
    """Change tags of runs."""
    checked, note = check_tags(tags), note_of(app, command.reason)
    return _changing(
        app, "set_tags", command, lambda runs: operations.set_tags(app.database, _keys(runs), note, checked)
    )


def deleting(app: App, command: Command, *, children: bool) -> Operation:
    """Delete runs that have ended."""
    note = note_of(app, command.reason)
    return _changing(
        app,
        "delete",
        command,
        lambda runs: operations.delete(app.database, _keys(runs), note, children=children),
    )


def _changing(
    app: App, verb: str, command: Command, action: Callable[[list[RunInfo]], list[int]]
) -> Operation:
    def work() -> int:
        reached = bulk(app, command, action)
        if reached:
            app.changed()
        return reached

    return read(f"runs.{verb}", work, _COUNT)


def _timeout_of(run: RunInfo) -> float | None:
    definition = workflows.get(run.workflow)
    return None if definition is None else definition.timeout


def forking(app: App, which: Chosen, how: Forked) -> Operation:
    """Fork runs; the operation returns the ids of the forks, of ids in their order."""
    note = note_of(app, how.get("reason"))
    for name in ("version", "queue"):
        checked_name(how.get(name), f"{name}=")
    if how.get("outputs") and how.get("from_step") is None:
        raise ValueError("outputs= are for steps that the fork keeps: say from_step=")
    if (new_id := how.get("new_id")) is not None:
        check_text(new_id, "new_id=")
        if not isinstance(which, str):
            raise ValueError("new_id= is for one fork: of several each gets an id of its own")

    def work() -> list[str]:
        runs = [run for page in pages(app, which) for run in page]
        if isinstance(which, tuple):
            order = {id: place for place, id in enumerate(which)}
            runs.sort(key=lambda run: order[run.id])
        made = [_forked(app, run, how, note) for run in runs]
        app.changed()
        return made

    return read("runs.fork", work, Payload.of(list[str]))


def _forked(app: App, origin: RunInfo, how: Forked, note: operations.Note) -> str:
    key, step = app.runtime.new_key(), how.get("from_step")
    what = operations.Fork(
        origin.key,
        key,
        how.get("new_id") or f"{origin.id[:400]}/fork-{key:x}",
        None if step is None else _cut(app, origin, step),
        _outputs(app, origin, how.get("outputs") or {}),
        _input(origin, how.get("args"), how.get("kwargs")),
        _timeout_of(origin),
        how.get("queue"),
        how.get("version"),
    )
    try:
        made = operations.fork(app.database, what, note)
    except operations.Deleted:
        raise WorkflowNotFound(f"run {origin.id} has been deleted meanwhile") from None
    except operations.Unkept as unkept:
        raise ValueError(f"outputs= are for steps that the fork keeps, which it does not: {unkept}") from None
    if not made:
        raise WorkflowConflict(f"there is a run with the id {what.id!r} already")
    return what.id


def position_of(step: str | int) -> str:
    """A step by its position, which may be given as the number that it looks like, or by its name.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(step, bool) or not isinstance(step, str | int):
        raise TypeError(f"a step is given by its position or its name, not as {step!r}")
    return check_text(str(step), "step")


def _cut(app: App, run: RunInfo, step: str | int) -> operations.Cut:
    step = position_of(step)
    cut = operations.find_cut(app.database, run.key, step)
    if cut is None:
        raise PerdureError(
            f"run {run.id} has no step {step!r}: give its position or its name, as `steps()` has them"
        )
    return cut


def _input(run: RunInfo, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> bytes | None:
    """Other arguments, checked against the workflow's signature where its code is here."""
    if args is None and kwargs is None:
        return None
    return arguments_of(workflows.get(run.workflow), args or (), kwargs or {})


def _outputs(app: App, run: RunInfo, outputs: Mapping[Any, Any]) -> dict[str, bytes]:
    """Other results by position."""
    cuts = {step: _cut(app, run, step) for step in outputs}
    return {cuts[step].position: _stored(cuts[step], value) for step, value in outputs.items()}


def _stored(cut: operations.Cut, value: Any) -> bytes:
    """A result as the step would have it recorded, where its code is here."""
    definition = steps.get(cut.name)
    payload = _ANYTHING if definition is None else definition.signature.result
    return check_size(payload.encode(value), what="the output")


def correcting(app: App, command: Command, which_step: str | int, value: Any) -> Operation:
    """Correct what a step was recorded with; of several runs those are left alone where that cannot be done."""
    step = position_of(which_step)
    note, alone = note_of(app, command.reason), isinstance(command.which, str)

    def correct(runs: list[RunInfo]) -> list[int]:
        corrected: list[int] = []
        for run in runs:
            try:
                cut = operations.find_cut(app.database, run.key, step)
                if cut is None:
                    raise operations.Uncorrectable(
                        "it has recorded no such step: give its position or its name"
                    )
                operations.set_output(app.database, run.key, cut.position, _stored(cut, value), note)
            except operations.Uncorrectable as why:
                if alone:
                    raise PerdureError(
                        f"the output of {step!r} of run {run.id} cannot be set: {why}"
                    ) from None
            else:
                corrected.append(run.key)
        return corrected

    return read("runs.set_output", lambda: bulk(app, command, correct), _COUNT)


def exporting(app: App, which: Any, *, children: bool) -> Operation:
    """Runs with all that is recorded of them, as JSON text.

    Raises:
        TypeError: they are not given by their ids.
    """
    chosen = read_which(which)
    if isinstance(chosen, RunFilter):
        raise TypeError("export takes ids: list the runs of a filter first, with app.runs.list")
    ids = (chosen,) if isinstance(chosen, str) else chosen
    truth(children, "children=")

    def look() -> bytes:
        for id in ids:
            describe(app, id)
        export = archive.export(app.database, ids, children=children)
        return msgspec.json.format(msgspec.json.encode(export), indent=1)

    return read("runs.export", look)


def loading(app: App, document: str | bytes, prefix: str, reason: str | None) -> Operation:
    """Load what was exported; the operation returns the ids."""
    export, note = archive.decode(document), note_of(app, reason)

    def work() -> tuple[str, ...]:
        try:
            return load(app.database, export, app.runtime.new_key, prefix, note)
        except Taken as taken:
            raise WorkflowConflict(
                f"there is a run with the id {str(taken)!r} already: delete it first, or give prefix="
            ) from None

    return read("runs.load", work, Payload.of(tuple[str, ...]))


def auditing(app: App, run: Any, limit: int) -> Operation:
    """What was done to runs."""
    id = None if run is None else id_of(run)
    check_limit(limit, "limit=")
    return read("runs.audit", lambda: tuple(operations.list_audit(app.database, id, limit)))
