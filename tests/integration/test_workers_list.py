"""`app.workers` and `perdure workers`: who works on a database, and who did."""

from __future__ import annotations

import json
import os
import threading

import pytest

from perdure import Perdure, WorkerInfo, sync, workflow
from tests.api_tools import on_loop, until
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


@on_loop
async def test_the_async_app_lists_them_too(database_url: str) -> None:
    """The same, awaited; what is no number is refused before anything is asked."""
    async with Perdure(database_url, name="me") as app:
        (me,) = await app.workers.list()
        assert isinstance(me, WorkerInfo)
        assert me.name == "me"
        wrong: list[object] = [-1, 10_001, True, "3"]
        for gone in wrong:
            with pytest.raises(ValueError, match="gone="):
                await app.workers.list(gone=gone)  # type: ignore[arg-type]


def test_without_workers_it_says_so(database_url: str) -> None:
    """On a terminal there is no empty table."""
    with sync.Perdure(database_url, worker=False):
        assert "there are no workers" in on_terminal("workers", url=database_url, TERM="dumb")
