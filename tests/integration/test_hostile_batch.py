"""Whatever is in a batch, and whoever stands in its way: each innocent has its own answer within a second.

A stranger's open transaction on the same id, an id twice, a NUL, a batch that locks in the opposite order, the start
and the end of one run, a record that cannot even be packed: the one fails or waits alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

import perdure
from perdure import WorkflowConflict, sync, workflow
from perdure.store.journal import Journal
from perdure.store.records import EndRecord, Outcome, Park, StartRecord, StepRecord, Ticket
from perdure.sync import Perdure
from perdure.worker.incarnation import Incarnation
from tests.api_tools import on_loop, rows
from tests.protocol_tools import in_thread, start_of, step_of, stranger, take_id

SOON = 1.0


@workflow(name="hostile.plain")
def plain(number: int) -> int:
    return number


@workflow(name="hostile.other")
def other(number: int) -> int:
    return -number


@pytest.fixture
def app(database_url: str) -> Iterator[Perdure]:
    with Perdure(database_url, lease=3, grace=0) as opened:
        yield opened


def life(app: Perdure) -> Incarnation:
    incarnation = app.runtime
    assert isinstance(incarnation, Incarnation)
    return incarnation


def together(journal: Journal, tickets: list[Ticket]) -> None:
    """Submit tickets so that they are one batch."""
    journal.submit(tickets)


def answered(tickets: list[Ticket], within: float = SOON) -> list[Outcome]:
    """What became of each ticket's first record, all within the time."""
    deadline = time.monotonic() + within
    late = [ticket for ticket in tickets if not ticket.wait_blocking(deadline - time.monotonic())]
    assert not late, f"{len(late)} of {len(tickets)} have no answer within {within:g} s"
    for ticket in tickets:
        ticket.check()
    return [ticket.records[0].outcome for ticket in tickets]


def innocents(app: Perdure, name: str = "i") -> list[Ticket]:
    return [Ticket(start_of(life(app).new_key(), f"{name}-{number:03}")) for number in range(100)]


def test_open_transaction_of_a_stranger_holds_up_only_its_own_id(app: Perdure, database_url: str) -> None:
    """A hundred starts with one whose id a stranger holds: they are answered, it is once the stranger is done."""
    good = innocents(app)
    blocked = Ticket(start_of(life(app).new_key(), "i-050x"))
    with stranger(database_url) as somebody:
        take_id(somebody, "i-050x")
        together(life(app).contested, [*good[:50], blocked, *good[50:]])
        assert set(answered(good)) == {Outcome.WON}
        assert not blocked.done
        somebody.commit()
    assert answered([blocked], 3) == [Outcome.ATTACHED]
    assert isinstance(blocked.records[0], StartRecord)
    assert blocked.records[0].found is not None
    assert blocked.records[0].found[1] == "strange"


def test_a_lone_start_that_a_stranger_blocks_holds_up_nobody(app: Perdure, database_url: str) -> None:
    """A batch of one that waits for a stranger leaves the lane to the others, and the worker alive."""
    blocked = Ticket(start_of(life(app).new_key(), "taken"))
    with stranger(database_url) as somebody:
        take_id(somebody, "taken")
        life(app).submit(blocked, contested=True)
        assert not blocked.wait_blocking(0.1)
        good = innocents(app)
        together(life(app).contested, good)
        assert set(answered(good)) == {Outcome.WON}
        assert not blocked.done
    assert answered([blocked], 3) == [Outcome.WON]
    assert life(app).alive()


def test_a_row_lock_of_a_stranger_holds_up_only_its_run(app: Perdure, database_url: str) -> None:
    """Somebody holds the live row of a run that ends alone: the steps of other runs go on."""
    one, two = (start_of(life(app).new_key(), name) for name in ("one", "two"))
    together(life(app).core, begun := [Ticket(one), Ticket(two)])
    answered(begun)
    with stranger(database_url) as somebody:
        somebody.execute("select 1 from perdure.live where key = %s for update", (one.run,))
        end = Ticket(EndRecord(one.run, 7, b"1"))
        life(app).submit(end)
        assert not end.wait_blocking(0.1)
        step = Ticket(step_of(two.run))
        life(app).submit(step)
        assert answered([step]) == [Outcome.WON]
        assert not end.done
    assert answered([end], 3) == [Outcome.WON]


def test_many_blocked_ids_do_not_starve_the_others(app: Perdure, database_url: str) -> None:
    """Ten ids that a stranger holds are tried again and again, and new starts still get through."""
    blocked = [Ticket(start_of(life(app).new_key(), f"b-{number}")) for number in range(10)]
    with stranger(database_url) as somebody:
        for number in range(10):
            take_id(somebody, f"b-{number}")
        first = innocents(app, "first")
        together(life(app).contested, [*blocked, *first])
        assert set(answered(first)) == {Outcome.WON}
        second = innocents(app, "second")
        together(life(app).contested, second)
        assert set(answered(second)) == {Outcome.WON}
        assert not any(ticket.done for ticket in blocked)
    assert set(answered(blocked, 10)) == {Outcome.WON}


def test_an_id_twice_in_one_batch_is_one_run(app: Perdure, database_url: str) -> None:
    """Of two starts with one id in one batch one makes the run and the other finds it; both are answered."""
    good = innocents(app)
    twins = [Ticket(start_of(life(app).new_key(), "twin")) for _ in range(2)]
    together(life(app).contested, [twins[0], *good, twins[1]])
    assert set(answered(good)) == {Outcome.WON}
    assert sorted(outcome.name for outcome in answered(twins)) == ["ATTACHED", "WON"]
    assert rows(database_url, "select count(*) from perdure.runs where id = 'twin'") == [(1,)]


def test_a_nul_fails_alone(app: Perdure) -> None:
    """Text that Postgres cannot hold fails its own record, in either lane, and no other."""
    for journal in (life(app).contested, life(app).core):
        good = innocents(app, journal._name)
        bad = Ticket(start_of(life(app).new_key(), "nul\0"))
        together(journal, [*good[:50], bad, *good[50:]])
        assert set(answered(good)) == {Outcome.WON}
        assert bad.wait_blocking(SOON)
        assert bad.error is not None


def test_record_that_cannot_be_packed_fails_alone(app: Perdure) -> None:
    """A lone surrogate, and a number too large for its column, fail their own record and no other."""
    good = innocents(app)
    together(life(app).core, good)
    answered(good)
    steps = [Ticket(step_of(ticket.run)) for ticket in good[:98]]
    large = StepRecord(good[98].run, "1", 1, 0, 1, "step", False, b"1", attempts=10**6)
    bad = [Ticket(large), Ticket(Park(good[99].run, "lone \ud800"))]
    together(life(app).core, [*steps[:50], *bad, *steps[50:]])
    assert set(answered(steps)) == {Outcome.WON}
    assert all(ticket.wait_blocking(SOON) for ticket in bad)


def test_batch_that_locks_in_the_opposite_order_does_not_fail_the_others(
    app: Perdure, database_url: str
) -> None:
    """A stranger takes the last id first and then waits for the first: no deadlock reaches an innocent."""
    good = innocents(app)
    with stranger(database_url) as somebody:
        take_id(somebody, "i-099")
        together(life(app).contested, good)
        opposite = in_thread(lambda: take_id(somebody, "i-000"))
        assert set(answered(good[1:99])) == {Outcome.WON}
        opposite.error()
    assert set(answered([good[0], good[99]], 3)) == {Outcome.WON}


def test_start_step_and_end_of_one_run_share_a_batch(app: Perdure, database_url: str) -> None:
    """The whole life of a run in one batch, among a hundred others, is written as it was lived."""
    good = innocents(app)
    key = life(app).new_key()
    whole = [Ticket(start_of(key, "short")), Ticket(step_of(key)), Ticket(EndRecord(key, 7, b"1"))]
    together(life(app).core, [*good[:50], *whole, *good[50:]])
    assert set(answered([*good, *whole])) == {Outcome.WON}
    assert rows(database_url, "select status from perdure.ends where key = %s", key) == [(7,)]
    assert rows(database_url, "select 1 from perdure.live where key = %s", key) == []


@on_loop
async def test_every_caller_has_its_own_answer(database_url: str) -> None:
    """Created, attached, WorkflowConflict or an error: each of a hundred starts at once hears what became of it."""
    async with perdure.Perdure(database_url, lease=3, grace=0):
        await perdure.start(other.options(id="of-another"), 1)
        with stranger(database_url) as somebody:
            take_id(somebody, "held")
            held = asyncio.ensure_future(perdure.start(plain.options(id="held"), 1))
            began = time.monotonic()
            answers = await asyncio.gather(
                *(perdure.start(plain.options(id=f"own-{number}"), number) for number in range(100)),
                perdure.start(plain.options(id="same"), 1),
                perdure.start(plain.options(id="same"), 2),
                perdure.start(plain.options(id="of-another"), 1),
                return_exceptions=True,
            )
            took = time.monotonic() - began
            assert not held.done()
        own, same, conflict = answers[:100], answers[100:102], answers[102]
        assert all(isinstance(handle, perdure.Handle) and handle.created for handle in own)
        assert {handle.created for handle in same if isinstance(handle, perdure.Handle)} == {True, False}
        assert isinstance(conflict, WorkflowConflict)
        assert took < SOON
        assert (await held).created
        with pytest.raises(ValueError, match="NUL"):
            await perdure.start(plain.options(id="nul\0"), 1)


def test_the_run_of_a_blocked_start_begins_once_the_stranger_is_gone(app: Perdure, database_url: str) -> None:
    """A start that had to wait is acknowledged late, and its run ends like any other."""
    with stranger(database_url) as somebody:
        take_id(somebody, "late")
        starting = in_thread(lambda: sync.start(plain.options(id="late"), 7))
        sync.start(plain, 1).result(SOON)
        assert starting.going_on
    assert starting.result().result(3) == 7
