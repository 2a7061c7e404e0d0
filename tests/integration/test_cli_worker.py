"""`perdure worker` runs what others started, and stops as it is told, in order or at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure import Status
from perdure.sync import Perdure
from tests.cli_tools import Worker, worker
from tests.servers import TestServer, binaries_of

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).resolve().parents[1]
NEVER = "600"
"""A lease or a grace in seconds that no test waits for: what happens sooner did not wait for it."""

BOTH_APPS = pytest.mark.parametrize("target", ["cli_shop:app", "cli_shop:blocking_app"])
EACH_COLOUR = pytest.mark.parametrize(
    ("target", "name"),
    [("cli_shop:app", "shop.deliver"), ("cli_shop:blocking_app", "shop.deliver_blocking")],
)


@pytest.fixture
def client(database_url: str) -> Iterator[Perdure]:
    """An app without code, which runs nothing."""
    with Perdure(database_url, worker=False) as app:
        yield app


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: who reads it waits until somebody writes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def pid_of(process: Worker) -> int:
    return process._process.pid


@BOTH_APPS
@pytest.mark.parametrize("name", ["shop.deliver", "shop.deliver_blocking"])
def test_a_worker_runs_what_a_client_without_code_started(
    client: Perdure, database_url: str, target: str, name: str
) -> None:
    """Either app runs workflows of either colour that were started by name elsewhere."""
    handle = client.start(name, [7])
    assert handle.status() is Status.QUEUED
    with worker(target, url=database_url, cwd=TESTS) as process:
        assert handle.result(timeout=30) == pid_of(process)


def test_a_worker_says_who_it_is_and_what_it_does(client: Perdure, database_url: str) -> None:
    """Its log names the worker, its queues and its workflows, and not the password."""
    url = database_url.replace("postgres@", "postgres:geheim@")
    with worker("cli_shop:app", url=url, cwd=TESTS, PERDURE_NAME="west-1") as process:
        ready = process.wait_for("worker ready")
        process.wait_for("workflow shop.deliver (async)")
        process.wait_for("workflow shop.deliver_blocking (blocking)")
    assert "name=west-1 " in ready
    assert " queues=default " in ready
    assert "geheim" not in "\n".join(process.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@EACH_COLOUR
def test_the_first_signal_lets_runs_end(
    client: Perdure, database_url: str, pipe: Path, target: str, name: str, number: signal.Signals
) -> None:
    """A run in flight ends on the worker that was told to stop, which then exits with 0."""
    with worker(target, url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe), PERDURE_GRACE=NEVER) as process:
        handle = client.start(name, [7])
        process.wait_for("packing 7")
        process.send(number)
        process.wait_for("stopping in order")
        pipe.write_text("go on")
        assert process.exit_code() == 0
        assert handle.result(timeout=30) == pid_of(process)


def test_a_stopping_worker_takes_no_more_runs(client: Perdure, database_url: str, pipe: Path) -> None:
    """What is started after the first signal waits for another worker."""
    with worker(
        "cli_shop:app", url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe), PERDURE_GRACE=NEVER
    ) as process:
        client.start("shop.deliver", [7])
        process.wait_for("packing 7")
        process.send(signal.SIGTERM)
        process.wait_for("stopping in order")
        late = client.start("shop.deliver", [8])
        pipe.write_text("go on")
        assert process.exit_code() == 0
        assert late.status() is Status.QUEUED


def test_a_signal_for_a_forked_child_is_not_the_workers(client: Perdure, database_url: str) -> None:
    """A step may fork and end its child, and the worker goes on."""
    with worker("cli_shop:app", url=database_url, cwd=TESTS) as process:
        assert client.start("shop.fork").result(timeout=30) == signal.SIGTERM
        assert client.start("shop.deliver", [7]).result(timeout=30) == pid_of(process)
    assert not any("stopping" in line for line in process.lines)


@pytest.mark.parametrize(
    ("loop", "module"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")]
)
def test_signals_are_heard_though_the_loop_listens_to_others(
    client: Perdure, database_url: str, loop: str, module: str
) -> None:
    """User code that adds a signal handler to the event loop, whichever it is, does not make the worker deaf."""
    with worker("cli_shop:app", f"--loop={loop}", url=database_url, cwd=TESTS) as process:
        assert str(client.start("shop.listen").result(timeout=30)).startswith(module)
        process.send(signal.SIGTERM)
        process.wait_for("stopping in order")
        assert process.exit_code() == 0


def handed_over(
    client: Perdure, url: str, target: str, name: str, hold: str, stop: Callable[[Worker], int], grace: str
) -> int:
    """Stop a worker whose step never ends, see another one end the run, and return the first one's exit code.

    The lease is so long that the other one can have the run only from the first one's own hand.
    """
    lease = {"PERDURE_LEASE": NEVER, "PERDURE_GRACE": grace}
    with worker(target, url=url, cwd=TESTS, SHOP_HOLD=hold, **lease) as first:
        handle = client.start(name, [7])
        first.wait_for("packing 7")
        with worker(target, url=url, cwd=TESTS, **lease) as second:
            second.wait_for("worker ready")
            code = stop(first)
            assert handle.result(timeout=30) == pid_of(second)
    return code


@pytest.mark.parametrize("hold", ["code", "thread"])
@EACH_COLOUR
def test_what_does_not_end_within_the_grace_is_handed_over(
    client: Perdure, database_url: str, target: str, name: str, hold: str
) -> None:
    """Another worker ends the run at once, not after the lease; and the process does not stay for its threads."""

    def stop(process: Worker) -> int:
        process.send(signal.SIGTERM)
        return process.exit_code()

    assert handed_over(client, database_url, target, name, hold, stop, grace="0.2") == 0


@EACH_COLOUR
def test_the_second_signal_hands_over_at_once(
    client: Perdure, database_url: str, target: str, name: str
) -> None:
    """The grace is cut short, the run goes on elsewhere, and the exit code names the signal."""

    def stop(process: Worker) -> int:
        process.send(signal.SIGTERM)
        process.wait_for("stopping in order")
        process.send(signal.SIGTERM)
        return process.exit_code()

    assert handed_over(client, database_url, target, name, "thread", stop, grace=NEVER) == 143


@pytest.fixture
def private_server() -> Iterator[TestServer]:
    """A server of this test alone, not started."""
    binaries = binaries_of(int(os.environ.get("PERDURE_TEST_POSTGRES", "18")))
    if binaries is None:
        pytest.skip("no binaries of this version")
    server = TestServer(binaries)
    yield server
    server.close()


def test_a_worker_waits_for_a_database_that_comes_later(private_server: TestServer) -> None:
    """Started first, it says what is missing, and works once the database is there."""
    with worker("cli_shop:app", url=private_server.url, cwd=TESTS) as process:
        process.wait_for("trying for 30 s")
        private_server.start()
        process.wait_for("worker ready")


@BOTH_APPS
def test_two_signals_end_a_worker_whose_database_is_away(private_server: TestServer, target: str) -> None:
    """It cannot hand over, and does not stay for that."""
    private_server.start()
    with worker(target, url=private_server.url, cwd=TESTS) as process:
        process.wait_for("worker ready")
        private_server.kill()
        process.send(signal.SIGINT)
        process.wait_for("stopping in order")
        process.send(signal.SIGINT)
        assert process.exit_code() == 130
