"""Whose turn it is: how the room that a worker has is shared among queues and their keys.

Stride scheduling (Waldspurger 1995): each key has a place on a common line, goes on by 1 / weight for each run that it
begins, and the one that is furthest behind is next. So a tenant with a million rows does not starve one with three, and
weights hold whatever the room, even where it is one run at a time. Lower priorities are strictly first; of queues, each
has the same weight. Nothing here touches a clock, a thread or the database.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

REMEMBERED: Final = 10_000
"""Places that are kept; beyond it those are forgotten that stand where they would join anyway."""


class Group(NamedTuple):
    """Where there is work: queued runs of one queue, priority and key."""

    queue: str
    priority: int
    key: str


class Offer(NamedTuple):
    """A group whose runs may be claimed, and its weight."""

    group: Group
    weight: float = 1.0


class Line:
    """Places on one line: who is furthest behind is next."""

    def __init__(self) -> None:
        self._places: dict[str, float] = {}
        self._front = 0.0

    def places(self, names: Iterable[str]) -> dict[str, float]:
        """Where those stand that want to be served now.

        Who was away, or is new, joins where the last one of the others stands: it has saved up nothing.
        """
        there = {name: max(self._places.get(name, 0.0), self._front) for name in names}
        self._front = min(there.values())
        return there

    def took(self, name: str, distance: float) -> None:
        """It was served, and goes on by so much."""
        self._places[name] = max(self._places.get(name, 0.0), self._front) + distance
        if len(self._places) > REMEMBERED:
            self._places = {name: place for name, place in self._places.items() if place > self._front}


class Turns:
    """The places of queues, and of the keys of each."""

    def __init__(self) -> None:
        self._queues = Line()
        self._keys: defaultdict[str, Line] = defaultdict(Line)

    def share(self, offers: Sequence[Offer], room: int, budgets: Mapping[Any, int]) -> list[int]:
        """How many runs to claim of each offer.

        Args:
            offers: the groups that have work.
            room: runs in all.
            budgets: what is left for queues, by name, and for keys, by queue and key; those without one have no limit.
        """
        quotas = [0] * len(offers)
        left = dict(budgets)
        lines = self._lines(offers)
        turns = [(place, queue) for queue, place in self._queues.places(lines).items()] if lines else []
        heapq.heapify(turns)
        while room > 0 and turns:
            turn, queue = turns[0]
            if left.get(queue, room) <= 0 or not lines[queue]:
                heapq.heappop(turns)
                continue
            priority, place, index = heapq.heappop(lines[queue])
            owner: Any = (queue, offers[index].group.key)
            if left.get(owner, room) <= 0:
                continue
            for each in (queue, owner):
                if each in left:
                    left[each] -= 1
            quotas[index] += 1
            room -= 1
            heapq.heappush(lines[queue], (priority, place + 1 / offers[index].weight, index))
            heapq.heapreplace(turns, (turn + 1, queue))
        return quotas

    def _lines(self, offers: Sequence[Offer]) -> dict[str, list[tuple[int, float, int]]]:
        """The offers of each queue, as a heap: by priority, then by place."""
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for (queue, _, key), _ in offers:
            keys[queue].add(key)
        places = {queue: self._keys[queue].places(names) for queue, names in keys.items()}
        lines: dict[str, list[tuple[int, float, int]]] = {queue: [] for queue in keys}
        for index, ((queue, priority, key), _) in enumerate(offers):
            heapq.heappush(lines[queue], (priority, places[queue][key], index))
        return lines

    def took(self, offer: Offer, runs: int) -> None:
        """So many runs of an offer were claimed."""
        if runs:
            self._queues.took(offer.group.queue, runs)
            self._keys[offer.group.queue].took(offer.group.key, runs / offer.weight)
