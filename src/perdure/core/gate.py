"""The gate: one order for everything that the code of a run learns, live and on replay.

Concurrent branches make a workflow's course depend on what finishes first. The gate makes that order part
of the record. Live, results are handed out only while the run is *quiet* (none of its code can go on
without one), all that are ready as one numbered group. On replay a group is handed out when the run is
quiet and has asked for every member of it, in the stored order; so the code meets the same situations
in the same order, whatever it does with them. A body begins only when the record is used up.

This module is the decision alone: no task, thread or clock. Hosts tell it when the run is quiet and carry
out what it says. A run with a single task and a single call skips it (`next_alone`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Container, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from perdure.errors import NonDeterminismError
from perdure.models import Kind

CANCEL_POSITION: Final = "!cancel"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of the journal, as a replay needs it."""

    position: str
    group: int | None
    order: int
    kind: int
    name: str
    failed: bool
    value: bytes
    attempts: int
    message: int | None = None


def recorded_rows(rows: Iterable[tuple[Any, ...]]) -> list[Recorded]:
    """Rows as the store reads them: position, group, order, kind, name, failed, value, attempts, message."""
    return [
        Recorded(position, group, order or 0, kind, name, failed, bytes(value), attempts, message)
        for position, group, order, kind, name, failed, value, attempts, message in rows
    ]


@dataclass(slots=True, eq=False)
class Call:
    """A durable call of the code that waits for its answer.

    Attributes:
        position: its identity: path of the branch and number in it.
        kind: what it records.
        name: of what was called.
        produce: the operation that finds the answer if none is recorded.
        told: the answer, once there is one.
        resume: how the host goes on with the caller (the host's own).
    """

    position: str
    kind: Kind
    name: str
    produce: Callable[[Call], Generator[Any, Any, Told]]
    told: Told | None = None
    resume: Any = None
    began: bool = False
    wants_gate: bool = False


@dataclass(slots=True)
class Told:
    """An answer on its way to the code: as it is stored, and as the code sees it.

    Attributes:
        failed: whether `seen` is an exception to raise.
        value: the stored form.
        seen: what the code sees, equal to what decoding `value` gives.
        with_records: further records that stand or fall with this one.
        then: called with the ticket of the record once it is submitted.
        group: number under which it is recorded already (a transaction's), or None.
        message: number of the message that it consumes.
        dropped: called if the code is never told, because its caller was cancelled.
    """

    failed: bool
    value: bytes
    seen: Any
    attempts: int = 1
    seconds: float = 0.0
    with_records: list[Any] = field(default_factory=list)
    then: Callable[[Any], None] | None = None
    group: int | None = None
    message: int | None = None
    dropped: Callable[[], None] | None = None

    def drop(self) -> None:
        """The code is not told."""
        if self.dropped is not None:
            self.dropped()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now that the run is quiet.

    Attributes:
        replayed: answers from the record to hand out, in order.
        group: new answers to hand out, in order, as one group.
        begin: calls whose bodies begin.
        holder: a call that takes the gate until it is done.
        cancel: the record says that the run was told to stop here.
        stuck: positions of the next group that nobody has asked for.
    """

    replayed: tuple[tuple[Call, Recorded], ...] = ()
    group: tuple[Call, ...] = ()
    begin: tuple[Call, ...] = ()
    holder: Call | None = None
    cancel: bool = False
    stuck: tuple[Recorded, ...] = ()


class Gate:
    """The record still to be replayed, and the calls that wait."""

    __slots__ = (
        "_asked",
        "_fresh",
        "_groups",
        "_ready",
        "_records",
        "_withdrawn",
        "group",
        "holder",
        "running",
    )

    def __init__(self, records: Iterable[Recorded] = ()) -> None:
        self._records = {record.position: record for record in records} if records else {}
        self._groups = _in_groups(self._records.values()) if records else deque()
        self.group = self._groups[-1][0].group or 0 if self._groups else 0
        """Number of the last group."""
        self._asked: dict[str, Call] = {}
        self._withdrawn: set[str] = set()
        self._fresh: list[Call] = []
        self._ready: list[Call] = []
        self.running: set[Call] = set()
        """Calls whose bodies have begun and not finished."""
        self.holder: Call | None = None

    # -- one task, one call ----------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No call waits at the gate."""
        return not (self._asked or self._fresh or self._ready or self.running or self.holder)

    @property
    def used_up(self) -> bool:
        """Everything recorded has been handed out."""
        return not self._groups

    @property
    def cancels_next(self) -> bool:
        """The next thing the record tells the code is to stop."""
        return bool(self._groups) and self._groups[0][0].kind == Kind.CANCEL

    def next_alone(self, position: str, kind: Kind, name: str) -> Recorded | None:
        """Take the record of the only call of the only task, if that is what the record has next.

        None: the record is used up, or has something else next; then the call has to come to the gate, since a
        callback that is still to run may ask for that.
        """
        if not self._groups:
            return None
        group = self._groups[0]
        record = group[0]
        if len(group) > 1 or record.position != position or record.kind != kind or record.name != name:
            return None
        self._groups.popleft()
        return record

    def reading(self, position: str, kind: Kind, name: str) -> Recorded | None:
        """The record of something that needs no gate, such as a clock reading."""
        return self._fits(position, kind, name)

    def take_cancel(self) -> None:
        """The record's word to stop is being handed out."""
        self._groups.popleft()

    # -- many calls ------------------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        """A call waits for its answer.

        Raises:
            NonDeterminismError: the record has another call at this position.
        """
        if call.told is not None:
            self._ready.append(call)  # answered on the short path, before the run had branches
        elif self._fits(call.position, call.kind, call.name):
            self._asked[call.position] = call
        else:
            self._fresh.append(call)

    def finish(self, call: Call, told: Told) -> None:
        """A body is done; its answer waits to be handed out."""
        if call not in self.running:
            self.release(call)
            told.drop()
            return  # the caller was cancelled meanwhile: what was never handed out has no place in the order
        call.told = told
        self.running.discard(call)
        if told.group is None:
            self._ready.append(call)
        else:
            self._ready.insert(0, call)  # recorded already: nothing may come between
        self.release(call)

    def want(self, call: Call) -> None:
        """A body needs the gate for itself before it can be done."""
        call.wants_gate = True
        self._ready.append(call)

    def release(self, call: Call) -> None:
        """The holder is done with the gate."""
        if self.holder is call:
            self.holder = None
        call.wants_gate = False

    def withdraw(self, call: Call) -> None:
        """The caller no longer waits: it was cancelled. What its body does is nobody's concern."""
        self._asked.pop(call.position, None)
        self._withdrawn.add(call.position)
        self.running.discard(call)
        if call in self._ready and call.told is not None:
            call.told.drop()
        for line in (self._fresh, self._ready):
            if call in line:
                line.remove(call)
        self.release(call)

    def is_withdrawn(self, call: Call) -> bool:
        """Whether its caller was told to stop while its body ran."""
        return call.position in self._withdrawn

    def on_quiet(self) -> Decision:
        """Decide what happens, now that the code cannot go on without an answer."""
        if self.holder is not None:
            return Decision()
        if self._groups:
            return self._replay()
        begin, self._fresh = tuple(self._fresh), []
        for call in begin:
            call.began = True
            self.running.add(call)
        if self._ready and (told := self._ready[0].told) is not None and told.group is not None:
            return Decision(group=(self._ready.pop(0),), begin=begin)
        wanting = [call for call in self._ready if call.wants_gate]
        ready = [call for call in self._ready if not call.wants_gate]
        if ready:
            count = _together(ready)
            self._ready = ready[count:] + wanting
            return Decision(group=tuple(ready[:count]), begin=begin)
        if wanting:
            self.holder = wanting[0]
            self._ready.remove(wanting[0])
            return Decision(holder=wanting[0], begin=begin)
        return Decision(begin=begin)

    def next_group(self) -> int:
        """Number for a new group."""
        self.group += 1
        return self.group

    def _replay(self) -> Decision:
        group = self._groups[0]
        if group[0].kind == Kind.CANCEL:
            self._groups.popleft()
            return Decision(cancel=True)
        # A transaction that committed although its caller was cancelled is recorded, but was never handed out.
        members = [record for record in group if record.position not in self._withdrawn]
        missing = tuple(record for record in members if record.position not in self._asked)
        if missing:
            return Decision(stuck=missing)
        self._groups.popleft()
        if not members:
            return self.on_quiet()
        return Decision(replayed=tuple((self._asked.pop(record.position), record) for record in members))

    @property
    def positions(self) -> Container[str]:
        """Where something is recorded."""
        return self._records

    def consumed(self) -> Iterable[int]:
        """Numbers of the messages that the record names."""
        return (record.message for record in self._records.values() if record.message is not None)

    def left_over(self) -> Recorded | None:
        """The first thing recorded that the code has never asked for."""
        if not self._groups:
            return None
        left = (record for group in self._groups for record in group)
        return next((record for record in left if record.position not in self._withdrawn), None)

    def parked_calls(self) -> list[Call]:
        """Every call that waits, once, for an error text or to end them all."""
        return list(dict.fromkeys((*self._asked.values(), *self._fresh, *self._ready, *self.running)))

    def _fits(self, position: str, kind: Kind, name: str) -> Recorded | None:
        record = self._records.get(position)
        if record is not None and (record.kind != kind or record.name != name):
            raise diverged(position, kind, name, [record])
        return record


def _in_groups(records: Collection[Recorded]) -> deque[list[Recorded]]:
    groups: deque[list[Recorded]] = deque()
    grouped = [record for record in records if record.group is not None]
    for record in sorted(grouped, key=lambda record: (record.group, record.order)):
        if groups and groups[-1][0].group == record.group:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


def _together(ready: Sequence[Call]) -> int:
    """How many of these answers are handed out as the next group.

    A message goes alone: a member of its group that cancels the receiver would have the message consumed and seen by
    nobody. Alone it is seen, or, if what was handed out before it cancels the receiver, goes back to its place.
    """
    for count, call in enumerate(ready):
        if call.told is not None and call.told.message is not None:
            return max(1, count)
    return len(ready)


def diverged(position: str, kind: Kind, name: str, expected: Iterable[Recorded]) -> NonDeterminismError:
    """The error of a replay that met another call than the one recorded."""
    wanted = ", ".join(f"{described(r.kind, r.name)} at position {r.position}" for r in expected)
    return NonDeterminismError(
        f"the code came to {described(kind, name)} at position {position}, but the record has {wanted} next. "
        "The workflow's code has changed since, or does something that is not the same every time (a clock, "
        "randomness, I/O outside steps). Run the code that began this run, or make the change conditional; "
        "then resume the run."
    )


def described(kind: int, name: str) -> str:
    """A recorded thing in words."""
    return f"{Kind(kind).name.lower()} {name!r}"
