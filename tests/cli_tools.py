"""What tests of the command line share: its processes, their lines, and a terminal to run them on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE = 30.0
"""Seconds after which a line, or the end of a process, that must come fails its test."""


def environment(url: str | None, **more: str) -> dict[str, str]:
    """The environment of a command: this one's, without settings of perdure but those given."""
    kept = (
        "PERDURE_TRANSACTION_POOLER",
    )  # that it is one, whoever asks for the suite through a pooler knows
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("PERDURE_") or name in kept
    }
    named = {} if url is None else {"PERDURE_DATABASE_URL": url}
    return clean | named | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | more


def perdure(
    *arguments: str, url: str | None = None, cwd: Path | None = None, given: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a pipe; `given` is what it can read."""
    return subprocess.run(
        [sys.executable, "-m", "perdure", *arguments],
        cwd=cwd,
        env=environment(url, **variables),
        check=False,
        capture_output=True,
        input=given,
        text=True,
        timeout=2 * PATIENCE,
    )


def on_terminal(*arguments: str, url: str | None = None, typed: str = "", **variables: str) -> str:
    """Run a command on a terminal, on which this was typed, and return what that was shown."""
    ours, theirs = os.openpty()
    os.write(ours, typed.encode())
    with subprocess.Popen(
        [sys.executable, "-m", "perdure", *arguments],
        env=environment(url, **({"TERM": "xterm"} | variables)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last process that had it open has ended
        return b""


class Worker:
    """A process of `perdure worker`, whose lines on stderr and stdout can be waited for.

    Attributes:
        lines: what it has written so far.
    """

    def __init__(self, arguments: tuple[str, ...], cwd: Path, variables: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perdure", "worker", *arguments],
            cwd=cwd,
            env=dict(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> str:
        """Wait for a line that contains the text, and return it."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(text) or self._over, PATIENCE)
        found = self._find(text)
        assert found, "\n".join([f"no {text!r} in:", *self.lines])
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for its end."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self.exit_code()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _find(self, text: str) -> str:
        return next((line for line in self.lines if text in line), "")

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


@contextmanager
def worker(*arguments: str, url: str | None, cwd: Path, **variables: str) -> Iterator[Worker]:
    """Run `perdure worker`; it is killed at the end of the block if it still runs."""
    process = Worker(arguments, cwd, environment(url, **variables))
    try:
        yield process
    finally:
        process.kill()
        print(f"perdure worker {' '.join(arguments)}:", *process.lines, sep="\n  ")  # shown if the test fails
