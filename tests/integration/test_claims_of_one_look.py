"""Of what one look found, claims that follow each other take all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from perdure import sync, workflow
from perdure.store.claiming import Claimant, Look
from perdure.store.claims import ClaimedRun
from perdure.worker.claimer import Claimer
from tests.api_tools import PATIENCE
from tests.protocol_tools import RawWorker, start_of

WAITING = """
insert into perdure.runs (key, id, workflow, input) select -n, 'r' || n, 'attacked', '{}' from generate_series(1, 250) n;
insert into perdure.live (key, workflow, status, begun, arrival) select -n, 'attacked', 2, true, arrival
from generate_series(1, 250) n
"""


@pytest.mark.parametrize("arrival", ["0", "1 + n / 60"], ids=["of no queue", "that arrived together"])
def test_claims_of_one_look_find_all(database_url: str, arrival: str) -> None:
    """What was started on no queue has no arrival of its own: the second claim must not begin behind it."""
    with RawWorker(database_url) as owner:
        for statement in WAITING.replace("true, arrival", f"true, {arrival}").split(";"):
            owner.connection.execute(statement.encode())
        claimer, who = Claimer(owner.database), Claimant(owner.number, ["attacked"], None)
        found = claimer.look(owner.connection, owner.number, ["default"])
        first = owner.connection.execute("select min(arrival) from perdure.live").fetchone()
        assert tuple(found.groups.values()) == first
        since = dict(claimer._since)
        claimer._since = dict.fromkeys(since, 1000)  # claims begin there, not at dead rows before it
        assert not claimer.claim(owner.connection, who, found, 100)
        claimer._since = since
        counts = [len(claimer.claim(owner.connection, who, found, 100)) for _ in range(4)]
    assert counts == [100, 100, 50, 0]


WOKEN = """
insert into perdure.runs (key, id, workflow, input) values (-1, 'r1', 'attacked', '{}');
insert into perdure.live (key, workflow, status, begun, arrival, ready)
values (-1, 'attacked', 4, true, :arrival, perdure.clock() - :ago * interval '1 second')
"""


@pytest.mark.parametrize("arrival", [0, 7])
def test_quick_look_has_what_it_wakes_and_what_came_where_there_was_work(
    database_url: str, arrival: int
) -> None:
    """It looks for no groups: it knows those that had work, and a run that it wakes is claimed though it arrived long ago."""
    with RawWorker(database_url) as owner:
        owner.write(start_of(owner.key(), "known", options='{"queue": "default", "key": "a"}'))
        claimer, who = Claimer(owner.database), Claimant(owner.number, ["attacked"], None)
        for quick in (False, True):
            if quick:
                owner.write(start_of(owner.key(), "after", options='{"queue": "default", "key": "a"}'))
                owner.write(start_of(owner.key(), "unknown", options='{"queue": "default", "key": "b"}'))
                for statement in WOKEN.replace(":arrival", str(arrival)).replace(":ago", "3").split(";"):
                    owner.connection.execute(statement.encode())
            found = claimer.look(owner.connection, owner.number, ["default"], quick=quick)
            runs = claimer.claim(owner.connection, who, found, 10)
            expected = ["after", "r1"] if quick else ["known"]
            assert sorted(run.id for run in runs) == expected
        found = claimer.look(owner.connection, owner.number, ["default"])
        assert [run.id for run in claimer.claim(owner.connection, who, found, 10)] == ["unknown"]


def test_quick_look_leaves_what_became_due_long_ago_to_a_full_one(database_url: str) -> None:
    """So it passes nothing that died since."""
    with RawWorker(database_url) as owner:
        for statement in WOKEN.replace(":arrival", "7").replace(":ago", "90").split(";"):
            owner.connection.execute(statement.encode())
        claimer = Claimer(owner.database)
        woken = [
            claimer.look(owner.connection, owner.number, ["default"], quick=quick).woken
            for quick in (True, False)
        ]
    assert woken == [0, 1]


def test_looks_are_quick_only_after_two_slow_ones_in_a_row_and_for_their_share_of_the_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single slow one, such as the first, changes nothing; and what a hint meant is looked for as soon as it may be."""
    now, costs, quick_looks = [1000.0], iter((0.5, 0.01, 0.4, 0.3, 0.01, 0.01, 0.01)), []

    def look(*_: object, quick: bool) -> Look:
        now[0] += next(costs)
        quick_looks.append(quick)
        return Look(datetime.now(UTC), 0, None, {}, False, False, {}, {})

    with sync.Perdure(database_url, worker=False) as app:
        producer, incarnation = app.engine.producer, app.engine.incarnation
        monkeypatch.setattr(producer.claimer, "look", look)
        monkeypatch.setattr("perdure.worker.producer.time", SimpleNamespace(monotonic=lambda: now[0]))
        for _ in range(4):
            found, _ = producer._look(incarnation, hinted=False)
        assert quick_looks == [False] * 4
        found, _ = producer._look(incarnation, hinted=False)
        assert (quick_looks[-1], producer._pause(found)) == (True, None)
        found, _ = producer._look(incarnation, hinted=True)
        pause = producer._pause(found)
        assert quick_looks[-1]
        assert pause == pytest.approx(producer.interval), "the poll comes before the full look"
        now[0] += 2.5
        assert producer._pause(found) == pytest.approx(0.48)
        now[0] += 0.5
        producer._look(incarnation, hinted=False)
        producer.close()
        assert not quick_looks[-1]


def test_behind_a_late_run_claims_go_on_where_they_were(database_url: str) -> None:
    """It arrived long ago and woke now: what was passed on the way to it is not passed again."""
    with RawWorker(database_url) as owner:
        for number in range(3):
            owner.write(start_of(owner.key(), f"early-{number}", options='{"queue": "default"}'))
        claimer, who = Claimer(owner.database), Claimant(owner.number, ["attacked"], None)
        found = claimer.look(owner.connection, owner.number, ["default"])
        assert len(claimer.claim(owner.connection, who, found, 10)) == 3
        (furthest,) = claimer._since.values()
        for statement in WOKEN.replace(":arrival", "0").replace(":ago", "3").split(";"):
            owner.connection.execute(statement.encode())
        found = claimer.look(owner.connection, owner.number, ["default"], quick=True)
        assert list(claimer._since.values()) == [0]
        assert [run.id for run in claimer.claim(owner.connection, who, found, 10)] == ["r1"]
        assert list(claimer._since.values()) == [furthest]


def test_a_suspect_is_claimed_though_later_runs_of_its_group_were(database_url: str) -> None:
    """It has seen two workers die: claimed by itself, from where it arrived, not from where the others have come to."""
    with RawWorker(database_url) as owner:
        for number in range(3):
            owner.write(start_of(owner.key(), f"early-{number}", options='{"queue": "default"}'))
        claimer, who = Claimer(owner.database), Claimant(owner.number, ["attacked"], None)
        claimer.claim(owner.connection, who, claimer.look(owner.connection, owner.number, ["default"]), 10)
        owner.connection.execute(
            "update perdure.live set status = 2, worker = null, recoveries = 2 where key = (select min(key) from perdure.live)"
        )
        found = claimer.look(owner.connection, owner.number, ["default"])
        assert not claimer.claim(owner.connection, who, found, 10)
        suspects = claimer.claim(owner.connection, who, found, 1, suspects=True)
    assert [run.id for run in suspects] == ["early-0"]


class Mixed(NamedTuple):
    """An app with both kinds of workflows: what ran, in this order, and how many runs each claim had."""

    light: Any
    heavy: Any
    ran: list[str]
    claims: list[int]


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> Mixed:
    ran: list[str] = []
    claims: list[int] = []
    real = Claimer.claim

    def counted(self: Claimer, *args: Any, **kwargs: Any) -> Sequence[ClaimedRun]:
        runs = real(self, *args, **kwargs)
        claims.append(len(runs))
        return runs

    @workflow(name="mixed.light")
    async def light() -> None:
        ran.append("light")

    @workflow(name="mixed.heavy")
    def heavy() -> None:
        ran.append("heavy")

    monkeypatch.setattr(Claimer, "claim", counted)
    return Mixed(light, heavy, ran, claims)


def run_backlog(url: str, workflows: Sequence[Any], **settings: Any) -> None:
    """Start one run of each, then have an app with one thread run them."""
    with sync.Perdure(url, worker=False) as client:
        handles = client.start_many(each.bind() for each in workflows)
        with sync.Perdure(url, threads=1, **settings):
            for handle in handles:
                handle.result(PATIENCE)


@pytest.mark.session
def test_async_runs_are_not_claimed_by_as_many_as_there_are_threads(database_url: str, mixed: Mixed) -> None:
    """An app that has one thread, and blocking workflows too, claims most of a backlog of async runs at once."""
    run_backlog(database_url, [mixed.light] * 300 + [mixed.heavy] * 3 + [mixed.light] * 300)
    assert (mixed.ran.count("light"), mixed.ran.count("heavy")) == (600, 3)
    assert len([count for count in mixed.claims if count]) < 60


@pytest.mark.session
def test_a_blocking_run_is_not_passed_over_as_long_as_async_ones_wait(
    database_url: str, mixed: Mixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims of `async` runs alone go past it; the first after a look does not."""
    monkeypatch.setattr("perdure.worker.producer.LOOK_SECONDS", 0.0)
    run_backlog(database_url, [mixed.light] * 20 + [mixed.heavy] + [mixed.light] * 600, concurrency=20)
    assert mixed.ran.index("heavy") < 400
