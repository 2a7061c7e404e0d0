"""How a run leaves memory while all it does is wait: its waits are committed, then the database decides."""

from __future__ import annotations

from typing import Protocol

from perdure.core.run import Run
from perdure.models import CancelReason
from perdure.store.records import Outcome, PutAway, WaitRecord


class LeavingHost(Protocol):
    """What of a host is needed to take its run out of memory, or to go on with it."""

    run: Run

    def close(self) -> None:
        """Take the code off the stack."""
        ...

    def pump(self) -> None:
        """Look whether the run is quiet."""
        ...

    def cancel(self, reason: CancelReason) -> None:
        """Tell the code to stop."""
        ...


def can_leave(run: Run) -> bool:
    """Whether every call outstanding is a durable wait, so that memory is not needed meanwhile."""
    outstanding = len(run.gate.running) if run.tasks > 1 or not run.gate.idle else len(run.waiting)
    gated = run.gate.parked_calls()
    return (
        not run.closed
        and run.leaving is None
        and bool(run.waiting)
        and outstanding == len(run.waiting)
        and len(gated) == len(run.gate.running)
        and not any(wait.signal.done for wait in run.waiting.values())
        and not (run.cancel_reason and not run.cancel_told)
    )


def look_again(run: Run) -> None:
    """It waits but cannot leave yet, and nobody says when that changes: have it looked at again."""
    if run.waiting and not run.closed and run.leaving is None:
        run.runtime.begun_waiting(run)


def unrecorded_waits(run: Run) -> list[WaitRecord]:
    """What the run waits for without a row that says so, of what others bring; it is about to have one."""
    records = [
        WaitRecord(run.key, position, target=wait.target, topic=wait.topic)
        for position, wait in run.waiting.items()
        if (wait.target or wait.topic) and position not in run.waits
    ]
    if records:
        run.waited = True
        run.waits |= {record.position: 0.0 for record in records}
    return records


def put_away_record(run: Run) -> PutAway | None:
    """The run as one that waits without memory; None if a message has just been given to one of its calls.

    Whoever looks in the database whether a later message has come must not count one as seen that a call was
    given, and is not to be told of any more.
    """
    seen: dict[str, int | None] = dict.fromkeys(run.waiting)
    mine = {place: wait.topic for place, wait in run.waiting.items() if wait.topic and not wait.target}
    for topic in set(mine.values()):
        places = [place for place, name in mine.items() if name == topic]
        number, waiting = run.mailbox.seen(topic)
        if waiting < len(places):
            return None
        seen |= dict.fromkeys(places, number)
    follows = any(wait.target for wait in run.waiting.values())
    return PutAway(run.key, seen, run.claim, follows=follows)


async def leave_memory(host: LeavingHost) -> None:
    """Put an async run away; where something that it waits for has come meanwhile, it stays."""
    run = host.run
    if waits := unrecorded_waits(run):
        ticket = run.submit(*waits)
        await ticket.wait()
        if ticket.error is not None:
            return
    record = put_away_record(run)
    if record is None or not can_leave(run):
        look_again(run)
        return
    run.leaving = leaving = run.submit(record)
    await leaving.wait()
    if leaving.error is None and record.outcome is Outcome.WON:
        host.close()
        return
    run.leaving = None  # it stays, and may try again
    host.pump()
    if run.cancel_reason is not CancelReason.NONE:
        host.cancel(run.cancel_reason)
    run.runtime.stayed(run)
