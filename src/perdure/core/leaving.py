"""How an async run leaves memory while all it does is wait: its waits are committed, then the database decides."""

from __future__ import annotations

from typing import Protocol

from perdure.core.run import Run
from perdure.models import CancelReason
from perdure.store.records import Outcome


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


async def leave_memory(host: LeavingHost) -> None:
    """Put a run away; where something that it waits for has come meanwhile, it stays."""
    run = host.run
    if waits := run.unrecorded_waits():
        ticket = run.submit(*waits)
        await ticket.wait()
        if ticket.error is not None:
            return
    record = run.put_away_record()
    if record is None or not run.can_leave():
        run.look_again()
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
