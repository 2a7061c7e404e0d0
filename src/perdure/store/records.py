"""What the journal writes: one small class for each kind of change, and the ticket that carries them.

A ticket is a unit: its records are committed together or not at all, in one batch. Its outcome is read
off the records after the ticket is settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, IntEnum, auto
from typing import Final

from perdure.models import Status
from perdure.store.signal import Signal


class Outcome(Enum):
    """What became of a record."""

    PENDING = auto()
    WON = auto()
    """It stands: written by this try, or by an earlier one whose answer was lost."""
    LOST = auto()
    """Somebody else's record stands in its place."""
    ATTACHED = auto()
    """A start: the id belongs to another run already (`StartRecord.found`)."""
    DUPLICATE = auto()
    """A start: an unfinished run of the queue has its `dedup` (`StartRecord.found`)."""
    FULL = auto()
    """A start: the queue has no room."""
    CANCELLED = auto()
    """An end: a cancel was asked for before (`EndRecord.cancel`)."""
    STAY = auto()
    """A put-away: what the run waits for has come already."""


PENDING: Final = Outcome.PENDING
"""Looking the member up takes 0.13 us on Python 3.11, and each run makes some records."""


class Fenced(Exception):
    """The writer was declared dead: nothing of what it had not been answered is written."""


class Record:
    """One change to one row."""

    __slots__ = ("outcome", "run")

    @property
    def outside(self) -> bool:
        """Whether somebody outside of runs gives it, who can be told that it could not be written."""
        return False

    def __init__(self, run: int) -> None:
        self.run = run
        self.outcome = PENDING


class StepRecord(Record):
    """Something that the code of a run has been told."""

    __slots__ = (
        "attempts",
        "failed",
        "group",
        "kind",
        "message",
        "name",
        "order",
        "position",
        "seconds",
        "value",
    )

    def __init__(
        self,
        run: int,
        position: str,
        group: int | None,
        order: int | None,
        kind: int,
        name: str,
        failed: bool,
        value: bytes,
        attempts: int = 1,
        seconds: float = 0.0,
        message: int | None = None,
    ) -> None:
        self.run, self.outcome = run, PENDING
        self.message = message
        """Number of the message that it consumed."""
        self.position, self.group, self.order, self.kind, self.name = position, group, order, kind, name
        self.failed, self.value, self.attempts, self.seconds = failed, value, attempts, seconds


class StartRecord(Record):
    """A run to be born; `options` is JSON text as `start_runs` reads it, None for a plain start here."""

    __slots__ = (
        "contested",
        "dedup",
        "found",
        "id",
        "input",
        "options",
        "parent",
        "queue",
        "sized",
        "supersede",
        "workflow",
    )

    @property
    def outside(self) -> bool:
        """Given by itself it comes from outside; a run's own ride on its steps."""
        return True

    def __init__(
        self,
        run: int,
        id: str,
        workflow: str,
        input: bytes,
        options: str | None = None,
        parent: tuple[int, str] | None = None,
        supersede: bool = False,
    ) -> None:
        self.run, self.outcome = run, PENDING
        self.id, self.workflow, self.input, self.options = id, workflow, input, options
        self.parent, self.supersede = parent, supersede
        self.found: tuple[int, str] | None = None
        """Key and workflow of the run that has the id, or key and id of the one that has `dedup`, if that is another."""
        self.queue: str | None = None
        self.dedup: str | None = None
        self.contested = self.sized = False
        """Whether a stranger can hold what it needs, which keeps it out of the first lane; and whether its queue may be
        full."""


class EndRecord(Record):
    """The end of a run.

    Attributes:
        regardless: it stands also if a cancel was asked for, because this answers it.
        waited: there may be rows of what it waited for.
        parent: there may be children that are to end with it.
    """

    __slots__ = ("cancel", "parent", "regardless", "status", "value", "waited")

    def __init__(
        self,
        run: int,
        status: int,
        value: bytes,
        *,
        regardless: bool = False,
        waited: bool = False,
        parent: bool = False,
    ) -> None:
        self.run, self.outcome, self.parent = run, PENDING, parent
        self.status, self.value, self.regardless, self.waited = status, value, regardless, waited
        self.cancel = 0


class ContinueRecord(EndRecord):
    """The end of a run that goes on as new: under the same id, with the key `next` and another input."""

    __slots__ = ("input", "next")

    def __init__(self, run: int, next: int, input: bytes, *, waited: bool = False) -> None:
        super().__init__(run, Status.CONTINUED.code, str(next).encode(), waited=waited)
        self.next, self.input = next, input


class WaitRecord(Record):
    """A wait for a time (`seconds` from now, or `at`), the end of the run `target`, its event, or a message.

    With a target `topic` is the name of its event, without one that of a message of the run's own.
    """

    __slots__ = ("at", "position", "seconds", "target", "topic")

    def __init__(
        self,
        run: int,
        position: str,
        seconds: float | None = None,
        at: datetime | None = None,
        target: int | None = None,
        topic: str | None = None,
    ) -> None:
        self.run, self.outcome = run, PENDING
        self.position, self.seconds, self.at = position, seconds, at
        self.target, self.topic = target, topic


class AnsweredWait(Record):
    """A wait that is over, or was given up."""

    __slots__ = ("position",)

    def __init__(self, run: int, position: str) -> None:
        self.run, self.outcome, self.position = run, PENDING, position


class IntentRecord(Record):
    """A body that is about to begin and must not be begun twice."""

    __slots__ = ("name", "position")

    def __init__(self, run: int, position: str, name: str) -> None:
        self.run, self.outcome, self.position, self.name = run, PENDING, position, name


class PutAway(Record):
    """A run that waits without memory: where, each with the number of the last message that it has seen there."""

    __slots__ = ("claim", "follows", "waits")

    def __init__(
        self, run: int, waits: Mapping[str, int | None], claim: int = 0, *, follows: bool = False
    ) -> None:
        self.run, self.outcome, self.waits, self.claim = run, PENDING, waits, claim
        self.follows = follows
        """It waits for other runs, which may have gone on as new."""


class ProgressRecord(Record):
    """What the body of a step last said of its progress."""

    __slots__ = ("detail", "name", "position")

    def __init__(self, run: int, position: str, name: str, detail: bytes) -> None:
        self.run, self.outcome, self.position = run, PENDING, position
        self.name, self.detail = name, detail


class StreamKind(IntEnum):
    """What a row of a stream is."""

    ITEM = 0
    DISCARDED = 1
    """The items from the place in `value` on are of a failed attempt."""
    END = 2


class StreamRecord(Record):
    """A row of a stream, by the body at `position`, or riding on the step at `rides`; numbered when it is sent."""

    __slots__ = ("key", "kind", "place", "position", "rides", "value")

    def __init__(
        self,
        run: int,
        key: str,
        kind: StreamKind,
        value: bytes,
        *,
        position: str | None = None,
        rides: str | None = None,
    ) -> None:
        self.run, self.outcome, self.key, self.kind = run, PENDING, key, kind
        self.value, self.position, self.rides = value, position, rides
        self.place = -1


class Undoing(Record):
    """A run that has failed, and now undoes what it has done."""

    __slots__ = ()


class HandOver(Record):
    """A run that goes back to the queue."""

    __slots__ = ("claim",)

    def __init__(self, run: int, claim: int = 0) -> None:
        self.run, self.outcome, self.claim = run, PENDING, claim


class Park(Record):
    """A run that is given up until somebody resumes it."""

    __slots__ = ("claim", "reason")

    def __init__(self, run: int, reason: str, claim: int = 0) -> None:
        self.run, self.outcome, self.reason, self.claim = run, PENDING, reason, claim


class MessageRecord(Record):
    """A message to the run that has the id `id` now; `run` is only whose records it is written in order with."""

    __slots__ = ("born", "ended", "id", "key", "topic", "value", "workflow")

    @property
    def outside(self) -> bool:
        """Given by itself it comes from outside; a run's own ride on its steps."""
        return True

    def __init__(
        self,
        run: int,
        id: str,
        topic: str,
        value: bytes,
        key: str,
        *,
        born: int | None = None,
        workflow: str | None = None,
    ) -> None:
        self.born, self.workflow = born, workflow
        """Only to the run with this key, or to one of this workflow."""
        self.run, self.outcome = run, PENDING
        self.id, self.topic, self.value, self.key = id, topic, value, key
        self.ended = False
        """Lost because its target has ended; else no run has the id."""


class SendRecord(StepRecord):
    """A step that sends messages: all of them or, where one has no target, none, and the step has failed.

    The database decides, so `failed` and `value` are known once the ticket is settled. `unknown` and `ended` are,
    for each message, how the failure is stored if no run has the id, or its run has ended.
    """

    __slots__ = ("ended", "messages", "unknown")

    messages: Sequence[MessageRecord]
    unknown: Sequence[bytes]
    ended: Sequence[bytes]


class EventRecord(Record):
    """A value that the step at this position makes known; `failed`: it is an error, told to whoever asked."""

    __slots__ = ("failed", "key", "position", "value")

    def __init__(self, run: int, position: str, key: str, value: bytes, *, failed: bool = False) -> None:
        self.run, self.outcome, self.position = run, PENDING, position
        self.key, self.value, self.failed = key, value, failed


class TagsRecord(Record):
    """Tags that the step at this position gives its run; a JSON object as text, whose nulls take tags away."""

    __slots__ = ("position", "tags")

    def __init__(self, run: int, position: str, tags: str) -> None:
        self.run, self.outcome, self.position, self.tags = run, PENDING, position, tags


class Ticket(Signal):
    """A unit of records on its way to the database; settled after the commit that holds them."""

    __slots__ = ("deadline", "records", "run", "stands", "tries")

    def __init__(self, *records: Record) -> None:
        super().__init__()
        self.records: list[Record] = list(records)
        self.run = records[0].run
        self.tries = 0
        self.deadline = 0.0
        self.stands = False
        """Its run has looked, and all of it was written."""

    def check(self) -> None:
        """Raise what kept the ticket from being written, if anything did."""
        if self.error is not None:
            raise self.error
