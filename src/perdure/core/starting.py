"""Starting runs: from outside, and as children, whose start is part of the parent's record."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from perdure.core.branch import Branch
from perdure.core.effects import Use
from perdure.core.gate import Call, Told
from perdure.core.messages import has_ended
from perdure.core.recorded import group_for, recorded
from perdure.core.registry import WorkflowDefinition
from perdure.core.run import Run
from perdure.core.runtime import Runtime
from perdure.errors import (
    DatabaseUnavailable,
    Deduplicated,
    PerdureError,
    QueueFull,
    RunEnded,
    WorkflowConflict,
)
from perdure.models import DEFAULT_QUEUE, Kind
from perdure.options import StartOptions
from perdure.store.records import MessageRecord, Outcome, StartRecord, Ticket

LONGEST_PARENT: Final = 400
"""Characters of a parent's id that its child's id begins with."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was started, or found: its key, its id, and whether this start made it."""

    key: int
    id: str
    created: bool


@dataclass(slots=True)
class Start:
    """What is to be started."""

    workflow: str
    input: bytes
    options: StartOptions
    definition: WorkflowDefinition | None
    context: Mapping[str, Any] = field(default_factory=dict)
    update: tuple[str, bytes, str] | None = None
    """What the run is asked for in the same commit: topic, letter, and the update's id, which is the message's key."""


@dataclass(slots=True)
class Starting:
    """A start on its way: its record and ticket, the run, if it is to run here, and the message that goes with it."""

    record: StartRecord
    ticket: Ticket
    run: Run | None
    message: MessageRecord | None


def begin(runtime: Runtime, what: Start, new_id: str) -> Starting:
    """Prepare a start from outside."""
    key, here = runtime.new_key(), runs_here(runtime, what)
    record = start_record(runtime, key, what.options.id or new_id, what, here=here)
    message = message_with(what, record, f"start-{key:x}")
    ticket = Ticket(record) if message is None else Ticket(record, message)
    run = None
    if here is not None:
        runtime.expect(key)
        run = Run(runtime, here, key, record.id, what.input)
        run.context = what.context
        run.pending, run.timeout = ticket, timeout_of(what)
    return Starting(record, ticket, run, message)


def message_with(what: Start, record: StartRecord, key: str) -> MessageRecord | None:
    """The message that goes with a start, in the same commit; to a run that is there already it is just sent."""
    if what.update is not None:
        topic, value, key = what.update
    elif what.options.send is not None:
        topic, value = what.options.send
    else:
        return None
    born = record.run if what.options.on_conflict == "reject" else None
    return MessageRecord(record.run, record.id, topic, value, key, born=born, workflow=what.workflow)


def start(runtime: Runtime, what: Start, new_id: str) -> Generator[Any, Any, Started]:
    """Start a run from outside; it is durable when this returns, and running, if it runs here."""
    starting = begin(runtime, what, new_id)
    started = yield from confirmed(runtime, what, starting)
    if starting.run is not None and started.created:
        runtime.launch(starting.run, starting.ticket)
    return started


def confirmed(runtime: Runtime, what: Start, starting: Starting) -> Generator[Any, Any, Started]:
    """Send a start and wait until it is durable; its run has not begun."""
    runtime.submit(starting.ticket, contested=starting.record.contested)
    try:
        yield starting.ticket
    except BaseException:
        _leave_behind(runtime, starting)
        raise
    return _answer(runtime, what, starting)


def start_many(
    runtime: Runtime, starts: Sequence[Start], new_ids: Iterable[str]
) -> Generator[Any, Any, list[Started | Exception]]:
    """Start many runs from outside, all on their way before the first is waited for; an answer for each."""
    each = [(what, begin(runtime, what, new_id)) for what, new_id in zip(starts, new_ids, strict=False)]
    runtime.submit_many([starting.ticket for _, starting in each if not starting.record.contested])
    for _, starting in each:
        if starting.record.contested:
            runtime.submit(starting.ticket, contested=True)
    answers: list[Started | Exception] = []
    for place, (what, starting) in enumerate(each):
        try:
            yield starting.ticket
        except BaseException:
            for _, left in each[place:]:
                _leave_behind(runtime, left)
            raise
        try:
            started = _answer(runtime, what, starting)
        except PerdureError as error:
            answers.append(error)
            continue
        if starting.run is not None and started.created:
            runtime.launch(starting.run, starting.ticket)
        answers.append(started)
    return answers


def _leave_behind(runtime: Runtime, starting: Starting) -> None:
    """Whoever started it is gone, the start goes on: a run that is ours must run."""
    ticket = starting.ticket
    ticket.call(lambda: _launch(runtime, starting.run, starting.record, ticket))


def _answer(runtime: Runtime, what: Start, starting: Starting) -> Started:
    """What became of a start that was sent."""
    record, ticket = starting.record, starting.ticket
    if ticket.error is not None or record.outcome is not Outcome.WON:
        runtime.let_go_of(record.run)
    if ticket.error is not None:
        reason = ticket.error if str(ticket.error) else "this worker was declared dead"
        raise DatabaseUnavailable(
            f"whether run {record.id} was started is not known ({reason}); with options(id=...) it can be "
            "started again without harm"
        ) from ticket.error
    started = settled(record, what)
    _check_sent(what, record.id, starting.message is None or starting.message.outcome is not Outcome.LOST)
    return started


def _start_contested(
    call: Call, run: Run, child: Run | None, told: Told, records: Sequence[Any], what: Start
) -> Generator[Any, Any, Told]:
    """Start a child under an id that may belong to a stranger.

    The answer is known only after the commit, and the unit goes by the second lane, after everything that the
    run has pending in the first.
    """
    record: StartRecord = records[0]
    told.group = yield from group_for(call, run)
    yield from run.barrier()
    ticket = run.submit(run.record_of(call, told, told.group, 0), *records, contested=True)
    if child is not None:
        child.pending = ticket
    try:
        yield ticket
    except BaseException:
        ticket.call(lambda: _launch(run.runtime, child, record, ticket))
        raise
    run.confirm(ticket)
    _launch(run.runtime, child, record, ticket)
    try:
        told.seen = settled(record, what)
        _check_sent(what, record.id, all(each.outcome is not Outcome.LOST for each in records[1:]))
    except (WorkflowConflict, Deduplicated, RunEnded) as conflict:
        told.failed, told.seen = True, conflict  # a replay finds the same by the id
    return told


def _check_sent(what: Start, id: str, sent: bool) -> None:
    """A message that goes with the start of a run that has ended already went nowhere, and that is no secret.

    Of an update this is no error yet: perhaps the run answered it before, else the wait says how it ended.
    """
    if what.update is None and not sent:
        raise has_ended(id)


def _launch(runtime: Runtime, run: Run | None, record: StartRecord, ticket: Ticket) -> None:
    if run is not None and ticket.error is None and record.outcome is Outcome.WON:
        runtime.launch(run, ticket)
    else:
        runtime.let_go_of(record.run)


def start_child(branch: Branch, what: Start) -> Generator[Any, Any, Started]:
    """Start a child: the step that starts it and its birth are one unit."""
    run = branch.run
    assert what.options.connection is None, "which is refused where the start is asked for"

    def produce(call: Call) -> Generator[Any, Any, Told]:
        runtime, given = run.runtime, what.options.id
        key = runtime.new_key()
        # By the key, which nobody else has: a position alone could be an earlier life's, or anybody's.
        id = given or f"{run.id[:LONGEST_PARENT]}/{call.position}-{key:x}"
        here = runs_here(runtime, what)
        record = start_record(runtime, key, id, what, here=here, parent=(run.key, call.position))
        child = None
        if here is not None:
            runtime.expect(key)
            child = Run(runtime, here, key, id, what.input)
            child.timeout, child.context = timeout_of(what), what.context
        message = message_with(what, record, _message_key(run, call.position))
        records = [record] if message is None else [record, message]
        told = Told(False, msgspec.json.encode([key, id]), Started(key, id, True))

        def launch(ticket: Ticket) -> None:
            if child is not None:
                child.pending = ticket
                runtime.launch(child, ticket)

        if not record.contested:
            told.with_records, told.then = records, launch
            return told
        return (yield from _start_contested(call, run, child, told, records, what))

    def decode(value: bytes) -> tuple[int, str]:
        key, id = msgspec.json.decode(value, type=tuple[int, str])
        return key, id

    position = f"{branch.path}{branch.count + 1}"
    seen = yield from recorded(branch, Kind.START, what.workflow, produce, decode)
    started = seen if isinstance(seen, Started) else (yield from _seen_again(run, seen, what, position))
    if started.created and what.options.parent_close == "cancel":
        run.has_children = True
    elif started.created and what.options.parent_close == "wait":
        run.waits_for.append((started.key, started.id))
    return started


def _message_key(run: Run, position: str) -> str:
    """The key of the message that goes with a child's start: no other has it."""
    return f"{run.key:x}/{position}"


def _seen_again(run: Run, seen: tuple[int, str], what: Start, position: str) -> Generator[Any, Any, Started]:
    """A start as a replay sees it: what was found there then is found again by the id."""
    key, id = seen
    if what.options.id is None and what.options.dedup is None:
        return Started(key, id, True)
    found = yield Use(run.runtime.find, (id,))
    if found is None and what.options.dedup is not None:
        raise deduplicated(what)
    if found is None or found[0] == key:
        return Started(key, id, True)
    started = attached(found, id, what)
    if what.options.send is not None:
        asked = (id, what.options.send[0], _message_key(run, position))
        _check_sent(what, id, (yield Use(run.runtime.was_sent, asked)))
    return started


def runs_here(runtime: Runtime, what: Start) -> WorkflowDefinition | None:
    """The definition, if the run is to run in this process at once."""
    options = what.options
    if options.queued or what.definition is None:
        return None
    return what.definition if runtime.can_run(what.definition, options.version) else None


def timeout_of(what: Start) -> float | None:
    """Seconds that the run has from start to finish, by its options or its definition."""
    if what.options.timeout is not None:
        return what.options.timeout
    return what.definition.timeout if what.definition is not None else None


def start_record(
    runtime: Runtime,
    key: int,
    id: str,
    what: Start,
    *,
    here: WorkflowDefinition | None,
    parent: tuple[int, str] | None = None,
) -> StartRecord:
    """The record of a start; a plain one, which is most of them, has no options."""
    extra = stored_options(runtime, what, here=here is not None, parent=parent)
    sized = parent is None and runtime.is_sized(extra.get("queue"))
    if sized:
        extra["sized"] = True
    text = msgspec.json.encode(extra).decode() if extra else None
    supersede = what.options.on_conflict == "restart_if_failed"
    record = StartRecord(key, id, what.workflow, what.input, text, parent, supersede)
    record.queue, record.dedup, record.sized = extra.get("queue"), what.options.dedup, sized
    record.contested = what.options.id is not None or record.dedup is not None or sized
    return record


def stored_options(
    runtime: Runtime, what: Start, *, here: bool, parent: tuple[int, str] | None = None
) -> dict[str, Any]:
    """The options of a start as the database takes them, those that were given; `here`: it runs in this process."""
    options = what.options
    given = {
        "queue": None if here else options.queue or runtime.home_queue,
        "home": runtime.home_queue if here and runtime.home_queue != DEFAULT_QUEUE else None,
        "priority": options.priority or None,
        "delay": options.delay,
        "timeout": timeout_of(what),
        "version": options.version or (runtime.version if here else None),
        "context": dict(what.context) or None,
        "tags": dict(options.tags) if options.tags else None,
        "parent": parent and parent[0],
        "position": parent and parent[1],
        "key": options.key,
        "dedup": options.dedup,
        "expires": options.expires,
        "close": "cancel" if parent and options.parent_close == "cancel" else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def settled(record: StartRecord, what: Start) -> Started:
    """What became of a start.

    Raises:
        WorkflowConflict: the id is taken, by another workflow or against `on_conflict`.
        Deduplicated: another unfinished run of the queue has the same `dedup`.
        QueueFull: as many runs as its size allows wait to begin.
    """
    match record.outcome:
        case Outcome.WON:
            return Started(record.run, record.id, True)
        case Outcome.DUPLICATE:
            raise deduplicated(what, record.found)
        case Outcome.FULL:
            raise QueueFull(
                f"queue {what.options.queue or DEFAULT_QUEUE!r} has as many runs that wait to begin as its size allows: try again later"
            )
        case Outcome.ATTACHED if record.found is not None:
            return attached(record.found, record.id, what)
    raise RuntimeError(f"a start ended as {record.outcome}")


def deduplicated(what: Start, found: tuple[int, str] | None = None) -> Deduplicated:
    """The error of a start whose `dedup` another unfinished run of the queue has."""
    by = f", {found[1]}" if found else ""
    return Deduplicated(
        f"an unfinished run of queue {what.options.queue or DEFAULT_QUEUE!r}{by} has dedup={what.options.dedup!r}"
    )


def attached(found: tuple[int, str], id: str, what: Start) -> Started:
    """A start that found a run with its id.

    Raises:
        WorkflowConflict: it is of another workflow, or `on_conflict` says not to attach.
    """
    key, workflow = found
    if workflow != what.workflow:
        raise WorkflowConflict(f"the id {id!r} belongs to a run of {workflow}, not of {what.workflow}")
    if what.options.on_conflict == "reject":
        raise WorkflowConflict(f"there is a run with the id {id!r} already")
    return Started(key, id, False)
