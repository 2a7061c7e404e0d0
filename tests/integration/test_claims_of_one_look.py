"""Of what one look found, claims that follow each other take all."""

from __future__ import annotations

import pytest

from perdure.store.claiming import Claimant
from perdure.worker.claimer import Claimer
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
