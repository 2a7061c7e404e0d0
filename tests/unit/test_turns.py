"""Fair turns: nobody starves, weights hold, no budget is exceeded, whatever the queues and keys."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.worker.turns import Group, Offer, Turns

names = st.sampled_from("abcd")
groups = st.builds(Group, queue=names, priority=st.integers(0, 2), key=names)
offers = st.lists(
    st.builds(Offer, groups, st.sampled_from([0.5, 1.0, 3.0])), max_size=12, unique_by=lambda o: o.group
)
budgets = st.dictionaries(st.one_of(names, st.tuples(names, names)), st.integers(0, 5))


def serve(
    turns: Turns, backlog: dict[Group, int], weights: dict[str, float], room: int, rounds: int
) -> Counter[str]:
    """Serve groups in turns, as long as there is a backlog; count what each key got."""
    got: Counter[str] = Counter()
    for _ in range(rounds):
        there = [Offer(group, weights.get(group.key, 1.0)) for group, runs in backlog.items() if runs]
        for offer, quota in zip(there, turns.share(there, room, {}), strict=True):
            taken = min(quota, backlog[offer.group])
            backlog[offer.group] -= taken
            turns.took(offer, taken)
            got[offer.group.key] += taken
    return got


@given(offers, st.integers(0, 20), budgets)
def test_no_budget_is_exceeded_and_no_room_is_wasted(
    there: list[Offer], room: int, left: dict[Any, int]
) -> None:
    """What is shared fits the room, each queue and each key; room is left only where a budget forbids to use it."""
    quotas = Turns().share(there, room, left)
    spent: Counter[Any] = Counter()
    for offer, quota in zip(there, quotas, strict=True):
        spent[offer.group.queue] += quota
        spent[offer.group.queue, offer.group.key] += quota
    assert sum(quotas) <= room
    assert all(spent[place] <= most for place, most in left.items())
    if sum(quotas) < room:
        for offer in there:
            queue, key = offer.group.queue, offer.group.key
            assert left.get(queue, room) == spent[queue] or left.get((queue, key), room) == spent[queue, key]


@given(st.integers(1, 7), st.integers(1, 3000))
def test_a_tenant_with_many_does_not_starve_one_with_few(room: int, many: int) -> None:
    """Three runs are served within the first few, however many the other one has, and however long it had the queue alone."""
    turns = Turns()
    alone = {Group("q", 0, "big"): many}
    serve(turns, alone, {}, room, 50)
    backlog = {Group("q", 0, "big"): many, Group("q", 0, "small"): 3}
    assert serve(turns, backlog, {}, room, 6 // room + 2)["small"] == 3


@given(st.integers(1, 10), st.sampled_from([2.0, 3.0, 10.0]))
def test_weights_hold_whatever_the_room(room: int, weight: float) -> None:
    """Of what is served, a key gets its share, to within one turn of everybody."""
    rounds = 440 // room
    got = serve(
        Turns(), {Group("q", 0, "a"): 10_000, Group("q", 0, "b"): 10_000}, {"a": weight}, room, rounds
    )
    fair = room * rounds * weight / (weight + 1)
    assert abs(got["a"] - fair) <= weight + room


@given(st.integers(1, 10))
def test_queues_take_turns(room: int) -> None:
    """Two queues share the room of a worker, however many keys one of them has."""
    backlog = {Group("wide", 0, str(key)): 1000 for key in range(50)} | {Group("narrow", 0, ""): 1000}
    turns = Turns()
    got = serve(turns, backlog, {}, room, 100)
    assert abs(got[""] - 50 * room) <= room


@given(st.data())
@settings(max_examples=50)
def test_who_was_away_has_saved_up_nothing(data: st.DataObject) -> None:
    """A key that comes back gets its share from then on, not what it did not use."""
    turns = Turns()
    away = data.draw(st.integers(1, 300))
    serve(turns, {Group("q", 0, "a"): 10, Group("q", 0, "b"): 10}, {}, 1, 20)
    serve(turns, {Group("q", 0, "a"): away}, {}, 1, away)
    got = serve(turns, {Group("q", 0, "a"): 100, Group("q", 0, "b"): 100}, {}, 1, 20)
    assert abs(got["a"] - got["b"]) <= 2


def test_lower_priorities_come_first() -> None:
    """Strictly, whatever the keys."""
    there = [Offer(Group("q", priority, key)) for priority in (1, 0) for key in "ab"]
    assert Turns().share(there, 4, {("q", "a"): 1, ("q", "b"): 1}) == [0, 0, 1, 1]
