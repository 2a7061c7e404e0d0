"""The messages of one run while it is in memory: read from the database in order, handed to whoever waits.

A message belongs to nobody until a step row names it. Here it is only given out in memory, first come, first served
on both sides; what was given to a call that was cancelled goes back to its place in the line. `seen` is the number of
the last message that was read of a topic: a run may be put away unless there is a later one.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from perdure.store.signal import Signal, settle


class Letter(NamedTuple):
    """A message: its number, which no other has, and its payload."""

    number: int
    value: bytes


class Want(Signal):
    """A call that waits for a message of a topic; settled with a letter, or without one if it only wanted to look.

    The letter is no `value`: whoever tells the code to stop settles the signal too, and must not lose it.
    """

    __slots__ = ("letter", "only_looks", "since", "topic")

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic = topic
        self.letter: Letter | None = None
        self.only_looks = False
        self.since = 0


class _Line:
    """The messages of one topic, and those who wait for them."""

    __slots__ = ("asked", "letters", "seen", "wants")

    def __init__(self) -> None:
        self.letters: deque[Letter] = deque()
        self.wants: deque[Want] = deque()
        self.seen = 0
        self.asked = 0


class Mailbox:
    """All topics of one run.

    Args:
        run: the run's key.
        consumed: numbers of the messages that its record names.
    """

    def __init__(self, run: int, consumed: Iterable[int] = ()) -> None:
        self.run = run
        self._consumed = set(consumed)
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def want(self, topic: str) -> Want:
        """Stand in line for a message; the want is settled at once if there is one."""
        want = Want(topic)
        with self._lock:
            line = self._lines.setdefault(topic, _Line())
            line.wants.append(want)
            want.since = line.asked
            served = _serve(line)
        settle(served)
        return want

    def only_look(self, want: Want) -> None:
        """Have a want settled by the next look into the database that begins from now on, message or none."""
        with self._lock:
            want.only_looks = True
            want.since = self._lines[want.topic].asked

    def leave(self, want: Want) -> Letter | None:
        """Leave the line; return the letter that was given out, if one was."""
        with self._lock:
            wants = self._lines[want.topic].wants
            if want in wants:
                wants.remove(want)
                return None
            return want.letter

    def give_back(self, topic: str, letter: Letter) -> None:
        """Put a letter back that nobody was told of."""
        with self._lock:
            line = self._lines[topic]
            letters = list(line.letters)
            insort(letters, letter)
            line.letters = deque(letters)
            served = _serve(line)
        settle(served)

    def is_wanted(self, topic: str) -> bool:
        """Whether somebody waits for a message of this topic."""
        line = self._lines.get(topic)
        return line is not None and bool(line.wants)

    def seen(self, topic: str) -> tuple[int, int]:
        """Number of the last message that was read of this topic, and how many still wait for one, at one moment."""
        with self._lock:
            line = self._lines[topic]
            return line.seen, len(line.wants)

    def ask(self, topic: str) -> tuple[int, int]:
        """A look into the database begins: after which number, and which look it is."""
        with self._lock:
            line = self._lines.setdefault(topic, _Line())
            line.asked += 1
            return line.seen, line.asked

    def arrived(self, topic: str, rows: Iterable[tuple[int, bytes]], look: int) -> bool:
        """What the look found; tell whether somebody still waits."""
        with self._lock:
            line = self._lines[topic]
            for number, value in rows:
                if number > line.seen:
                    line.seen = number
                    if number not in self._consumed:
                        line.letters.append(Letter(number, value))
            served = _serve(line)
            for want in [want for want in line.wants if want.only_looks and want.since < look]:
                line.wants.remove(want)
                served.append(want)
            waits = bool(line.wants)
        settle(served)
        return waits


def _serve(line: _Line) -> list[Want]:
    served: list[Want] = []
    while line.letters and line.wants:
        want = line.wants.popleft()
        want.letter = line.letters.popleft()
        served.append(want)
    return served
