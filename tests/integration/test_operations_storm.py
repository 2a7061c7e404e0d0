"""Everything at once, on the same few runs: no deadlock, no row of a run that is gone, one life under an id."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import perdure
from perdure import PerdureError, Topic, step, sync, workflow
from perdure.models import RunFilter
from tests.api_tools import rows
from tests.integration.test_operations_races import no_orphans
from tests.protocol_tools import in_thread
from tests.servers import TestServer

IDS = [f"run-{number}" for number in range(6)]
PEOPLE, EACH = 5, 60
words = Topic("storm", str)


@step(name="storm.work")
async def work(number: int) -> int:
    if number % 7 == 3:
        raise LookupError(number)
    return number


@workflow(name="storm.child")
async def child(number: int) -> int:
    await perdure.receive(words, timeout=0.05 * (number % 3), default="none")
    return await work(number)


@workflow(name="storm.parent")
async def parent(number: int) -> int:
    await perdure.set_event("begun", number)
    both = await asyncio.gather(child(number), child(number + 1))
    await perdure.receive(words, timeout=0.05, default="none")
    return sum(both)


def person(url: str, seed: int) -> None:
    """Somebody who does anything to any run, some hundred times."""
    chance = random.Random(seed)
    with sync.Perdure(url, worker=False) as app:
        acts: list[Callable[[str], Any]] = [
            lambda run: app.start(parent.definition.name, [chance.randrange(20)], id=run),
            lambda run: app.start(
                parent.definition.name, [chance.randrange(20)], id=run, on_conflict="restart_if_failed"
            ),
            lambda run: app.handle(run).send(words, "hello"),
            app.runs.cancel,
            lambda run: app.runs.cancel(run, compensate=False),
            lambda _: app.runs.cancel(chance.sample(IDS, 3), compensate=False),
            app.runs.restart,
            lambda run: app.runs.restart(chance.sample(IDS, 4)),
            lambda run: app.runs.resume(RunFilter()),
            lambda run: app.runs.fork(run, from_step="2"),
            lambda run: app.runs.delete(chance.sample(IDS, 4)),
            lambda run: app.runs.delete(run, children=False),
            lambda run: app.runs.set_timeout(chance.sample(IDS, 4), timeout=chance.choice([None, 0.1, 60])),
            lambda run: app.runs.set_tags(chance.sample(IDS, 4), {"seed": seed}),
            lambda run: app.runs.set_output(run, "1", 5),
            app.runs.export,
        ]
        for _ in range(EACH):
            try:
                chance.choice(acts)(chance.choice(IDS))
            except (PerdureError, LookupError):
                continue  # there is no such run, it has ended, it runs: as it may be


def test_many_people_and_a_worker_on_the_same_runs(server: TestServer, database_url: str) -> None:
    with sync.Perdure(database_url, lease=5) as worker:
        people = [in_thread(partial(person, database_url, seed)) for seed in range(PEOPLE)]
        for somebody in people:
            somebody.result(within=120)
        no_orphans(database_url)
        lost = "select key from perdure.live join perdure.runs using (key) where superseded"
        assert rows(database_url, lost) == []
        both = "select key from perdure.live join perdure.ends using (key)"
        assert rows(database_url, both) == []
        neither = (
            "select key from perdure.runs r where not exists (select 1 from perdure.live l where l.key = r.key)"
            " and not exists (select 1 from perdure.ends e where e.key = r.key)"
        )
        assert rows(database_url, neither) == []
        assert [info.why for info in worker.runs.list(status="parked")] == []
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert rows(database_url, deadlocks) == [(0,)], server.log.read_text()
