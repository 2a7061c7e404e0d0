"""`perdure worker --processes`: a parent that keeps its children going, and takes them along when it ends, however it ends."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Status
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.cli_tools import Worker, worker

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).resolve().parents[1]
NEVER = "600"


@pytest.fixture
def client(database_url: str) -> Iterator[Perdure]:
    with Perdure(database_url, worker=False) as app:
        yield app


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def children(process: Worker, count: int) -> list[int]:
    """The pids of the latest children of all places, once so many are ready."""
    until(lambda: sum("worker ready" in line for line in process.lines) >= count)
    found = {}
    for line in process.lines:
        if match := re.search(r"process (\d+) started pid=(\d+)", line):
            found[match[1]] = int(match[2])
    return list(found.values())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_processes_share_the_work_and_end_with_their_parent(client: Perdure, database_url: str) -> None:
    """Each is a worker of its own, with a name of its own; a signal reaches all, and the code is that of an orderly end."""
    with worker(
        "cli_shop:app", "--processes", "2", url=database_url, cwd=TESTS, PERDURE_NAME="west"
    ) as process:
        pids = children(process, 2)
        names = {name for (name,) in rows(database_url, "select name from perdure.workers")}
        assert names == {"west-0", "west-1"}
        assert client.start("shop.deliver", [1]).result(timeout=30) in pids
        process.send(signal.SIGTERM)
        assert process.exit_code() == 0
        assert all(gone(pid) for pid in pids)
        assert rows(database_url, "select reason from perdure.workers_gone") == [("stopped",)] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_runs_end(
    client: Perdure, database_url: str, pipe: Path, number: signal.Signals
) -> None:
    options = ("--processes", "2", "--grace", NEVER)
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe)) as process:
        pids = children(process, 2)
        handle = client.start("shop.deliver", [7])
        process.wait_for("packing 7")
        process.send(number)
        until(lambda: sum("stopping in order" in line for line in process.lines) == 2)
        pipe.write_text("go on")
        assert process.exit_code() == 0
        assert handle.result(timeout=0) in pids


def test_the_second_signal_stops_all_at_once(client: Perdure, database_url: str) -> None:
    options = ("--processes", "2", "--grace", NEVER)
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS, SHOP_HOLD="thread") as process:
        pids = children(process, 2)
        handle = client.start("shop.deliver", [7])
        process.wait_for("packing 7")
        process.send(signal.SIGTERM)
        until(lambda: sum("stopping in order" in line for line in process.lines) == 2)
        process.send(signal.SIGTERM)
        assert process.exit_code() == 143
        assert all(gone(pid) for pid in pids)
    assert handle.status() is Status.QUEUED


def test_a_child_that_is_killed_is_replaced_and_its_run_goes_on(
    client: Perdure, database_url: str, pipe: Path
) -> None:
    """Kill -9: another process takes the run once the lease is over, and a new child comes in the place."""
    held = {"PERDURE_LEASE": "1", "SHOP_HOLD": str(pipe)}
    with worker("cli_shop:app", "--processes", "2", url=database_url, cwd=TESTS, **held) as process:
        pids = children(process, 2)
        handle = client.start("shop.deliver", [7])
        process.wait_for("packing 7")
        owns = "select w.pid from perdure.live l join perdure.workers w on w.id = l.worker"
        [(owner,)] = rows(database_url, owns)
        assert owner in pids
        os.kill(owner, signal.SIGKILL)
        process.wait_for(f"pid={owner} signal=SIGKILL")
        later = children(process, 3)
        assert owner not in later
        until(lambda: [pid for (pid,) in rows(database_url, owns) if pid != owner])
        until(lambda: sum("packing 7" in line for line in process.lines) == 2)
        pipe.write_text("go on")
        assert handle.result(timeout=30) in later
        line = process.wait_for("goes on here, after 1 crashes")
        assert f"run {handle.id} (shop.deliver)" in line
        process.send(signal.SIGTERM)
        assert process.exit_code() == 0
        assert all(gone(pid) for pid in later)


def test_a_child_that_stops_alone_is_replaced(database_url: str) -> None:
    """Somebody told it alone to stop; the parent was told nothing."""
    with worker("cli_shop:app", "--processes", "1", url=database_url, cwd=TESTS) as process:
        [pid] = children(process, 1)
        os.kill(pid, signal.SIGTERM)
        assert children(process, 2) != [pid]


def test_children_end_when_their_parent_is_killed(client: Perdure, database_url: str, pipe: Path) -> None:
    """In order: a run in flight ends."""
    options = ("--processes", "2", "--grace", NEVER)
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe)) as process:
        pids = children(process, 2)
        handle = client.start("shop.deliver", [7])
        process.wait_for("packing 7")
        process.send(signal.SIGKILL)
        try:
            until(lambda: sum("the parent process is gone" in line for line in process.lines) == 2)
            pipe.write_text("go on")
            until(lambda: all(gone(pid) for pid in pids))
            assert handle.result(timeout=0) in pids
        finally:
            for pid in pids:
                if not gone(pid):  # nobody else would end them
                    os.kill(pid, signal.SIGKILL)


def test_what_cannot_work_is_not_tried_for_ever(database_url: str) -> None:
    """A target that is not there ends the parent with the child's code."""
    with worker("cli_shop:no_such_app", "--processes", "2", url=database_url, cwd=TESTS) as process:
        process.wait_for("cannot work")
        assert process.exit_code() == 2


def test_recycled_children_are_replaced_at_once(client: Perdure, database_url: str) -> None:
    with worker(
        "cli_shop:app", "--processes", "1", "--max-runs", "1", url=database_url, cwd=TESTS
    ) as process:
        first = client.start("shop.deliver", [1]).result(timeout=30)
        process.wait_for(f"is recycled pid={first}")
        began = time.monotonic()
        assert client.start("shop.deliver", [2]).result(timeout=30) != first
        print(f"another one after {time.monotonic() - began:.1f} s")
        process.send(signal.SIGTERM)
        assert process.exit_code() == 0


def test_until_idle_ends_with_the_last_child(client: Perdure, database_url: str) -> None:
    handles = [client.start("shop.deliver", [number]) for number in range(10)]
    with worker("cli_shop:app", "--processes", "2", "--until-idle", url=database_url, cwd=TESTS) as process:
        assert process.exit_code() == 0
    assert {handle.status() for handle in handles} == {Status.SUCCEEDED}
