"""The body of a step while it runs: what it says of its progress, and what it writes on streams.

Neither waits for the database: both are on their way when the call returns, in the order in which they were made.
What a body writes belongs to its attempt; where that fails, or its worker dies, a mark says that the items from there
on do not count.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from perdure.core.branch import Unwind
from perdure.errors import PerdureError
from perdure.store.records import ProgressRecord, StreamKind, StreamRecord, Ticket

if TYPE_CHECKING:
    from perdure.core.run import Run

MOST_ON_THE_WAY: Final = 100
"""Items of one body that are not committed yet; who writes faster waits for the oldest."""


class Body:
    """One attempt of one step."""

    __slots__ = ("_again", "_beat", "_sent", "_written", "name", "over", "position", "run")

    def __init__(self, run: Run, position: str, name: str) -> None:
        self.run, self.position, self.name = run, position, name
        self.over = False
        self._written: dict[str, int] = {}
        self._sent: deque[Ticket] = deque()
        self._beat: Ticket | None = None
        self._again = False

    def heartbeat(self, detail: bytes) -> None:
        """Note how far the body is; while one note is on its way, only the last that follows is sent."""
        self._check()
        self.run.progress[self.position] = detail
        if self._beat is not None and not self._beat.done:
            self._again = True
            return
        self._send(detail)

    def _send(self, detail: bytes) -> None:
        host = self.run.host
        if host is None:
            return  # the run has left memory
        ticket = self._beat = Ticket(ProgressRecord(self.run.key, self.position, self.name, detail))
        ticket.call(self._follow)
        host.soon(lambda: ticket)

    def _follow(self) -> None:
        """Send the last note; called by the journal, which must see no error of a body that is over."""
        if not self._again or self.over or self.run.closed or not self.run.runtime.alive():
            return
        self._again = False
        self._send(self.run.progress[self.position])

    def write(self, key: str, value: bytes, kind: StreamKind = StreamKind.ITEM) -> Ticket | None:
        """Write an item; return a ticket to wait for first, if too many are on their way."""
        self._check()
        record = StreamRecord(self.run.key, key, kind, value, position=self.position)
        ticket = Ticket(record)

        def numbered() -> Ticket | None:
            if self.over:  # the mark that its items do not count is written: none may follow it
                ticket.settle()
                return None
            record.place = self.run.next_place(key)
            self._written.setdefault(key, record.place)
            return ticket

        self._sent.append(ticket)
        self.run.host.soon(numbered)
        while self._sent and self._sent[0].done:
            self._sent.popleft()
        return self._sent.popleft() if len(self._sent) > MOST_ON_THE_WAY else None

    def failed(self) -> None:
        """This attempt failed: what it wrote does not count."""
        self.over = True
        discard(self.run, self.position, dict(self._written))

    def _check(self) -> None:
        if self.run.closed or not self.run.runtime.alive():
            raise Unwind
        if self.over:
            raise PerdureError(
                f"this attempt of {self.name} is over: it took longer than its timeout, or has failed"
            )


def discard(run: Run, position: str, written: dict[str, int]) -> None:
    """Mark what an attempt wrote, from these places on, as not counting."""
    host = run.host
    if host is None:
        return  # the run has left memory
    for key, first in written.items():
        record = StreamRecord(run.key, key, StreamKind.DISCARDED, str(first).encode(), position=position)
        ticket = Ticket(record)

        def numbered(record: StreamRecord = record, ticket: Ticket = ticket) -> Ticket:
            record.place = run.next_place(record.key)
            return ticket

        host.soon(numbered)


running: ContextVar[Body | None] = ContextVar("perdure_body", default=None)
"""The body that is running."""
