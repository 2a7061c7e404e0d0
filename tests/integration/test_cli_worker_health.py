"""`perdure worker --health`: a probe learns whether the worker lives and is ready, without asking the database."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.sync import Perdure
from perdure.worker.health import Health
from tests.api_tools import until
from tests.cli_tools import Worker, worker
from tests.servers import TestServer, binaries_of

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).resolve().parents[1]


def port_of(process: Worker) -> int:
    return int(re.findall(r"health on 127\.0\.0\.1:(\d+)", process.wait_for("health on"))[0])


def ask(port: int, path: str = "/ready", method: str = "GET") -> tuple[int, dict[str, Any]]:
    """The status, and the document where there is one."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read() or b"{}")


@pytest.fixture
def own_server() -> Iterator[TestServer]:
    """A server of this test alone, not started."""
    binaries = binaries_of(int(os.environ.get("PERDURE_TEST_POSTGRES", "18")))
    if binaries is None:
        pytest.skip("no binaries of this version")
    server = TestServer(binaries)
    yield server
    server.close()


def test_a_worker_is_ready_until_it_is_told_to_stop(database_url: str, tmp_path: Path) -> None:
    """It says who it is and what it does; while it drains it is alive, and not ready."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    options = ("--health", "0", "--grace", "600")
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe)) as process:
        port = port_of(process)
        process.wait_for("worker ready")
        with Perdure(database_url, worker=False) as client:
            client.start("shop.deliver", [7])
            process.wait_for("packing 7")
        status, told = ask(port)
        assert (status, told["ready"], told["trouble"], told["runs"]) == (200, True, None, 1)
        assert told["renewed_ago"] < told["lease"] == 15.0
        assert ask(port, method="HEAD") == (200, {})
        assert ask(port, "/live") == (200, {"live": True})
        assert ask(port, "/runs")[0] == 404
        process.send(signal.SIGTERM)
        process.wait_for("stopping in order")
        until(lambda: ask(port)[0] == 503)
        assert ask(port)[1]["trouble"] == "it is stopping"
        assert ask(port, "/live")[0] == 200
        pipe.write_text("go on")
        assert process.exit_code() == 0


def test_without_a_database_it_lives_and_is_not_ready(own_server: TestServer) -> None:
    """Before the database comes, and when it goes for longer than the lease."""
    with worker(
        "cli_shop:app", "--health", "0", url=own_server.url, cwd=TESTS, PERDURE_LEASE="1.5"
    ) as process:
        port = port_of(process)
        process.wait_for("trying for 30 s")
        assert ask(port) == (503, {"ready": False, "trouble": "it has not begun yet"})
        assert ask(port, "/live")[0] == 200
        own_server.start()
        until(lambda: ask(port)[0] == 200)
        own_server.kill()
        until(lambda: ask(port)[0] == 503)
        assert re.search("lease|answered|stopping", ask(port)[1]["trouble"])
        own_server.start()
        until(lambda: ask(port)[0] == 200)


def test_each_process_answers_on_a_port_of_its_own(database_url: str) -> None:
    """The first on the one that is named, the next on the next."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--processes", "2", "--health", str(port))
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS) as process:
        until(lambda: sum("worker ready" in line for line in process.lines) == 2)
        numbers = {ask(port + place)[1]["number"] for place in (0, 1)}
        assert len(numbers) == 2


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({}, None),
        ({"accepting": False}, "it is stopping"),
        ({"renewed_ago": 15.0}, "its lease was not renewed for 15.0 s"),
        ({"answered_ago": 20.0}, "the database has not answered for 20.0 s"),
    ],
    ids=str,
)
def test_what_makes_a_worker_unready(changes: dict[str, Any], trouble: str | None) -> None:
    well: dict[str, Any] = {
        "name": "w", "number": 1, "accepting": True, "lease": 15.0, "renewed_ago": 5.0, "answered_ago": 1.0,
        "runs": 0, "concurrency": 1000,
    }  # fmt: skip
    assert Health(**(well | changes)).trouble == trouble
