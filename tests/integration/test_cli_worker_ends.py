"""A worker that ends by itself: after so many runs, above so much memory, where there is nothing to do; and its settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Status
from perdure.cli.limits import occupied
from perdure.sync import Perdure
from tests.api_tools import rows
from tests.cli_tools import perdure, worker

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def client(database_url: str) -> Iterator[Perdure]:
    with Perdure(database_url, worker=False) as app:
        yield app


def test_options_go_before_what_the_app_says(client: Perdure, database_url: str) -> None:
    """It serves the queues that it is told to, with so many runs, threads and seconds."""
    options = ("--listen", "one", "--listen", "two", "--concurrency", "7", "--threads", "3", "--grace", "2s")
    other = client.start("shop.deliver", [1], queue="default")
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS) as process:
        ready = process.wait_for("worker ready")
        assert " queues=one,two concurrency=7 grace=2s " in ready
        assert client.start("shop.deliver_blocking", [2], queue="two").result(timeout=30)
    assert other.status() is Status.QUEUED


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--concurrency", "0"), "--concurrency"),
        (("--grace", "soon"), "is no duration"),
        (("--due-within", "5s"), "is for --until-idle"),
        (("--health", "here"), "is no PORT or HOST:PORT"),
        (("--health", "70000"), "is no PORT or HOST:PORT"),
        (("--health", "192.0.2.1:8080"), "cannot listen on 192.0.2.1:8080"),
        (("--processes", "0"), "--processes"),
        (("--max-runs", "0"), "--max-runs"),
    ],
)
def test_what_cannot_be_is_wrong_usage(options: tuple[str, ...], says: str) -> None:
    done = perdure("worker", "cli_shop:app", *options, url="postgresql://127.0.0.1:1/none", cwd=TESTS)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("target", ["cli_shop:app", "cli_shop:blocking_app"])
def test_until_idle_ends_when_all_is_done(client: Perdure, database_url: str, target: str) -> None:
    """Also children that the last run starts in a queue; and at once where there is nothing."""
    handles = [client.start("shop.deliver", [number]) for number in range(20)]
    family = client.start("shop.parent")
    with worker(target, "--until-idle", url=database_url, cwd=TESTS) as process:
        process.wait_for("there is nothing to do: stopping in order")
        assert process.exit_code() == 0
    assert {handle.status() for handle in handles} == {Status.SUCCEEDED}
    assert family.result(timeout=0) == "done"
    with worker(target, "--until-idle", url=database_url, cwd=TESTS) as process:
        assert process.exit_code() == 0


def test_until_idle_does_not_wait_for_what_is_not_its_own(client: Perdure, database_url: str) -> None:
    """Another queue, one that is paused, a workflow without code here, a message that nobody sends, a time that is far."""
    client.start("shop.deliver", [1], queue="other")
    client.start("shop.deliver", [3], queue="paused")
    client.queues.pause("paused")
    client.start("nobody.has", [1])
    client.start("shop.deliver", [2], delay=3600)
    waiting = client.start("shop.await")
    idle = ("--until-idle", "--listen=default", "--listen=paused")
    with worker("cli_shop:app", *idle, "--due-within=10m", url=database_url, cwd=TESTS) as process:
        process.wait_for("there is nothing to do")
        assert process.exit_code() == 0
    assert waiting.status() is Status.WAITING
    with worker("cli_shop:app", *idle, "--due-within=2h", url=database_url, cwd=TESTS) as process:
        process.wait_for("worker ready")
        assert rows(
            database_url, "update perdure.live set ready = perdure.clock() where status = 1 returning 1"
        )
        process.wait_for("packing 2")
        assert process.exit_code() == 0


def test_after_so_many_runs_it_is_to_be_started_again(client: Perdure, database_url: str) -> None:
    """With a code of its own, which says that nothing is wrong."""
    first = client.start("shop.deliver", [1]).id
    with worker("cli_shop:app", "--max-runs", "2", url=database_url, cwd=TESTS) as process:
        assert client.handle(first).result(timeout=30)
        assert client.start("shop.deliver", [2]).result(timeout=30)
        process.wait_for("2 runs have come here: stopping in order")
        assert process.exit_code() == 9


def test_above_so_much_memory_it_is_to_be_started_again(database_url: str) -> None:
    assert occupied() > 10_000_000
    with worker("cli_shop:app", "--max-memory", "10", url=database_url, cwd=TESTS) as process:
        process.wait_for("MB: stopping in order")
        assert process.exit_code() == 9


def test_a_signal_while_it_recycles_is_the_first(client: Perdure, database_url: str, tmp_path: Path) -> None:
    """It is told to stop for good, so its code does not ask for another one; and a second signal ends the grace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    options = ("--max-runs", "1", "--grace", "600")
    with worker("cli_shop:app", *options, url=database_url, cwd=TESTS, SHOP_HOLD=str(pipe)) as process:
        handle = client.start("shop.deliver", [1])
        process.wait_for("1 runs have come here")
        process.send(signal.SIGTERM)
        process.wait_for("SIGTERM: stopping in order")
        pipe.write_text("go on")
        assert process.exit_code() == 0
        assert handle.status() is Status.SUCCEEDED
