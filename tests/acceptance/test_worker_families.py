"""Several workers on one database: they race, share, poison each other's lives, and hand over in order."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections import Counter

import pytest

import perdure
from perdure import Connection, Perdure, WorkflowParked, step, transaction, workflow
from tests.api_tools import rows, until, until_true
from tests.process_tools import Process, Processes, processes, say

POISONED = 3


@step
async def who(number: int) -> int:
    say("body", perdure.info().run_id)
    await asyncio.sleep(0.005)
    return os.getpid()


@transaction
def pay(conn: Connection, number: int) -> int:
    conn.execute("insert into payments values (%s, %s)", (perdure.info().run_id, os.getpid()))
    return os.getpid()


@workflow
async def pair(number: int) -> list[int]:
    return [await who(number), await perdure.run_step(pay, number)]


@workflow
async def healthy(number: int) -> int:
    for _ in range(3):
        await who(number)
        await asyncio.sleep(0)
    await perdure.run_step(pay, number)
    return number


@workflow(max_recoveries=POISONED)
async def poison() -> None:
    say("poisoned")
    await asyncio.sleep(0.05)
    os._exit(9)


@workflow
async def child(number: int) -> list[int]:
    return [await who(number), os.getpid()]


@workflow
async def parent(children: int) -> list[list[int]]:
    handles = [await child.options(queue="children").start(number) for number in range(children)]
    called = await child.options(queue="children")(99)
    return [[os.getpid()], called, *[await handle.result() for handle in handles]]


@step
async def wait_for_door() -> int:
    is_open = functools.partial(rows, os.environ["TEST_URL"], "select 1 from doors")
    await until_true(lambda: asyncio.to_thread(is_open), within=60)
    return os.getpid()


@workflow
async def door() -> list[int]:
    return [await who(0), await wait_for_door()]


async def serve(url: str, lease: str = "1", queue: str = "default", grace: str = "0") -> None:
    """Be a worker until SIGTERM or SIGINT; then leave the `async with` and say so."""
    stop = asyncio.Event()
    for order in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    async with Perdure(url, lease=float(lease), grace=float(grace), listen=[queue]):
        say("ready")
        await stop.wait()
        say("leaving")
    say("left")


@pytest.fixture
def family_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with the tables that the bodies use."""
    monkeypatch.setenv("TEST_URL", database_url)
    rows(database_url, "create table payments (run text, pid int)")
    rows(database_url, "create table doors (state text)")
    return database_url


def test_two_workers_race_for_runs_and_each_runs_once(family_url: str) -> None:
    """Three hundred queued runs, two workers: both work, no run is run twice."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        handles = [client.start(f"{__name__}.pair", [number]) for number in range(300)]
        # Room for ten at a time, so that neither worker can take everything in its first claim.
        both = [family.start(__name__, "serve", family_url, PERDURE_CONCURRENCY="10") for _ in range(2)]
        results = [handle.result(timeout=40) for handle in handles]
        pids = {each.pid for each in both}
        assert {pid for pair_ in results for pid in pair_} == pids
        assert all(first == second for first, second in results)
        assert Counter(rows(family_url, "select run from payments")) == {(h.id,): 1 for h in handles}
        bodies = Counter(line for each in both for line in each.lines if line.startswith("body"))
        assert set(bodies.values()) == {1}


def test_parent_and_child_live_on_different_workers(family_url: str) -> None:
    """Called and started children run where their queue is served; their results come back to the parent."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        above = family.start(__name__, "serve", family_url, 15, "parents")
        below = family.start(__name__, "serve", family_url, 15, "children")
        handle = client.start(f"{__name__}.parent", [5], queue="parents")
        own, *children = handle.result(timeout=40)
        assert own == [above.pid]
        assert children == [[below.pid, below.pid]] * 6


def test_a_parent_survives_its_childs_worker_and_its_own(family_url: str) -> None:
    """Both workers are killed while the parent waits; two new ones finish parent and children."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        above = family.start(__name__, "serve", family_url, 1, "parents")
        handle = client.start(f"{__name__}.parent", [5], id="p", queue="parents")
        until(lambda: client.runs.count(queue="children") == 6)
        above.kill()
        below = family.start(__name__, "serve", family_url, 1, "children")
        below.wait_for("^body")
        below.kill()
        again = family.start(__name__, "serve", family_url, 1, "parents")
        family.start(__name__, "serve", family_url, 1, "children")
        own, *children = handle.result(timeout=40)
        assert own == [again.pid]
        assert len(children) == 6
        assert client.runs.count() == 7


def test_a_poison_run_is_parked_and_its_neighbours_end(family_url: str) -> None:
    """One of 101 runs kills whoever runs it: it is parked after max_recoveries, the hundred all succeed, each paid once."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        handles = [client.start(f"{__name__}.healthy", [number]) for number in range(50)]
        poisoned = client.start(f"{__name__}.poison", id="poison")
        handles += [client.start(f"{__name__}.healthy", [number]) for number in range(50, 100)]
        deaths = supervise(family, family_url, lambda: poisoned.status() == "parked")
        assert [handle.result(timeout=30) for handle in handles] == list(range(100))
        with pytest.raises(WorkflowParked, match="max_recoveries"):
            poisoned.result(timeout=10)
        assert deaths == POISONED + 1
        assert poisoned.describe().recoveries > POISONED
        assert Counter(rows(family_url, "select run from payments")) == {(h.id,): 1 for h in handles}
        # Twice until it is suspected too; once more if it was claimed in the same poll as the poison's last victim.
        assert max(handle.describe().takeovers for handle in handles) <= 3


def supervise(family: Processes, url: str, done: object) -> int:
    """Keep one worker alive until `done`, as a service manager would; return how often it died."""
    assert callable(done)
    deaths = 0
    worker = family.start(__name__, "serve", url)
    while not done():
        if not worker.alive:
            assert worker.wait() == 9, worker.text()
            deaths += 1
            assert deaths < 20
            worker = family.start(__name__, "serve", url)
        time.sleep(0.02)
    return deaths


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
def test_leaving_hands_over_at_once(order: signal.Signals, family_url: str) -> None:
    """A worker told to stop leaves within its grace, and another goes on long before the lease is over."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        leaver = family.start(__name__, "serve", family_url, 60, "default", 0.2)
        leaver.wait_for("^ready")
        handle = client.start(f"{__name__}.door")
        leaver.wait_for("^body")
        other = family.start(__name__, "serve", family_url, 60)
        other.wait_for("^ready")
        began = time.monotonic()
        leaver.send(order)
        leaver.wait_for("^left")
        assert leaver.wait() == 0
        assert time.monotonic() - began < 5
        rows(family_url, "insert into doors values ('open')")
        assert handle.result(timeout=15) == [leaver.pid, other.pid]
        info = handle.describe()
        assert (info.recoveries, info.takeovers) == (0, 0)


def test_leaving_lets_runs_finish_within_the_grace(family_url: str) -> None:
    """A run that ends within the grace is finished by the worker that leaves, which takes nothing new meanwhile."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        leaver = family.start(__name__, "serve", family_url, 60, "default", 30)
        leaver.wait_for("^ready")
        handle = client.start(f"{__name__}.door")
        leaver.wait_for("^body")
        leaver.send(signal.SIGTERM)
        leaver.wait_for("^leaving")
        late = client.start(f"{__name__}.pair", [1])
        rows(family_url, "insert into doors values ('open')")
        assert handle.result(timeout=15) == [leaver.pid, leaver.pid]
        assert leaver.wait() == 0
        assert late.status() == "queued"


def test_a_start_without_code_waits_for_a_worker_that_has_it(family_url: str) -> None:
    """A name that no process knows is started, waits visibly, and runs once a worker with its code comes."""
    with processes() as family, perdure.sync.Perdure(family_url, worker=False) as client:
        handle = client.start("only_elsewhere", [20], id="e")
        without = family.start(__name__, "serve", family_url)
        without.wait_for("^ready")
        assert client.start(f"{__name__}.pair", [1]).result(timeout=30) == [without.pid] * 2
        assert handle.status() == "queued"
        family.start(__name__, "serve_elsewhere", family_url)
        assert handle.result(timeout=30) == 40


async def serve_elsewhere(url: str) -> None:
    """Be a worker that knows one more workflow."""

    @workflow(name="only_elsewhere")
    async def only_elsewhere(number: int) -> int:
        return number * 2

    await serve(url)


def test_many_worker_processes_start_at_once(family_url: str) -> None:
    """Four processes that open a database without a schema at the same moment all work."""
    with processes() as family:
        workers: list[Process] = [family.start(__name__, "serve", family_url) for _ in range(4)]
        for worker in workers:
            worker.wait_for("^ready")
        with perdure.sync.Perdure(family_url, worker=False) as client:
            assert client.start(f"{__name__}.pair", [1]).result(timeout=30)
