"""Of what one look found, claims that follow each other take all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.store.claiming import Claimant
from perdure.worker.claimer import Claimer
from tests.protocol_tools import RawWorker

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
        beyond = replace(
            found, groups=dict.fromkeys(found.groups, 1000)
        )  # claims begin there, not at dead rows before
        assert not claimer.claim(owner.connection, who, beyond, 100)
        counts = [len(claimer.claim(owner.connection, who, found, 100)) for _ in range(4)]
    assert counts == [100, 100, 50, 0]
