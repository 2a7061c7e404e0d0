"""Limits on ownership hold exactly while many workers claim, die, and give back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from perdure import Queue, Rate
from perdure.store import queues
from perdure.worker.claimer import Claimer
from tests.api_tools import rows
from tests.claim_tools import poll
from tests.protocol_tools import RawWorker

KEYS = ("", "a", "b", "c")
ENQUEUE = """
with born as (
    insert into perdure.runs (key, id, workflow, input, queue, queue_key)
    select -nextval('perdure.strangers'), gen_random_uuid()::text, 'attacked', '{}', 'q', nullif(%s, '')
    from generate_series(1, %s) returning key, queue_key)
insert into perdure.live (key, workflow, status, queue, queue_key, arrival)
select key, 'attacked', 2, 'q', coalesce(queue_key, ''), nextval('perdure.arrivals') from born
"""
END = "delete from perdure.live where key = any(%s) and worker = %s"
PUT_AWAY = "update perdure.live set status = 2, worker = null where key = any(%s) and worker = %s"
OVER = """
select coalesce(max(whole), 0), coalesce(max(mine), 0), coalesce(max(each), 0)
from (select count(*) over (partition by queue) as whole, count(*) over (partition by queue, worker) as mine,
             count(*) over (partition by queue, queue_key) as each
      from perdure.live where status = 3) t
"""

HELD = "select queue, queue_key, worker from perdure.live where status = 3"


@pytest.fixture
def crew(database_url: str) -> Iterator[list[RawWorker]]:
    workers = [RawWorker(database_url) for _ in range(4)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.mark.session
@pytest.mark.parametrize("seed", range(2))
def test_limits_hold_whoever_claims(
    crew: list[RawWorker], database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workers claim, end, put away and give back at random: no look at the table ever shows one too many.

    All of their counts but the first go on from the one before. When nothing is owned any more there is room as at first.
    """
    monkeypatch.setattr("perdure.store.counting.RECOUNT_SECONDS", 3600)
    limits: dict[str, Any] = {"concurrency": 7, "worker_concurrency": 3, "key_concurrency": 2}
    queues.declare(crew[0].database, [Queue("q", **limits), Queue("p", **limits)])
    stop = threading.Event()
    seen: list[tuple[int, int, int]] = []

    def watch() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                seen.append(connection.execute(OVER).fetchone() or (0, 0, 0))

    def work(worker: RawWorker, claimer: Claimer, chance: random.Random) -> int:
        mine, done = [], 0
        for _ in range(30):
            served = chance.choice((("q",), ("p", "q")))
            mine += [run.key for run in poll(worker, "attacked", queues=served, claimer=claimer)]
            gone = [key for key in mine if chance.random() < 0.5]
            mine = [key for key in mine if key not in gone]
            statement = END if chance.random() < 0.7 else PUT_AWAY
            rows(database_url, statement, gone, worker.number)
            done += len(gone)
        rows(database_url, PUT_AWAY, mine, worker.number)
        return done

    chance = random.Random(seed)
    for key in KEYS:
        rows(database_url, ENQUEUE, key, 60)
        rows(database_url, ENQUEUE.replace("'q'", "'p'"), key, 60)
    claimers = [Claimer(worker.database) for worker in crew]
    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(work, crew, claimers, [random.Random(chance.random()) for _ in crew]))
    stop.set()
    watcher.join()
    assert max(whole for whole, _, _ in seen) <= 7
    assert max(mine for _, mine, _ in seen) <= 3
    assert max(each for _, _, each in seen) <= 2
    assert all(done), "nobody was starved"
    last = [
        len(poll(worker, "attacked", queues=("q",), claimer=claimer))
        for worker, claimer in zip(crew, claimers, strict=True)
    ]
    assert last == [3, 3, 1, 0], "of keys '', 'a', 'b' and 'c' two each"


@pytest.mark.parametrize("seed", range(4))
def test_count_that_goes_on_finds_what_one_from_the_beginning_finds(
    crew: list[RawWorker], database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three who claim, end and put away by turns at random: each remembered count is what the table says."""
    monkeypatch.setattr("perdure.store.counting.RECOUNT_SECONDS", 3600)
    queues.declare(crew[0].database, [Queue("q", key_concurrency=3), Queue("p", concurrency=5)])
    for name in ("q", "p", "q", "p"):
        for key in KEYS:
            rows(database_url, ENQUEUE.replace("'q'", f"'{name}'"), key, 12)
    chance = random.Random(seed)
    claimers = [Claimer(worker.database) for worker in crew[:3]]
    groups = [(name, 0, key) for name in ("p", "q") for key in KEYS]
    counts = 0
    for _ in range(60):
        place = chance.randrange(3)
        owner, claimer = crew[place], claimers[place]
        served = chance.choice((("q",), ("p",), ("p", "q")))
        match chance.randrange(4):
            case 0:
                poll(owner, "attacked", queues=served, claimer=claimer, limit=chance.randrange(1, 5))
            case 1 | 2:
                mine = rows(database_url, "select key from perdure.live where worker = %s", owner.number)
                some = [key for (key,) in mine if chance.random() < 0.3]
                rows(database_url, chance.choice((END, PUT_AWAY)), some, owner.number)
            case _:
                asked = [group for group in groups if group[0] in served]
                with claimer._slots.counted(owner.connection, owner.number, asked) as count:
                    held = owner.connection.execute(HELD).fetchall()
                for name in served:
                    whole = [(key, worker) for queue, key, worker in held if queue == name]
                    usage = count.queues[name]
                    assert usage.running == len(whole)
                    assert usage.mine == sum(worker == owner.number for _, worker in whole)
                    assert [count.keys[name, key].running for key in KEYS] == [
                        sum(queue_key == key for queue_key, _ in whole) for key in KEYS
                    ]
                counts += 1
    assert counts > 5


@pytest.mark.parametrize("limits", [{"rate": Rate(5, 60)}, {"key_rate": Rate(2, 60)}])
def test_rates_hold_whoever_claims(crew: list[RawWorker], database_url: str, limits: dict[str, Rate]) -> None:
    """Four workers at once begin just as many as the rate allows, however often they ask; what goes on is not counted."""
    queues.declare(crew[0].database, [Queue("q", **limits)])  # type: ignore[arg-type]
    for key in KEYS:
        rows(database_url, ENQUEUE, key, 20)

    def work(worker: RawWorker) -> int:
        claimer, claimed = Claimer(worker.database), 0
        for _ in range(10):
            got = [run.key for run in poll(worker, "attacked", queues=("q",), claimer=claimer)]
            claimed += len(got)
            rows(database_url, PUT_AWAY, got, worker.number)
        return claimed

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, crew))
    expected = 5 if "rate" in limits else 2 * len(KEYS)
    assert rows(database_url, "select count(*) from perdure.live where begun") == [(expected,)]
    assert rows(database_url, "select sum(runs) from perdure.begun") == [(expected,)]
