"""`app.workers` and `perdure workers`: who works on a database, and who did."""

from __future__ import annotations

import json
import os
import threading

import pytest

from perdure import Perdure, WaitTimeout, WorkerInfo, sync, workflow
from tests.api_tools import on_loop, rows, until
from tests.cli_tools import on_terminal
from tests.cli_tools import perdure as command
from tests.protocol_tools import RawWorker

door = threading.Event()


@workflow(name="workers_list.busy")
def busy() -> None:
    door.wait(20)


def test_who_works_and_who_did(database_url: str) -> None:
    """A worker with a run, one that stopped, and one that was declared dead; a client is none."""
    door.clear()
    with sync.Perdure(database_url, worker=False) as client:
        with sync.Perdure(database_url, name="early", grace=0):
            pass
        with RawWorker(database_url) as dead:
            dead.expire()
            assert [each.alive for each in client.workers.list()] == [False]
            dead.bury()
        with sync.Perdure(database_url, name="here", version="7", listen=["a", "default"]) as app:
            with app.bind():
                handle = sync.start(busy)
            (found,) = until(lambda: [each for each in client.workers.list() if each.running])
            assert (found.name, found.pid, found.version) == ("here", os.getpid(), "7")
            assert (found.queues, found.alive, found.running) == (("a", "default"), True, 1)
            assert found.expires is not None
            assert found.expires > found.started
            assert (found.ended, found.reason) == (None, None)
            told = json.loads(command("workers", "-o", "json", "--gone", "5", url=database_url).stdout)
            shown = on_terminal("workers", url=database_url, TERM="dumb")
            line = command("workers", url=database_url).stdout.rstrip("\n").split("\t")
            door.set()
            handle.result(timeout=20)
        gone = client.workers.list(gone=2)
    assert [(each["name"], each["runs"], each["reason"]) for each in told] == [
        ("here", 1, None),
        ("raw", 0, "lease ran out"),
        ("early", 0, "stopped"),
    ]
    assert shown.splitlines()[0].split()[:4] == ["number", "name", "host", "pid"]
    assert "alive" in shown
    assert (line[1], line[5:7], line[-1]) == ("here", ['["a", "default"]', "1"], "alive")
    assert [(each.name, each.alive, each.reason) for each in gone] == [
        ("here", False, "stopped"),
        ("raw", False, "lease ran out"),
    ]
    assert all(each.ended is not None and each.expires is None for each in gone)


def test_a_paused_worker_takes_no_more_until_it_is_resumed(database_url: str) -> None:
    """Neither from the queue nor what is started in its own process; drained, it has none left."""
    door.clear()
    with (
        sync.Perdure(database_url, name="here") as app,
        sync.Perdure(database_url, worker=False) as client,
    ):
        with app.bind():
            first = sync.start(busy)
        (here,) = until(lambda: [each for each in client.workers.list() if each.running])
        with pytest.raises(WaitTimeout, match="still has 1 runs"):
            client.workers.drain(here.number, timeout=0.1)
        until(lambda: app.engine.paused)
        assert [each.paused for each in client.workers.list()] == [True]
        assert command("workers", url=database_url).stdout.rstrip("\n").split("\t")[-1] == "paused"
        handles = []
        for starter in (client, app):
            with starter.bind():
                handles.append(sync.start(busy))
        door.set()
        assert client.workers.drain(here.number, timeout=20)
        first.result(timeout=20)
        statuses = rows(database_url, "select status, worker from perdure.live")
        assert statuses == [(2, None)] * 2, "they wait for another worker"
        assert command("workers", "resume", str(here.number), url=database_url).returncode == 0
        for handle in handles:
            handle.result(timeout=20)


def test_a_worker_that_comes_back_stays_paused(database_url: str) -> None:
    """Declared dead, it lives on under another number: nobody has told that one, and it takes none all the same."""
    with sync.Perdure(database_url, lease=0.6) as app, sync.Perdure(database_url, worker=False) as client:
        number = app.engine.incarnation.worker
        assert client.workers.pause(number)
        until(lambda: app.engine.paused)
        app.engine.incarnation.fenced()
        until(lambda: app.engine.incarnation.worker != number and not app.engine.incarnation.dead)
        (found,) = [each for each in client.workers.list() if each.number != number]
        assert found.paused


def test_a_number_that_no_worker_has(database_url: str) -> None:
    """It is said, not waited for."""
    with sync.Perdure(database_url, worker=False) as client:
        assert not client.workers.drain(4711)
        assert not client.workers.resume(4711)
        with pytest.raises(TypeError, match="number must be"):
            client.workers.pause("here")  # type: ignore[arg-type]
        missing = command("workers", "drain", "4711", url=database_url)
        before = command("workers", "--database", "postgresql://x/y", "drain", "4711", url=database_url)
    assert (missing.returncode, "no worker 4711 lives" in missing.stderr) == (3, True)
    assert (before.returncode, "write options behind drain" in before.stderr) == (2, True)


@on_loop
async def test_the_async_app_lists_them_too(database_url: str) -> None:
    """The same, awaited; what is no number is refused before anything is asked."""
    async with Perdure(database_url, name="me") as app:
        (me,) = await app.workers.list()
        assert isinstance(me, WorkerInfo)
        assert me.name == "me"
        assert await app.workers.drain(me.number, timeout=5)
        assert await app.workers.resume(me.number)
        wrong: list[object] = [-1, 10_001, True, "3"]
        for gone in wrong:
            with pytest.raises(ValueError, match="gone="):
                await app.workers.list(gone=gone)  # type: ignore[arg-type]


def test_without_workers_it_says_so(database_url: str) -> None:
    """On a terminal there is no empty table."""
    with sync.Perdure(database_url, worker=False):
        assert "there are no workers" in on_terminal("workers", url=database_url, TERM="dumb")
