"""The gate's decisions against a model of what they should be: live by a machine of rules, replay by whole records.

The gate is pure, so hypothesis can be its host: it asks, finishes, withdraws and falls quiet in any order, and
compares each decision with a model that is simple because it does not have to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perdure.core.gate import CANCEL_POSITION, Call, Decision, Gate, Recorded, Told
from perdure.errors import NonDeterminismError
from perdure.models import Kind


def produce(call: Call) -> Generator[Any, Any, Told]:
    raise AssertionError("the gate runs nothing")


def call(position: str, name: str = "step", kind: Kind = Kind.STEP) -> Call:
    return Call(position, kind, name, produce)


def told(value: str = "null", group: int | None = None) -> Told:
    return Told(False, value.encode(), value, group=group)


def row(
    position: str, group: int | None, order: int = 0, name: str = "step", kind: int = Kind.STEP
) -> Recorded:
    return Recorded(position, group, order, kind, name, False, b"null", 1)


class LiveGate(RuleBasedStateMachine):
    """A run without a record: what waits, what runs, what is done, who has the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.asked: list[Call] = []
        self.running: list[Call] = []
        self.done: list[Call] = []
        self.wanting: list[Call] = []
        self.holder: Call | None = None
        self.number = 0
        self.begun: set[Call] = set()
        self.answered: set[Call] = set()

    @rule()
    def ask(self) -> None:
        self.number += 1
        self.asked.append(call(str(self.number)))
        self.gate.ask(self.asked[-1])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        self.done.append(one)
        self.gate.finish(one, told())

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        self.wanting.append(one)
        self.gate.want(one)

    @precondition(lambda self: self.holder is not None)
    @rule()
    def finish_with_the_gate(self) -> None:
        """The holder has recorded itself, under the group that it was given."""
        one, self.holder = self.holder, None
        assert one is not None
        self.gate.finish(one, told(group=self.gate.next_group()))
        decision = self.gate.on_quiet()
        begun, self.asked = self.asked, []
        self.running += begun
        self.begun |= set(begun)
        assert decision == Decision(group=(one,), begin=tuple(begun))
        self.answered.add(one)

    @precondition(
        lambda self: bool(
            [*self.asked, *self.running, *self.done, *self.wanting, *filter(None, [self.holder])]
        )
    )
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """The caller is cancelled, wherever its call is."""
        lines = [self.asked, self.running, self.done, self.wanting]
        everybody = [one for line in lines for one in line] + ([self.holder] if self.holder else [])
        one = data.draw(st.sampled_from(everybody))
        for line in lines:
            if one in line:
                line.remove(one)
        if one is self.holder:
            self.holder = None
        self.gate.withdraw(one)

    @rule()
    def quiet(self) -> None:
        decision = self.gate.on_quiet()
        if self.holder is not None:
            assert decision == Decision(), "the holder has the gate to itself"
            return
        begun, self.asked = self.asked, []
        assert not self.begun & set(begun), "a body begins once"
        self.begun |= set(begun)
        self.running += begun
        group, self.done = self.done, []
        holder = None
        if not group and self.wanting:
            holder = self.holder = self.wanting.pop(0)
        assert not self.answered & set(group), "a call is answered once"
        self.answered |= set(group)
        assert decision == Decision(begin=tuple(begun), group=tuple(group), holder=holder)

    @invariant()
    def knows_who_waits(self) -> None:
        waiting = bool(self.asked or self.running or self.done or self.wanting or self.holder)
        assert self.gate.idle is not waiting

    @invariant()
    def nothing_is_withdrawn_or_answered_and_runs(self) -> None:
        assert self.gate.running >= set(self.running)
        assert not self.gate.running & self.answered


TestLiveGate = LiveGate.TestCase
TestLiveGate.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@st.composite
def records(draw: st.DrawFn) -> list[list[Recorded]]:
    """Groups of answers, as a journal holds them; between them perhaps the order to stop."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    numbers = iter(range(1, 100))
    groups = [
        [row(f"{next(numbers)}", 3 * group + 1, order) for order in range(size)]
        for group, size in enumerate(sizes)
    ]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(groups)))
        groups.insert(place, [row(CANCEL_POSITION, 3 * place, 0, "ASKED", Kind.CANCEL)])
    return groups


@settings(deadline=None)
@given(records(), st.randoms(use_true_random=False))
def test_a_replay_hands_out_the_groups_as_they_were_whatever_is_asked_first(
    groups: list[list[Recorded]], chance: Any
) -> None:
    """In any order of asking, in any order of rows: group by group, each in its own order, and nothing begins before."""
    rows = [one for group in groups for one in group]
    chance.shuffle(rows)
    gate = Gate([*rows, row("clock", None, name="now", kind=Kind.CLOCK)])
    asks = [call(one.position) for group in groups for one in group if one.kind != Kind.CANCEL]
    fresh = call("fresh")
    asks.append(fresh)
    chance.shuffle(asks)
    handed: list[list[str]] = []
    begun: list[Call] = []
    asked: set[str] = set()
    for _ in range(1000):
        if asks and chance.random() < 0.6:
            asked.add(asks[-1].position)
            gate.ask(asks.pop())
            continue
        left = [[one.position for one in group] for group in groups][len(handed) :]
        decision = gate.on_quiet()
        begun += decision.begin
        if decision.cancel:
            handed.append([CANCEL_POSITION])
        elif decision.replayed:
            assert all(one.position == record.position for one, record in decision.replayed)
            handed.append([one.position for one, _ in decision.replayed])
        if left:
            assert decision.begin == (), "a body began before the record was used up"
            missing = [position for position in left[0] if position not in asked | {CANCEL_POSITION}]
            assert [one.position for one in decision.stuck] == missing
            assert bool(missing) is (decision.replayed == () and not decision.cancel)
        elif not asks:
            break
    assert handed == [[one.position for one in group] for group in groups]
    assert begun == [fresh]
    assert gate.used_up
    assert gate.left_over() is None
    assert gate.next_group() == max(one.group or 0 for one in rows) + 1


@given(records())
def test_what_was_never_asked_for_is_left_over(groups: list[list[Recorded]]) -> None:
    """Code that ends before its record does is found out by the first thing that is left."""
    gate = Gate(one for group in groups for one in group)
    for group in groups:
        assert gate.left_over() == group[0]
        for one in group:
            if one.kind != Kind.CANCEL:
                gate.ask(call(one.position))
        gate.on_quiet()
    assert gate.left_over() is None


@given(st.integers(1, 5))
def test_the_short_path_takes_answers_in_order(length: int) -> None:
    """A single task with a single call gets its next answer, and then None."""
    gate = Gate(row(str(number), number) for number in range(1, length + 1))
    for number in range(1, length + 1):
        taken = gate.next_alone(str(number), Kind.STEP, "step")
        assert taken is not None
        assert taken.position == str(number)
    assert gate.next_alone(str(length + 1), Kind.STEP, "step") is None


@pytest.mark.parametrize(
    "recorded",
    [
        [row("2", 1)],
        [row("1", 1, name="other")],
        [row("1", 1, kind=Kind.SLEEP)],
        [row("1", 1), row("2", 1, 1)],
    ],
    ids=["another position", "another name", "another kind", "a group of two"],
)
def test_the_short_path_takes_nothing_that_is_not_exactly_its_call(recorded: list[Recorded]) -> None:
    """What the record has next is for the gate to judge, and is still there for it."""
    gate = Gate(recorded)
    assert gate.next_alone("1", Kind.STEP, "step") is None
    assert gate.left_over() == recorded[0]


@pytest.mark.parametrize(
    "asked", [call("1", "other"), call("1", "step", Kind.SLEEP)], ids=["another name", "another kind"]
)
def test_a_call_that_does_not_fit_its_record_is_refused(asked: Call) -> None:
    """The error says what the code came to, what was recorded, where, and what to do."""
    refusals: list[Callable[[], object]] = [
        lambda: Gate([row("1", 1)]).ask(asked),
        lambda: Gate([row("1", None)]).reading("1", asked.kind, asked.name),
    ]
    for refused in refusals:
        with pytest.raises(NonDeterminismError) as caught:
            refused()
        text = str(caught.value)
        assert f"{asked.kind.name.lower()} {asked.name!r} at position 1" in text
        assert "step 'step' at position 1 next" in text
        assert "Run the code that began this run" in text
        assert "resume" in text


def test_a_call_that_was_answered_on_the_short_path_never_begins_again() -> None:
    """An answer that comes to the gate with its call is handed out as the others are."""
    gate, answered = Gate(), call("1")
    answered.told = told()
    gate.ask(answered)
    gate.ask(other := call("1/1"))
    assert gate.on_quiet() == Decision(group=(answered,), begin=(other,))


def test_the_order_to_stop_is_taken_once() -> None:
    """On the short path the record says that the code was told to stop, until it is."""
    gate = Gate([row(CANCEL_POSITION, 1, 0, "ASKED", Kind.CANCEL), row("1", 2)])
    assert gate.cancels_next
    gate.take_cancel()
    assert not gate.cancels_next
    assert gate.next_alone("1", Kind.STEP, "step") is not None
