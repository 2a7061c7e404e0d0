"""Limits on ownership hold exactly while many workers claim, die, and give back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
select count(*) filter (where true) as whole,
       coalesce(max(mine), 0), coalesce(max(each), 0)
from (select count(*) over (partition by worker) as mine, count(*) over (partition by queue_key) as each
      from perdure.live where status = 3 and queue = 'q') t
"""


@pytest.fixture
def crew(database_url: str) -> Iterator[list[RawWorker]]:
    workers = [RawWorker(database_url) for _ in range(4)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.mark.session
@pytest.mark.parametrize("seed", range(2))
def test_limits_hold_whoever_claims(crew: list[RawWorker], database_url: str, seed: int) -> None:
    """Four workers claim, end, put away and give back at random: no look at the table ever shows one too many."""
    limits = Queue("q", concurrency=7, worker_concurrency=3, key_concurrency=2)
    queues.declare(crew[0].database, [limits])
    stop = threading.Event()
    seen: list[tuple[int, int, int]] = []

    def watch() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                seen.append(connection.execute(OVER).fetchone() or (0, 0, 0))

    def work(worker: RawWorker, chance: random.Random) -> int:
        claimer, mine, done = Claimer(worker.database), [], 0
        for _ in range(30):
            mine += [run.key for run in poll(worker, "attacked", queues=("q",), claimer=claimer)]
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
    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(work, crew, [random.Random(chance.random()) for _ in crew]))
    stop.set()
    watcher.join()
    assert max(whole for whole, _, _ in seen) <= 7
    assert max(mine for _, mine, _ in seen) <= 3
    assert max(each for _, _, each in seen) <= 2
    assert all(done), "nobody was starved"


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
