"""What can be done to runs, each operation once, as a generator for both colours.

Inside a workflow waiting for another run is a durable call of the workflow; outside it is a wait in memory.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from perdure.client.current import App
from perdure.client.topics import written
from perdure.core.branch import Branch, current
from perdure.core.effects import Await, Use
from perdure.core.gate import Call
from perdure.core.middleware import context_of_start
from perdure.core.recorded import recorded
from perdure.core.registry import WorkflowDefinition, workflows
from perdure.core.starting import Start, Started, start, start_child, start_many, stored_options
from perdure.core.steps import success
from perdure.core.waits import end_of_run
from perdure.errors import (
    Deduplicated,
    PerdureError,
    SerializationError,
    WaitTimeout,
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowParked,
    WorkflowTimeout,
)
from perdure.models import Duration, Kind, RunDetail, RunFilter, RunInfo, Status, seconds_of
from perdure.options import Batch, Debounce, StartOptions
from perdure.serial import Payload, Signature, check_text, decode_failure
from perdure.store import merging
from perdure.store import runs as stored
from perdure.store.borrowed import check_connection
from perdure.store.why import why

Operation = Generator[Any, Any, Any]


_random = random.Random()
# Two processes with the same state would make the same ids in the same millisecond.
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in the order of time, which keeps the index on ids dense.

    Its random bits come from a generator seeded by the system: an id has to be unique, not secret, and a
    system call for each costs more than all the rest (7 % of a one-step run, measured).
    """
    bits = _random.getrandbits(74)
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    low = f"{0x2 << 62 | bits & (1 << 62) - 1:016x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{bits >> 62:03x}-{low[:4]}-{low[4:]}"


def check_tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse tags that the database could not store or search.

    Raises:
        ValueError: they are no JSON object, or hold a NUL character.
    """
    try:
        text = Payload.of(dict[str, Any]).encode(dict(tags))
    except (SerializationError, TypeError, ValueError) as error:
        raise ValueError(f"tags= must be a mapping of names to JSON values: {error}") from error
    if "" in tags:
        raise ValueError("tags= has a tag without a name")
    if b"\\u0000" in text:
        raise ValueError("tags= cannot hold a NUL character: the database could not search them")
    return dict(tags)


def options_of(changes: Mapping[str, Any]) -> StartOptions:
    """Check what the user gave to `.options(...)`.

    Raises:
        TypeError: there is no such option.
        ValueError: an option has a value that it cannot have.
    """
    options = dict(changes)
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"there is no option {name!r}: they are {', '.join(_OPTIONS)}")
    for name in ("delay", "timeout", "expires"):
        if options.get(name) is not None:
            options[name] = seconds_of(options[name], f"{name}=")
    if options.get("send") is not None:
        options["send"] = written(*options["send"])
    for name in ("id", "queue", "version", "key", "dedup"):
        if options.get(name) is not None:
            check_text(options[name], f"{name}=")
    if options.get("tags") is not None:
        options["tags"] = check_tags(options["tags"])
    if not -(2**31) <= options.get("priority", 0) < 2**31:
        raise ValueError("priority= is a 32-bit number; lower comes first")
    _check_names(options)
    options["merge"] = _merging(options.pop("debounce", None), options.pop("batch", None))
    if options["merge"] is not None and (wrong := options.keys() & _NOT_MERGED):
        raise ValueError(
            f"debounce= and batch= do not go with {', '.join(sorted(wrong))}=: several starts share one run"
        )
    return StartOptions(**options)


_OPTIONS = (*(name for name in StartOptions.__dataclass_fields__ if name != "merge"), "debounce", "batch")
_NOT_MERGED = {"id", "on_conflict", "delay", "dedup", "send", "connection", "parent_close"}


def _merging(debounce: Debounce | None, batch: Batch | None) -> dict[str, Any] | None:
    """How starts are to be merged.

    Raises:
        ValueError: both are given, or one has a value that it cannot have.
        TypeError: one is something else.
    """
    if debounce is not None and batch is not None:
        raise ValueError("debounce= and batch= exclude each other")
    for each, kind in ((debounce, Debounce), (batch, Batch)):
        if each is not None and not isinstance(each, kind):
            raise TypeError(f"{kind.__name__.lower()}= is a {kind.__name__}(...), not {each!r}")
    chosen = debounce or batch
    if chosen is None:
        return None
    if chosen.key is not None:
        check_text(chosen.key, "key=")
    return chosen.merging()


def _check_names(options: Mapping[str, Any]) -> None:
    """Refuse options that are one of a few words and are not; and those that do not go together.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    if options.get("on_conflict", "attach") not in ("attach", "reject", "restart_if_failed"):
        raise ValueError(
            f"on_conflict= is 'attach', 'reject' or 'restart_if_failed', not {options['on_conflict']!r}"
        )
    if options.get("parent_close", "cancel") not in ("cancel", "abandon", "wait"):
        raise ValueError(f"parent_close= is 'cancel', 'abandon' or 'wait', not {options['parent_close']!r}")
    if str(options.get("dedup") or "").startswith("!"):
        raise ValueError("dedup= does not begin with '!': those are perdure's own")
    if options.get("connection") is not None:
        check_connection(options["connection"])
        if "parent_close" in options:
            raise ValueError(
                "parent_close= is for children, and what is started with connection= has no parent"
            )


def starting(app: App, what: Start) -> Operation:
    """The operation that starts a run: as a child, inside a workflow; from outside else."""
    branch = current.get()
    if what.options.merge is not None:
        return merged(app, what, inside=branch is not None)
    if branch is not None:
        return start_child(branch, what)
    return start(app.runtime, what, new_id())


def merged(app: App, what: Start, *, inside: bool) -> Operation:
    """The operation that merges a start into a run that has not begun, or starts one that others will be merged into.

    Raises:
        PerdureError: inside a workflow, where a replay would merge it again.
        ValueError: what is to be gathered is not the only argument, a list.
    """
    if inside:
        raise PerdureError(
            "debounce= and batch= are for starts from outside: in a workflow, start it in a step"
        )
    merge, given = what.options.merge or {}, stored_options(app.runtime, what, here=False)
    if "size" in merge and not merging.is_list(what.input):
        raise ValueError("batch= gathers lists: the workflow has to have one argument, a list")
    key, id, born = yield Use(
        lambda: merging.start_merged(app.database, what.workflow, what.input, given, merge)
    )
    app.changed()
    return Started(key, id, born)


def starting_many(app: App, starts: Sequence[Start]) -> Operation:
    """The operation that starts many runs; it returns what was started, or the error, of each."""
    branch = current.get()
    if any(what.options.merge is not None for what in starts):
        return (yield from _each_merged(app, starts, inside=branch is not None))
    if branch is None:
        return (yield from start_many(app.runtime, starts, iter(new_id, None)))
    answers: list[Any] = []
    for what in starts:
        try:
            answers.append((yield from start_child(branch, what)))
        except (WorkflowConflict, Deduplicated) as error:
            answers.append(error)
    return answers


def _each_merged(app: App, starts: Sequence[Start], *, inside: bool) -> Operation:
    answers: list[Any] = []
    for what in starts:
        if what.options.merge is None:
            raise ValueError("start_many: starts with debounce= or batch= do not go with others in one call")
        answers.append((yield from merged(app, what, inside=inside)))
    return answers


def call_to_start(
    app: App, workflow: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: StartOptions
) -> Start:
    """What to start, by name: with its signature where its code is here, as plain JSON where it is not."""
    definition = workflows.get(workflow)
    context = context_of_start(app.runtime, check_text(workflow, "name"), options.id)
    return Start(workflow, arguments_of(definition, args, kwargs), options, definition, context)


def arguments_of(
    definition: WorkflowDefinition | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bytes:
    """Arguments as they are stored: by the workflow's signature, or, where its code is not here, as plain JSON."""
    if definition is None:
        return _unknown.encode_call(args, kwargs)
    definition.signature.bind(args, kwargs)
    return definition.signature.encode_call(args, kwargs)


def _anything(*args: Any, **kwargs: Any) -> None: ...


_unknown = Signature(_anything)


def wait_for_result(app: App, key: int, id: str, result: Payload, timeout: Duration | None) -> Operation:
    """Wait for the end of a run: durably inside a workflow, in memory outside."""
    seconds = None if timeout is None else seconds_of(timeout, "timeout=")
    branch = current.get()
    if branch is not None:
        return end_of_run(branch, key, id, result, seconds)
    return _result_outside(app, key, id, result, seconds)


def _result_outside(app: App, key: int, id: str, result: Payload, timeout: float | None) -> Operation:
    signal = app.runtime.end_of(key)
    exceptions = app.runtime.exceptions
    try:
        yield Await(signal, timeout)
    finally:
        app.unwatch(key, signal)
    if signal.error is not None:
        raise signal.error
    value = signal.value if signal.done else (yield Use(lambda: _look(app, key)))
    if value is None:
        raise WaitTimeout(f"run {id} did not end within {timeout:g} s; it goes on")
    if value is stored.DELETED:  # a past life that was pruned, perhaps, while the run goes on
        present = yield Use(lambda: stored.key_of(app.database, id))
        if present is not None and present[0] != key:
            return (yield from _result_outside(app, present[0], id, result, timeout))
    return result_of(value, id, result, exceptions)


def _look(app: App, key: int) -> Any:
    """How a run ended, or why it is parked, if so: the wait may have been shorter than the way to the database."""
    while ended := stored.find_ended(app.database, [key]):
        _, status, value = ended[0]
        if status is not Status.CONTINUED:
            return status, value
        key = int(value)
    for _, reason in stored.find_silent(app.database, [key]):
        return reason
    return None


def result_of(value: Any, id: str, result: Payload, exceptions: tuple[type[BaseException], ...]) -> Any:
    """Return the result of an ended run, or raise how else it ended."""
    if isinstance(value, str):
        raise WorkflowParked(f"run {id} is parked: {value}")
    status, payload = value
    if status is not Status.SUCCEEDED:
        error = decode_failure(payload, exceptions=exceptions, fallback=WorkflowFailed)
        if isinstance(error, WorkflowCancelled | WorkflowTimeout) and id not in str(error):
            error.args = (f"run {id}: {error}",)  # ended in bulk, with one text for all
        raise error
    return result.decode(payload)


def read(name: str, work: Any, payload: Payload | None = None) -> Operation:
    """Do something with the database: plainly outside a workflow, as a recorded step inside one."""
    branch = current.get()
    if branch is None:
        return _plainly(work)
    if payload is None:
        raise PerdureError(
            f"{name} is not recorded, so its answer would differ on a replay: call it in a step"
        )
    return _recorded_read(branch, name, work, payload)


def _plainly(work: Any) -> Operation:
    value = yield Use(work)
    return value


def _recorded_read(branch: Branch, name: str, work: Any, payload: Payload) -> Operation:
    def produce(_call: Call) -> Operation:
        yield from branch.run.barrier()
        value = yield Use(work)
        return success(branch.run, payload, value)

    return recorded(branch, Kind.STEP, name, produce, payload.decode)


def describe(app: App, id: str) -> RunInfo:
    """One run.

    Raises:
        WorkflowNotFound: no run has this id.
    """
    found = stored.list_runs(app.database, RunFilter(ids=[id]))
    if not found:
        raise WorkflowNotFound(f"no run has the id {id!r}")
    return found[0]


def explained(app: App, id: str) -> RunInfo:
    """One run, with why it does not go on."""
    info = describe(app, id)
    return replace(info, why=why(app.database, info))


def detail(app: App, id: str) -> RunDetail:
    """One run with everything recorded of it."""
    return stored.detail(app.database, describe(app, id))


def found(app: App, id: str) -> tuple[int, str]:
    """Key and workflow of the run with this id; raises `WorkflowNotFound`."""
    row = stored.key_of(app.database, id)
    if row is None:
        raise WorkflowNotFound(f"no run has the id {id!r}")
    return row


def result_payload(definition: WorkflowDefinition | None) -> Payload:
    """How a workflow's result is read."""
    return definition.signature.result if definition is not None else Payload.of(Any)
