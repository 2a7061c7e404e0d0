"""The outbox of an event loop: what all its runs record in one turn goes to the journal together."""

from __future__ import annotations

import asyncio

from perdure.core.runtime import Runtime
from perdure.store.records import Ticket


class Outbox:
    """Tickets of all runs of a loop, sent on at the end of the loop's turn.

    A step's record and the end of its run, or the records of many runs that go on in the same turn, so
    reach the journal together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tickets: dict[Runtime, list[Ticket]] = {}

    def add(self, owner: Runtime, ticket: Ticket) -> None:
        """Queue a ticket for the journal of its run's owner; only from the loop's own thread."""
        if not self._tickets:
            self._loop.call_soon(self._flush)
        self._tickets.setdefault(owner, []).append(ticket)

    def _flush(self) -> None:
        # By owner: what a run of a life that is over still sends must never be written in the next one's name.
        lines, self._tickets = self._tickets, {}
        for owner, tickets in lines.items():
            owner.send(tickets)
