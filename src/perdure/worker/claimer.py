"""The claimer: takes runs from queues, in fair turns and within their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg

from perdure.store import claiming
from perdure.store.batch import FENCED_STATE
from perdure.store.claiming import ANY, FRESH, LOWEST, ONWARD, Claimant, Limits, Look, Part
from perdure.store.claims import ClaimedRun
from perdure.store.connection import Connection
from perdure.store.counting import Count, Slots
from perdure.store.database import Database
from perdure.worker.turns import Group, Offer, Turns

ROUNDS: Final = 20
"""Claims for one look: what one group did not have goes to others in the next."""
BUSY_SECONDS: Final = 0.02
"""When to look again at a queue with limits that another worker was claiming from."""
KNOWN_GROUPS: Final = 200
"""So many groups are remembered, though the last look found no work in them."""
QUICK_SECONDS: Final = 60.0
"""A quick look wakes what became due within so many seconds."""
NO_LIMITS: Final = Limits("")


class Claimer:
    """Claims for one worker; it remembers whose turn it is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._slots = Slots(database)
        self._turns = Turns()
        self._since: dict[Group, int] = {}
        """From which arrival on each group is claimed: what was before it is gone, though its entries are in the index still."""
        self._furthest: dict[Group, int] = {}
        """The last arrival that was claimed of each group: behind a late one, which had to be gone back for, it goes on there."""
        self._cursors: dict[str, tuple[int, str]] = {}
        self._limits: dict[str, Limits] = {}
        self._limited: frozenset[str] = frozenset()
        self._limited_first = False
        self.again: float | None = None
        """Seconds until there may be more though nobody says so: a rate allows it, or another worker is done."""

    def limited(self, queue: str) -> bool:
        """Whether a queue has limits, as the last look knew: who frees a slot there has to tell the others."""
        return queue in self._limited

    def look(
        self, connection: Connection, worker: int, queues: Sequence[str], *, quick: bool = False
    ) -> Look:
        """Look for work: from the first group of each queue on, and where there are many also from where it last ended.

        A quick look does not look for groups: it takes those that had work lately for those that have, and what it wakes.
        """
        places = [(queue, LOWEST, "") for queue in queues]
        places += [(queue, *place) for queue, place in self._cursors.items()]
        if quick:
            how: dict[str, Any] = {"places": (), "ready_within": QUICK_SECONDS}
        else:
            how = {"places": places}
        found = claiming.look(connection, self._database, worker=worker, listen=queues, **how)
        self._limits, self.again = found.limits, None
        self._limited = frozenset(name for name, limits in found.limits.items() if limits.any)
        for group, arrival in found.groups.items():
            since = self._since.pop(Group(*group), arrival)
            self._since[Group(*group)] = min(since, arrival) if quick else arrival
        if quick:
            known = {(queue, priority, key): since for (queue, priority, key), since in self._since.items()}
            return replace(found, groups=known)
        while len(self._since) > max(KNOWN_GROUPS, len(found.groups)):
            forgotten = next(iter(self._since))
            del self._since[forgotten]
            self._furthest.pop(forgotten, None)
        for queue in queues:
            start = self._cursors.pop(queue, (LOWEST, ""))
            seen = sorted((priority, key) for name, priority, key in found.groups if name == queue)
            beyond = [place for place in seen if place >= start]
            if len(beyond) >= claiming.GROUPS_AT_ONCE:
                self._cursors[queue] = beyond[claiming.GROUPS_AT_ONCE - 1]
        return found

    def claim(
        self, connection: Connection, who: Claimant, found: Look, room: int, *, suspects: bool = False
    ) -> Sequence[ClaimedRun]:
        """Claim up to `room` runs of the groups that a look found, with their histories."""
        self.again = None
        groups = [Group(*group) for group in found.groups]
        since, furthest = self._since, self._furthest
        if suspects:  # which the others were claimed past: from where the look found the first
            since, furthest = {Group(*group): arrival for group, arrival in found.groups.items()}, {}
        runs: list[ClaimedRun] = []
        self._limited_first = not self._limited_first
        for limited in (self._limited_first, not self._limited_first):
            mine = [group for group in groups if self.limited(group.queue) is limited]
            if not mine or len(runs) >= room:
                continue
            claim = _Claim(
                self._database,
                connection,
                who,
                self._turns,
                since,
                furthest,
                room - len(runs),
                suspects=suspects,
                counted=limited,
            )
            if limited:
                self._within_limits(claim, mine)
            else:
                claim.of([self._offer(group) for group in mine], {}, ANY)
            runs += claim.runs
        return claiming.with_histories(connection, self._database, runs)

    def _within_limits(self, claim: _Claim, groups: Sequence[Group]) -> None:
        """Lock the queues, count, and claim what their limits leave."""
        try:
            with self._slots.counted(claim.connection, claim.who.worker, groups) as count:
                limits = count.limits
                if len(limits) < len({group.queue for group in groups}):
                    self.again = BUSY_SECONDS
                mine = [group for group in groups if group.queue in limits]
                slots = _slots(count)
                going = [group for group in mine if limits[group.queue].rated]
                claim.of([self._offer(group) for group in going], slots, ONWARD)
                claim.of([self._offer(group) for group in mine if group not in going], slots, ANY)
                starts, free_in = _starts(count)
                for place, left in slots.items():
                    starts[place] = min(starts.get(place, left), left)
                claim.of([self._offer(g) for g in going if not limits[g.queue].paused], starts, FRESH)
                if free_in is not None:
                    self.again = min(free_in, self.again or free_in)
        except psycopg.Error as error:
            if error.sqlstate != FENCED_STATE:
                raise
            claim.runs.clear()

    def _offer(self, group: Group) -> Offer:
        weights = self._limits.get(group.queue, NO_LIMITS).weights
        return Offer(group, weights.get(group.key, 1.0))


class _Claim:
    """One claim: rounds over the groups, until there is no room or nothing more."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        who: Claimant,
        turns: Turns,
        since: dict[Group, int],
        furthest: dict[Group, int],
        room: int,
        *,
        suspects: bool,
        counted: bool,
    ) -> None:
        self._database, self.connection, self.who, self._turns = database, connection, who, turns
        self._since, self._furthest, self._room = since, furthest, room
        self._suspects, self._counted = suspects, counted
        self.runs: list[ClaimedRun] = []

    def of(self, offers: Sequence[Offer], budgets: dict[Any, int], mode: int) -> None:
        """Claim from these offers, within the budgets of queues and keys, which it lowers."""
        since = self._since if mode == ANY else dict(self._since)  # what one mode passes by is another's
        for _ in range(ROUNDS):
            quotas = self._turns.share(offers, self._room, budgets)
            chosen = [(offer, quota) for offer, quota in zip(offers, quotas, strict=True) if quota]
            if not chosen:
                return
            parts = [Part(offer.group, quota, mode, since.get(offer.group, 0)) for offer, quota in chosen]
            found = self.who.claim(
                self.connection, self._database, parts, suspects=self._suspects, counted=self._counted
            )
            self._note(found, budgets, since)
            got = Counter(run.group for run in found)
            for offer, _ in chosen:
                self._turns.took(offer, got[offer.group])
            spent = {offer.group for offer, quota in chosen if got[offer.group] < quota}
            for group in spent & self._furthest.keys():
                since[group] = self._furthest[group]  # all that is before it has been passed just now
            offers = [offer for offer in offers if offer.group not in spent]

    def _note(self, found: Iterable[ClaimedRun], budgets: dict[Any, int], since: dict[Group, int]) -> None:
        for run in found:
            self.runs.append(run)
            self._room -= 1
            queue, _, key = group = Group(*run.group)
            # Not the one after it: runs that no queue was named for have no arrival of their own.
            since[group] = run.arrival
            self._furthest[group] = max(run.arrival, self._furthest.get(group, run.arrival))
            for place in (queue, (queue, key)):
                if place in budgets:
                    budgets[place] -= 1


def _slots(count: Count) -> dict[Any, int]:
    """How many more runs each queue, and each key, may have at a time."""
    slots: dict[Any, int] = {}
    for queue, limit in count.limits.items():
        used = count.queues[queue]
        for most, now in ((limit.concurrency, used.running), (limit.worker_concurrency, used.mine)):
            if most is not None:
                slots[queue] = max(0, min(slots.get(queue, most), most - now))
    for (queue, key), usage in count.keys.items():
        if (each := count.limits[queue].key_concurrency) is not None:
            slots[queue, key] = max(0, each - usage.running)
    return slots


def _starts(count: Count) -> tuple[dict[Any, int], float | None]:
    """How many more runs of each queue, and each key, may begin now; and seconds until a rate that is used up has more."""
    starts: dict[Any, int] = {}
    free: list[float] = []
    rates = [(queue, limit.rate, count.queues[queue]) for queue, limit in count.limits.items()]
    keys = [((queue, key), count.limits[queue].key_rate, usage) for (queue, key), usage in count.keys.items()]
    for place, rate, usage in (*rates, *keys):
        if rate is not None:
            starts[place] = max(0, rate - usage.begun)
            if not starts[place] and usage.free_in is not None:
                free.append(max(0.001, usage.free_in))
    return starts, min(free, default=None)
