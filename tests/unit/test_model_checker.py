"""Every order in which things can happen to the operations of a workflow, tried out.

A search goes through the choices of `tests.hand_driven`: at each point where the code is quiet any body may
end, any part of what is sent may be committed, an answer may be lost, the worker may be declared dead or
die. After each course the run is taken over from what is committed, and both must agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

import pytest

from perdure import Retry, step, transaction, workflow
from perdure.core import transactions
from perdure.core.branch import Branch
from perdure.core.registry import StepDefinition, TransactionDefinition
from perdure.core.starting import Start, start_child
from perdure.core.steps import clock_reading
from perdure.core.steps import step as call_step
from perdure.core.transactions import transaction as call_transaction
from perdure.core.waits import end_of_run, sleep
from perdure.errors import Cancelled
from perdure.models import Status
from perdure.options import StartOptions
from perdure.serial import Payload
from tests.hand_driven import Fork, Hand, Program, Steps
from tests.memory_runtime import Past

chance = random.Random(1)


@workflow
def walk() -> None:
    """Stands for the code that is driven by hand."""


@step
def roll(name: str) -> str:
    """Another value every time."""
    return f"{name}:{chance.randrange(10**6)}"


@step
def refuse(name: str) -> str:
    """Another error every time."""
    raise LookupError(name, chance.randrange(10**6))


@step(retry=Retry(max_attempts=2, delay=0, on=(OSError,)))
def stubborn(attempts: list[int]) -> int:
    """A value at the second attempt."""
    attempts.append(chance.randrange(10**6))
    if len(attempts) < 2:
        raise OSError("not yet")
    return attempts[-1]


@step(at_most_once=True)
def once(name: str) -> str:
    """A body that must never begin twice."""
    return f"{name}:{chance.randrange(10**6)}"


@transaction
def book(conn: Any, name: str) -> str:
    """One row, and another value every time."""
    conn.written.append(name)
    return f"{name}:{chance.randrange(10**6)}"


@transaction
def overdraw(conn: Any, name: str) -> str:
    """Never a row, always a failure."""
    raise LookupError(name)


def ask(hand: Hand, branch: Branch, definition: Any, *args: Any) -> Steps:
    """Call a step or a transaction, and note what the code learns of it."""
    try:
        if isinstance(definition, TransactionDefinition):
            answer = yield from call_transaction(branch, definition, args, {})
        else:
            assert isinstance(definition, StepDefinition)
            answer = yield from call_step(branch, definition, args, {})
    except Exception as error:
        answer = error
        hand.see(repr(error))
        return error
    hand.see(answer)
    return answer


def lane(*definitions: Any) -> Program:
    """Code that calls these one after the other."""

    def program(hand: Hand, branch: Branch) -> Steps:
        for number, definition in enumerate(definitions):
            yield from ask(hand, branch, definition.definition, f"{branch.path}{number}")

    return program


def one_after_the_other(hand: Hand, branch: Branch) -> Steps:
    """All kinds of calls, without branches."""
    yield from ask(hand, branch, roll.definition, "a")
    hand.see(clock_reading(branch))
    yield from ask(hand, branch, refuse.definition, "b")
    yield from ask(hand, branch, stubborn.definition, [])
    yield from sleep(branch, seconds=5)
    hand.see("slept")
    yield from ask(hand, branch, roll.definition, "c")


def cancelled(hand: Hand, branch: Branch) -> Steps:
    """Steps, and one more when it is told to stop."""
    try:
        for name in "abc":
            yield from ask(hand, branch, roll.definition, name)
    except Cancelled:
        hand.see("told to stop")
        yield from ask(hand, branch, roll.definition, "tidy up")
        raise


def with_children(hand: Hand, branch: Branch) -> Steps:
    """A child, one with an id of the caller's, and the end of the first."""
    yield from ask(hand, branch, roll.definition, "a")
    for id in (None, "theirs"):
        what = Start("child", b"[]", StartOptions(id=id), None)
        started = yield from start_child(branch, what)
        hand.see((started.id, started.created))
    ended = yield from end_of_run(branch, 1, "the child", Payload.of(str))
    hand.see(ended)
    yield from ask(hand, branch, roll.definition, "b")


def forked(*programs: Program) -> Program:
    """Branches, and a step after them."""

    def program(hand: Hand, branch: Branch) -> Steps:
        yield Fork(programs)
        yield from ask(hand, branch, roll.definition, "joined")

    return program


SMALL = {
    "plain": lane(roll, refuse),
    "branches": forked(lane(roll, roll), lane(roll)),
    "transactions": lane(roll, book, roll),
    "transaction-beside-a-step": forked(lane(book), lane(roll)),
    "once": lane(once, roll),
}
LARGE = {
    "all-kinds": one_after_the_other,
    "cancelled": cancelled,
    "children": with_children,
    "two-lanes-of-three": forked(lane(roll, refuse, roll), lane(roll, roll, roll)),
    "three-lanes": forked(lane(roll, roll), lane(roll, roll), lane(roll, roll)),
    "transactions-in-lanes": forked(lane(book, roll), lane(roll, book), lane(book)),
    "failing-transactions-in-lanes": forked(lane(overdraw, roll), lane(roll, roll, overdraw)),
    "once-in-lanes": forked(lane(once, roll), lane(roll, once)),
}


@pytest.fixture(autouse=True)
def few_conflicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction gives up after so few conflicts that the search gets there."""
    monkeypatch.setattr(transactions, "MAX_CONFLICTS", 2)


@pytest.mark.parametrize("name", SMALL)
def test_every_course_of_a_small_run_is_replayed(name: str) -> None:
    """Whatever happens, in whatever order: what is committed is a prefix of what was seen, and replays as it was."""
    courses = 0
    for choose in all_choices(60_000):
        check_course(SMALL[name], choose)
        courses += 1
    assert 20 < courses < 60_000, "the search was cut short, or there was nothing to search"


@pytest.mark.parametrize("name", LARGE)
def test_many_courses_of_a_large_run_are_replayed(name: str) -> None:
    """The same for runs that have too many courses to try them all."""
    for seed in range(1500):
        check_course(LARGE[name], random_choices(seed), may_cancel=name == "cancelled")


@pytest.mark.parametrize("name", LARGE)
def test_a_second_crash_during_the_replay_changes_nothing(name: str) -> None:
    """A run that is taken over, and taken over again, still tells its code what it told it first."""
    for seed in range(400):
        check_course(LARGE[name], random_choices(seed), random_choices(seed + 1), name == "cancelled")


def check_course(
    program: Program,
    choose: Callable[[int], int],
    again: Callable[[int], int] | None = None,
    may_cancel: bool = False,
) -> None:
    """One life with these choices; then one that takes over, calm or again with choices; then a full replay."""
    first = live(program, Past(), choose, may_cancel=may_cancel)
    if parked(first):
        return
    if again is not None:
        second = live(program, told(first), again, rows=first.rows, seed=1)
        assert_follows(second, first)
        if parked(second):
            return
        first = second
    last = live(program, told(first), None, rows=first.rows, seed=2)
    assert_follows(last, first)
    assert last.journal.end is not None
    assert last.journal.end.status in (Status.SUCCEEDED.code, Status.CANCELLED.code)
    replay = live(program, told(last), None, rows=last.rows, seed=3)
    assert replay.bodies == []
    assert [what for _, what in replay.seen] == [what for _, what in last.seen]
    assert replay.journal.rows() == last.journal.rows()
    assert replay.journal.end is not None
    assert replay.journal.end.value == last.journal.end.value
    assert_exactly_once(last)


def live(
    program: Program,
    past: Past,
    choose: Callable[[int], int] | None,
    *,
    rows: list[str] | None = None,
    seed: int = 0,
    may_cancel: bool = False,
) -> Hand:
    """One life, and the rules that hold in every one."""
    hand = Hand(
        past,
        seed,
        choose=choose or (lambda options: 0),
        calm=choose is None,
        may_cancel=may_cancel,
        rows=list(rows or ()),
    )
    hand.live_by_hand(walk.definition, program)
    assert hand.faults == []
    gone = [*hand.missing, *hand.too_late]
    submitted = [unit for ticket in hand.submitted if (unit := tuple(ticket.records)) not in gone]
    by_journal = [unit for unit in hand.committed if unit in submitted]
    assert by_journal == submitted[: len(by_journal)], "what is committed is no prefix of what was sent"
    return hand


def assert_follows(later: Hand, before: Hand) -> None:
    """Whoever takes over shows the code what it saw before, as far as it was committed."""
    expected = [what for sent, what in before.seen if sent <= len(before.committed)]
    assert [what for _, what in later.seen][: len(expected)] == expected


def assert_exactly_once(hand: Hand) -> None:
    """Every recorded transaction has written its row, once."""
    recorded = [row for row in hand.journal.rows() if row[4].endswith("book") and not row[5]]
    assert len(hand.rows) == len(set(hand.rows)) == len(recorded)


def parked(hand: Hand) -> bool:
    """Whether the run was given up, which only a refusal does."""
    assert hand.journal.parked is None or hand.fallen
    return hand.journal.parked is not None or hand.fallen


def told(hand: Hand) -> Past:
    """The journal as a new owner finds it, without the end."""
    return Past(tuple(u for u in hand.journal.units if not any(type(r).__name__ == "EndRecord" for r in u)))


def all_choices(limit: int) -> Generator[Callable[[int], int], None, None]:
    """Every sequence of choices, depth first; each is to be used up before the next is taken."""
    trail: list[list[int]] = []
    for _ in range(limit):
        at = iter(range(10**6))

        def choose(options: int, at: Any = at) -> int:
            place: int = next(at)
            if place == len(trail):
                trail.append([0, options])
            assert trail[place][1] == options, "the same choices led to another place"
            taken: int = trail[place][0]
            return taken

        yield choose
        while trail and trail[-1][0] + 1 == trail[-1][1]:
            trail.pop()
        if not trail:
            return
        trail[-1][0] += 1


def random_choices(seed: int) -> Callable[[int], int]:
    """Choices by chance; late ones, which are the accidents, more seldom."""
    rng = random.Random(seed)
    return lambda options: min(rng.randrange(options), rng.randrange(options), rng.randrange(options))
