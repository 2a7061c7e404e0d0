"""The database's half of a transaction step, in memory: its COMMIT is one more thing that can go any way."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.store.records import Fenced
from perdure.store.session import Found

if TYPE_CHECKING:
    from tests.hand_driven import Hand

Steps = Generator[Any, Any, Any]


@dataclass(frozen=True)
class CommitPoint:
    """A transaction is about to be committed."""

    session: HandSession
    record: Any


class HandSession:
    """The database's half of a transaction step, in memory."""

    def __init__(self, life: Hand) -> None:
        self._life = life
        self.written: list[str] = []
        self.connection = self

    def open(self) -> Steps:
        yield from ()

    def close(self) -> Steps:
        yield from ()

    def begin(self, isolation: Any, locks: Any, record: tuple[int, str] | None = None) -> Steps:
        yield from self.fence()
        found = [r for r in self._life.journal.records() if record and r.position == record[1]]
        if not found:
            return None
        return Found(found[0].failed, found[0].value, found[0].group, found[0].kind, found[0].name)

    def fence(self) -> Steps:
        yield from ()
        if self._life.fencing:
            raise Fenced

    def state(self) -> str:
        return "open"

    def commit(self, record: Any) -> Steps:
        yield CommitPoint(self, record)

    def roll_back(self) -> Steps:
        yield from ()
