"""The README's first program does what the README says, when it is killed and run again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api_tools import rows, until
from tests.process_tools import default_signals

README = Path(__file__).resolve().parents[2] / "README.md"
WAITING = "select 1 from perdure.waits"
SOLD = "select sku, sold from stock"
DONE = "order-1 is done; blue-train was sold 1 time(s)"

pytestmark = pytest.mark.postgres


class Shop:
    """The program in a folder of its own; every run of it is one process."""

    def __init__(self, folder: Path, url: str) -> None:
        self._program = folder / "shop.py"
        self._program.write_text(program(), "utf-8")
        self._environment = {**os.environ, "PERDURE_DATABASE_URL": url, "PYTHONUNBUFFERED": "1"}
        self.url = url

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; whatever is left of it at the end is killed."""
        with subprocess.Popen(
            [sys.executable, self._program],
            cwd=self._program.parent,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=default_signals,  # noqa: PLW1509  (one system call)
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def end_at(self, line: str, order: signal.Signals, *, once: str | None = None) -> list[str]:
        """Run it up to a line that begins so (and a row that is there), end it, return what it printed."""
        said = []
        with self.running() as process:
            assert process.stdout is not None
            for text in process.stdout:
                said.append(text.strip())
                if text.startswith(line):
                    if once is not None:
                        until(lambda: rows(self.url, once))
                    process.send_signal(order)
                    break
            said += process.stdout.read().splitlines()
            assert process.wait(30) == -order
        return said

    def run(self) -> list[str]:
        """Run it to its end and return what it printed."""
        with self.running() as process:
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        return said.splitlines()


def program() -> str:
    """Return the program that the README tells its readers to paste."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    found = [block for block in blocks if "__main__" in block]
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    """The README's program, with an empty database."""
    return Shop(tmp_path, database_url)


def test_a_finished_step_does_not_run_again_after_kill_9(shop: Shop) -> None:
    """The step that was finished when the process was killed is not called by the next one."""
    first = shop.end_at("reserving", signal.SIGKILL)
    again = shop.run()
    assert [line.partition(" ")[0] for line in first] == ["charging", "reserving"]
    assert not any(line.startswith("charging") for line in again)
    assert again[-2:] == [f"confirming order-1, paid by {payment(first)}", DONE]
    assert rows(shop.url, SOLD) == [("blue-train", 1)]


def test_a_process_killed_in_its_sleep_only_does_what_is_left(shop: Shop) -> None:
    """After a kill in the durable sleep the next process does what comes after it, and nothing else."""
    first = shop.end_at("reserving", signal.SIGKILL, once=WAITING)
    assert shop.run() == [f"confirming order-1, paid by {payment(first)}", DONE]
    assert rows(shop.url, SOLD) == [("blue-train", 1)]


def test_an_interrupted_step_runs_again_with_the_same_key(shop: Shop) -> None:
    """A step that was killed in the middle is called again, and its idempotency key is the same."""
    first = shop.end_at("charging", signal.SIGKILL)
    again = shop.run()
    assert len(first) == 1
    assert again == [
        first[0],
        "reserving blue-train ...",
        f"confirming order-1, paid by {payment(first)}",
        DONE,
    ]


def test_ctrl_c_hands_the_run_over_without_waiting_for_the_lease(shop: Shop) -> None:
    """After Ctrl-C no worker has to be declared dead before the next process goes on."""
    first = shop.end_at("reserving", signal.SIGINT, once=WAITING)
    assert shop.run() == [f"confirming order-1, paid by {payment(first)}", DONE]
    assert rows(shop.url, "select distinct reason from perdure.workers_gone") == [("stopped",)]
    assert rows(shop.url, "select * from perdure.takeovers") == []


def test_a_finished_run_is_only_looked_up(shop: Shop) -> None:
    """Running the program once more prints the result of the run that is there, and calls no step."""
    shop.run()
    assert shop.run() == [DONE]
    assert rows(shop.url, SOLD) == [("blue-train", 1)]


def payment(said: list[str]) -> str:
    """Return the payment that the first line of a run leads to: its key is in it."""
    found = re.fullmatch(r"charging 9\.50 with the key (\S+) \.\.\.", said[0])
    assert found is not None
    return f"payment-{found[1]}"
