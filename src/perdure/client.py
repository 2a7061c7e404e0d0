"""What can be done to runs from Python, in both colours, and which app it is done with.

Each operation is written once, as a generator; the handles are its two skins. Inside a workflow waiting
for another run is a durable call of the workflow; outside it is a wait in memory.
"""

from __future__ import annotations

import linecache
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar, cast

from perdure.core.drive import drive, drive_blocking
from perdure.core.effects import Await, Use
from perdure.core.recorded import recorded
from perdure.core.registry import WorkflowDefinition, workflows
from perdure.core.run import Branch, Runtime, current
from perdure.core.starting import Start, Started, start, start_child
from perdure.core.steps import success
from perdure.core.waits import end_of_run
from perdure.errors import (
    NoCurrentApp,
    PerdureError,
    WaitTimeout,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowParked,
    WrongColour,
)
from perdure.models import (
    CancelReason,
    Duration,
    Kind,
    RunDetail,
    RunFilter,
    RunInfo,
    StartOptions,
    Status,
    StepInfo,
    seconds_of,
)
from perdure.serial import Payload, Signature, check_text, decode_failure
from perdure.store import runs as stored
from perdure.store.database import Database

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Operation = Generator[Any, Any, Any]


class App(Protocol):
    """What the operations need of an open app."""

    name: str
    blocking: bool
    pid: int

    @property
    def runtime(self) -> Runtime:
        """The owner of new runs."""

    @property
    def database(self) -> Database:
        """The app's database."""

    def cancel_runs(self, keys: Sequence[int], reason: CancelReason) -> list[int]:
        """Cancel runs; return the keys of those reached."""

    def resume_runs(self, keys: Sequence[int]) -> list[int]:
        """Resume runs; return the keys of those resumed."""

    def unwatch(self, key: int, signal: Any) -> None:
        """Nobody waits for the end of this run with this signal any more."""


open_apps: list[App] = []
"""The apps that are open in this process."""

bound_app: ContextVar[App | None] = ContextVar("perdure_app", default=None)


def current_app() -> App:
    """The app that a call is made with: the run's own, else the bound one, else the only open one.

    Raises:
        NoCurrentApp: there is none, or there are several.
        PerdureError: it was opened before a fork.
    """
    app = bound_app.get()
    if app is None:
        if len(open_apps) != 1:
            names = ", ".join(repr(app.name) for app in open_apps)
            raise NoCurrentApp(
                f"several apps are open ({names}): say which with `with app.bind():`"
                if names
                else "no app is open: `async with Perdure(...):` or `with perdure.sync.Perdure(...):` opens one"
            )
        app = open_apps[0]
    check_process(app)
    return app


def check_process(app: App) -> None:
    """Refuse an app that was opened in another process, whose threads and connections are not here."""
    if app.pid != os.getpid():
        raise PerdureError(
            f"app {app.name!r} was opened in process {app.pid} and cannot be used after fork(): open one in each "
            "process (gunicorn: in post_fork)"
        )


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in the order of time, which keeps the index on ids dense."""
    random = int.from_bytes(os.urandom(10), "big")
    stamp = time.time_ns() // 1_000_000
    text = f"{stamp:012x}7{random >> 68 & 0xFFF:03x}{0x8 | random >> 66 & 0x3:x}{random & (1 << 60) - 1:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def options_of(changes: Mapping[str, Any]) -> StartOptions:
    """Check what the user gave to `.options(...)`.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options = dict(changes)
    for name in ("delay", "timeout"):
        if options.get(name) is not None:
            options[name] = seconds_of(options[name], f"{name}=")
    for name in ("id", "queue", "version"):
        if options.get(name) is not None:
            check_text(options[name], f"{name}=")
    if options.get("on_conflict", "attach") not in ("attach", "reject", "restart_if_failed"):
        raise ValueError(
            f"on_conflict= is 'attach', 'reject' or 'restart_if_failed', not {options['on_conflict']!r}"
        )
    if not -(2**31) <= options.get("priority", 0) < 2**31:
        raise ValueError("priority= is a 32-bit number; lower comes first")
    return StartOptions(**options)


# -- starting --------------------------------------------------------------------------------------


def starting(what: Start) -> tuple[Operation, App]:
    """The operation that starts a run: as a child, inside a workflow; from outside else."""
    app = current_app()
    branch = current.get()
    if branch is not None:
        return start_child(branch, what), app
    return start(app.runtime, what, new_id()), app


def call_to_start(
    workflow: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: StartOptions
) -> Start:
    """What to start, by name: with its signature where its code is here, as plain JSON where it is not."""
    definition = workflows.get(workflow)
    if definition is not None:
        definition.signature.bind(args, kwargs)
        return Start(workflow, definition.signature.encode_call(args, kwargs), options, definition)
    return Start(check_text(workflow, "name"), _unknown.encode_call(args, kwargs), options, None)


def _anything(*args: Any, **kwargs: Any) -> None: ...


_unknown = Signature(_anything)


# -- waiting ---------------------------------------------------------------------------------------


def wait_for_result(app: App, key: int, id: str, result: Payload, timeout: Duration | None) -> Operation:
    """Wait for the end of a run: durably inside a workflow, in memory outside."""
    seconds = None if timeout is None else seconds_of(timeout, "timeout=")
    branch = current.get()
    if branch is not None:
        return end_of_run(branch, key, id, result, seconds)
    return _result_outside(app, key, id, result, seconds)


def _result_outside(app: App, key: int, id: str, result: Payload, timeout: float | None) -> Operation:
    signal = app.runtime.end_of(key)
    try:
        came = yield Await(signal, timeout)
    finally:
        app.unwatch(key, signal)
    if not came:
        raise WaitTimeout(f"run {id} did not end within {timeout:g} s; it goes on")
    return result_of(signal.value, id, result, app.runtime.exceptions)


def result_of(value: Any, id: str, result: Payload, exceptions: tuple[type[BaseException], ...]) -> Any:
    """Return the result of an ended run, or raise how else it ended."""
    if isinstance(value, str):
        raise WorkflowParked(f"run {id} is parked: {value}")
    status, payload = value
    if status is not Status.SUCCEEDED:
        raise decode_failure(payload, exceptions=exceptions, fallback=WorkflowFailed)
    return result.decode(payload)


# -- looking and acting ----------------------------------------------------------------------------


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
    def produce(call: Any) -> Operation:
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


def detail(app: App, id: str) -> RunDetail:
    """One run with everything recorded of it."""
    return stored.detail(app.database, describe(app, id))


def act(app: App, which: str | Sequence[str] | RunFilter, action: Any) -> int:
    """Do something to runs by id, ids or filter; return how many it reached.

    Raises:
        WorkflowNotFound: a single id was given, and no run has it.
    """
    where = (
        which
        if isinstance(which, RunFilter)
        else RunFilter(ids=[which] if isinstance(which, str) else list(which))
    )
    reached = 0
    cursor = None
    while True:
        page = RunFilter(
            **{name: getattr(where, name) for name in _FIELDS} | {"limit": 1000, "cursor": cursor}
        )
        found = stored.list_runs(app.database, page)
        if not found and cursor is None and isinstance(which, str):
            raise WorkflowNotFound(f"no run has the id {which!r}")
        if found:
            reached += len(action([info.key for info in found]))
        if len(found) < 1000:
            return reached
        cursor = found[-1].cursor


_FIELDS = tuple(name for name in RunFilter.__dataclass_fields__ if name not in ("limit", "cursor"))


# -- the skins -------------------------------------------------------------------------------------


def on_loop(operation: Operation, app: App) -> Any:
    """Drive an operation on the event loop; inside a workflow, as its code."""
    branch = current.get()
    if branch is None:
        return drive(operation, app.runtime)
    if not branch.run.definition.colour:
        operation.close()
        raise WrongColour(f"an async call in a blocking workflow; use perdure.sync ({where()})")
    return drive(operation, branch.run.runtime, branch.run.host)


def blocking(operation: Operation, app: App) -> Any:
    """Drive an operation in this thread; inside a workflow, as its code."""
    branch = current.get()
    if branch is None:
        return drive_blocking(operation, app.runtime)
    if branch.run.definition.colour:
        operation.close()
        raise WrongColour(f"a blocking call in an async workflow would stop its event loop ({where()})")
    return drive_blocking(operation, branch.run.runtime, branch.run.host)


def where() -> str:
    """File, line and text of the nearest frame that is not perdure's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("perdure."):
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: {line}"


class _Handle(Generic[R_co]):
    """What both colours of handle have."""

    def __init__(self, app: App, id: str, result: Payload, started: Started | None = None) -> None:
        self._app, self.id, self._result = app, id, result
        self._key = started.key if started else None
        self.created = started.created if started else False
        """Whether this start made the run; False: it was there, and the start attached to it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def _wait(self, timeout: Duration | None) -> Operation:
        if self._key is None:
            self._key, _ = yield Use(lambda: _found(self._app, self.id))
        result = yield from wait_for_result(self._app, self._key, self.id, self._result, timeout)
        return result

    def _status(self) -> Operation:
        return read("status", lambda: str(describe(self._app, self.id).status), Payload.of(str))

    def _cancel(self) -> Operation:
        def cancel() -> bool:
            return bool(act(self._app, self.id, lambda keys: self._app.cancel_runs(keys, CancelReason.ASKED)))

        return read("cancel", cancel, Payload.of(bool))


class Handle(_Handle[R_co]):
    """A run, for `async` code.

    Attributes:
        id: the run's id.
        created: whether this start made it, or found it there.
    """

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result.

        Args:
            timeout: seconds or `timedelta` after which to stop waiting; the run goes on.

        Raises:
            WaitTimeout: it took longer.
            WorkflowFailed: it failed with an error whose class is not known here; else that error itself.
            WorkflowCancelled: it was cancelled.
            WorkflowTimeout: it did not finish within its own timeout.
            WorkflowParked: perdure gave it up; the text says why.
        """
        return cast("R_co", await on_loop(self._wait(timeout), self._app))

    async def status(self) -> Status:
        """Where the run stands."""
        return Status(await on_loop(self._status(), self._app))

    async def describe(self) -> RunInfo:
        """What is known of the run at this moment."""
        return cast(
            "RunInfo", await on_loop(read("describe", lambda: describe(self._app, self.id)), self._app)
        )

    async def steps(self) -> tuple[StepInfo, ...]:
        """What the run's code has been told, in order."""
        return cast(
            "tuple[StepInfo, ...]",
            await on_loop(read("steps", lambda: detail(self._app, self.id).steps), self._app),
        )

    async def cancel(self) -> bool:
        """Ask the run to stop; False if it was too late for that."""
        return cast("bool", await on_loop(self._cancel(), self._app))


class BlockingHandle(_Handle[R_co]):
    """A run, for blocking code; see `Handle`."""

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result; see `Handle.result`."""
        return cast("R_co", blocking(self._wait(timeout), self._app))

    def status(self) -> Status:
        """Where the run stands."""
        return Status(blocking(self._status(), self._app))

    def describe(self) -> RunInfo:
        """What is known of the run at this moment."""
        return cast("RunInfo", blocking(read("describe", lambda: describe(self._app, self.id)), self._app))

    def steps(self) -> tuple[StepInfo, ...]:
        """What the run's code has been told, in order."""
        return cast(
            "tuple[StepInfo, ...]",
            blocking(read("steps", lambda: detail(self._app, self.id).steps), self._app),
        )

    def cancel(self) -> bool:
        """Ask the run to stop; False if it was too late for that."""
        return cast("bool", blocking(self._cancel(), self._app))


def _found(app: App, id: str) -> tuple[int, str]:
    found = stored.key_of(app.database, id)
    if found is None:
        raise WorkflowNotFound(f"no run has the id {id!r}")
    return found


def result_payload(definition: WorkflowDefinition | None) -> Payload:
    """How a workflow's result is read."""
    return definition.signature.result if definition is not None else Payload.of(Any)
