"""The threads of a blocking run's code: how each is told to go on, and how one waits for several."""

from __future__ import annotations

import threading
from collections import deque
from enum import Enum, auto
from typing import Any, Final


class Word(Enum):
    """What a parked thread is told."""

    ANSWER = auto()
    BODY = auto()
    GATE = auto()
    STOP = auto()
    UNWIND = auto()
    GO_ON = auto()


class Strand:
    """One thread of a run's code."""

    __slots__ = ("_lock", "_words", "fan", "member_of", "stopped")

    def __init__(self, member_of: Fan | None = None) -> None:
        self.member_of = member_of
        """The branches that it is one of."""
        self.stopped = False
        """It is told to stop once the branches have ended that it waits for."""
        self.fan: Fan | None = None
        """The branches that it waits for."""
        self._lock = threading.Semaphore(0)
        self._words: deque[tuple[Word, Any]] = deque()

    def tell(self, word: Word, value: Any = None) -> None:
        """Give the strand a word; it takes them in order."""
        self._words.append((word, value))
        self._lock.release()

    def listen(self) -> tuple[Word, Any]:
        """Wait for the next word."""
        self._lock.acquire()
        return self._words.popleft()


class Fan:
    """Branches that were started together, and the strand that waits for all of them.

    Attributes:
        results: of the branches, in their order.
        errors: of those that failed, by place.
        left: how many have not ended.
        winner: place of the first to end, in a race.
    """

    __slots__ = ("_running", "errors", "left", "parent", "race", "results", "strands", "winner")

    def __init__(self, count: int, parent: Strand, *, race: bool) -> None:
        self.strands: Final = [Strand(self) for _ in range(count)]
        self.parent, self.race = parent, race
        self.results: list[Any] = [None] * count
        self.errors: dict[int, BaseException] = {}
        self.left = count
        self.winner: int | None = None
        self._running = set(range(count))

    def ended(self, place: int) -> list[Strand]:
        """A branch has ended; return the strands that have lost by that."""
        self.left -= 1
        self._running.discard(place)
        if not self.race or self.winner is not None:
            return []
        self.winner = place
        return [self.strands[loser] for loser in sorted(self._running)]

    def all(self) -> list[Any]:
        """The results, or the first error in the order in which they came."""
        for error in self.errors.values():
            raise error
        return self.results

    def first(self) -> tuple[int, Any]:
        """Place and result of the winner, or its error."""
        assert self.winner is not None
        if self.winner in self.errors:
            raise self.errors[self.winner]
        return self.winner, self.results[self.winner]
