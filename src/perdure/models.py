"""The values that perdure's parts hand each other and the user: statuses, options, filters, descriptions.

All of them are frozen: an outcome is decided in one place, returned as a value, and written by another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from numbers import Real
from typing import Any, Final, Generic, Literal, TypeVar

from perdure import arguments
from perdure.arguments import Defined, names_of, one_or_more

Input = TypeVar("Input")
Result = TypeVar("Result")
Payload_co = TypeVar("Payload_co", covariant=True)
ParentClose = Literal["cancel", "abandon", "wait"]
Duration = float | timedelta
"""Seconds, or a `timedelta`."""

DEFAULT_QUEUE: Final = "default"


class Status(StrEnum):
    """Where a run stands. The last four are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONTINUED = "continued"
    """It went on as new, under the same id (`continue_as_new`); seen of no run but its earlier lives."""

    @property
    def code(self) -> int:
        """The number stored in the database."""
        return _CODES[self]

    @property
    def final(self) -> bool:
        """Whether a run of this status has ended."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.CONTINUED)

    @classmethod
    def of(cls, code: int) -> Status:
        """Return the status that the database stores as `code`."""
        return _STATUSES[code]


_STATUSES: Final = dict(enumerate(Status, 1))
_CODES: Final = {status: number for number, status in _STATUSES.items()}


class Kind(IntEnum):
    """What a row of the journal is a record of."""

    STEP = 1
    TRANSACTION = 2
    SLEEP = 3
    START = 4
    RESULT = 5
    CLOCK = 6
    CANCEL = 7
    MESSAGE = 8
    SEND = 9
    SET_EVENT = 10
    EVENT = 11
    STREAM = 12
    PATCH = 13
    COMMAND = 14
    SET_TAGS = 15


class CancelReason(IntEnum):
    """Why the code of a run is told to stop."""

    NONE = 0
    ASKED = 1
    AT_ONCE = 2
    OUT_OF_TIME = 3
    UNDOING = 4
    """It is not told: it has failed, and undoes what it did."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list, count, cancel or resume; every field given must match.

    Args:
        status: one status or several.
        workflow: stored name of the workflow, or the workflow itself; or several.
        queue: name of the queue, or several.
        version: version of the code, or several.
        worker: number of the worker that owns or ended them, or several.
        tags: tags that the run must have, with these values (`@>` of jsonb).
        ids: exactly these ids; a text is one.
        prefix: the beginning of the id.
        parent: id of the run that started them.
        created_after: born at or after this time (aware).
        created_before: born before this time (aware).
        finished_after: ended at or after this time (aware).
        finished_before: ended before this time (aware).
        error: text that occurs in the error that a run failed with (class, text, traceback), or in the reason for
            parking.
        limit: at most so many, the newest; by default 100 of a list, and of what is done to runs, all.
        cursor: `RunInfo.cursor` of the last one of the page before.

    Raises:
        ValueError: a field has a value that it cannot have.
    """

    status: Status | str | Sequence[Status | str] | None = None
    workflow: Defined | str | Sequence[Defined | str] | None = None
    queue: str | Sequence[str] | None = None
    version: str | Sequence[str] | None = None
    worker: int | Sequence[int] | None = None
    tags: Mapping[str, Any] | None = None
    ids: str | Sequence[str] | None = None
    prefix: str | None = None
    parent: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None
    error: str | None = None
    limit: int | None = None
    cursor: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ids, str):  # else its letters would be ids
            object.__setattr__(self, "ids", (self.ids,))
        object.__setattr__(self, "workflow", names_of(self.workflow))
        for name, check in _CHECKS.items():
            if (value := getattr(self, name)) is not None:
                check(value, f"RunFilter({name}=...)")
        if self.status is not None:
            for status in one_or_more(self.status):
                if status not in (known := list(Status)):
                    raise ValueError(f"RunFilter(status=...) is one of {', '.join(known)}, not {status!r}")


_CHECKS: Final[Mapping[str, Callable[[Any, str], None]]] = {
    **dict.fromkeys(("workflow", "queue", "version", "ids"), arguments.texts),
    **dict.fromkeys(("prefix", "parent", "error", "cursor"), arguments.text),
    **dict.fromkeys(
        ("created_after", "created_before", "finished_after", "finished_before"), arguments.moment
    ),
    "worker": arguments.numbers,
    "tags": arguments.tags,
    "limit": arguments.limit,
}


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run at one moment."""

    id: str
    key: int
    workflow: str
    status: Status
    queue: str | None
    version: str | None
    tags: Mapping[str, Any] | None
    worker: int | None
    created: datetime
    finished: datetime | None
    wakes: datetime | None
    deadline: datetime | None
    recoveries: int
    takeovers: int
    reason: str | None
    parent: str | None
    cancel_requested: bool
    why: str | None = None
    """Why it does not go on, in one line, of one that has not ended; only where one run is asked for."""

    @property
    def cursor(self) -> str:
        """Where the next page of a list goes on: pass it as `RunFilter(cursor=...)`."""
        return f"{self.created.isoformat()}/{self.key}"


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One recorded step of a run: what the code was told, in order."""

    position: str
    group: int | None
    kind: str
    name: str
    failed: bool
    value: bytes = field(repr=False)
    attempts: int
    seconds: float
    worker: int
    recorded: datetime

    def json(self) -> str:
        """Return the recorded value as JSON text."""
        return self.value.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """What still lives on one version of the code: unfinished runs by status, and workers; None is no version."""

    version: str | None
    runs: Mapping[Status, int]
    workers: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, at one moment.

    Attributes:
        number: of its life; a process that was declared dead and came back has another one.
        name, host, pid: of the process; the name is that of `Perdure(name=...)`, or made of the other two.
        version, queues: of its code, if it has one; that it serves.
        alive, paused, running: whether its lease holds; whether it takes no more runs; runs that it owns now.
        started, expires: its beginning; the end of its lease, if that is not renewed, or None once it is gone.
        ended, reason: when and why it is gone (`"stopped"` or `"lease ran out"`), or None.
    """

    number: int
    name: str
    host: str
    pid: int
    version: str | None
    queues: tuple[str, ...]
    alive: bool
    started: datetime
    expires: datetime | None
    running: int
    ended: datetime | None = None
    reason: str | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class ReplayInfo:
    """What a replay of a run's history with today's code has found.

    Attributes:
        agrees: whether the code can go on with the run; False where it diverges from the record, or is not here.
        text: what was found, in one line: how far they agree, or where they part first.
    """

    id: str
    workflow: str
    agrees: bool
    text: str


@dataclass(frozen=True, slots=True)
class AuditInfo:
    """Something that was done to a run: when, by whom, what, and why; `detail` says with which arguments."""

    at: datetime
    who: str
    verb: str
    id: str
    reason: str | None
    detail: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class EventInfo:
    """One value that a run has made known."""

    key: str
    value: bytes = field(repr=False)
    recorded: datetime

    def json(self) -> str:
        """Return the value as JSON text."""
        return self.value.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """A message that a run has been sent and has not received yet."""

    topic: str
    key: str
    value: bytes = field(repr=False)
    sent: datetime

    def json(self) -> str:
        """Return the payload as JSON text."""
        return self.value.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with everything that is recorded of it."""

    info: RunInfo
    input: bytes = field(repr=False)
    output: bytes | None = field(repr=False)
    steps: tuple[StepInfo, ...]
    waits: tuple[str, ...]
    workers: Mapping[int, str]
    messages: tuple[MessageInfo, ...] = ()
    """Those that it has not received yet; the first hundred."""


@dataclass(frozen=True, slots=True)
class Item(Generic[Payload_co]):
    """One item of a stream; the next one has a higher offset."""

    offset: int
    value: Payload_co


@dataclass(frozen=True, slots=True)
class Discarded:
    """The items of a stream from this offset up to here do not count: the attempt failed that wrote them."""

    from_offset: int


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """One command that a durable object has carried out: the version that it made, and what it was."""

    version: int
    id: str
    command: str
    args: bytes = field(repr=False)
    value: bytes = field(repr=False)
    done: datetime


@dataclass(frozen=True, slots=True)
class MapFailure(Generic[Input]):
    """An item for which `map_steps` failed: its place, itself, and the error."""

    index: int
    item: Input
    error: Exception


@dataclass(frozen=True, slots=True)
class MapResult(Generic[Input, Result]):
    """What `map_steps` brought: results in the order of the items, without those that failed, and the failures."""

    results: list[Result]
    failures: list[MapFailure[Input]]


@dataclass(frozen=True, slots=True)
class Info:
    """What the code that is running now can know of itself; `perdure.info()`.

    Attributes:
        run_id: the run's id.
        workflow: stored name of the workflow.
        step: name of the step that is running, or None in the workflow's own code.
        attempt: number of this attempt of the step, from 1.
        idempotency_key: the same for every attempt of this step, also after a crash, and no other step's.
        worker: number of the worker process.
        heartbeat: what the step's last attempt said of its progress (`perdure.heartbeat`), or None.
        scheduled_at: the tick of a schedule that the run is for, in UTC, or None.
    """

    run_id: str
    workflow: str
    step: str | None
    attempt: int
    idempotency_key: str
    worker: int
    heartbeat: Any = None
    scheduled_at: datetime | None = None


def seconds_of(duration: Duration, what: str) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: it is no number, negative, not finite, or longer than a century.
    """
    given: Any = duration
    if not isinstance(given, timedelta | Real | Decimal):
        raise ValueError(f"{what} must be seconds or a timedelta, not {given!r}")  # noqa: TRY004 - as one out of range
    seconds = given.total_seconds() if isinstance(given, timedelta) else float(given)
    if not 0 <= seconds <= 3_200_000_000:
        raise ValueError(f"{what} must be between 0 seconds and a century, not {duration!r}")
    return seconds
