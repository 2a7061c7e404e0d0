"""Worker processes for acceptance tests: started, listened to line by line, stopped, paused and killed by pid.

A process runs a function of an importable module, so that a test file holds both the workflows and what is
asserted of them. Its standard output and error are one stream of lines, which a test waits on; nothing here
sleeps for a fixed time.

    python process_tools.py <module> <function> <argument>...
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 40.0
"""Seconds after which a line that must come fails its test."""


def default_signals() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A child process whose lines are collected as they come.

    Arguments:
        command: what to run, the interpreter included.
        environment: variables on top of this process's own.
        folder: its working directory.

    Attributes:
        pid: its process id.
        lines: everything that it has said so far.
    """

    def __init__(
        self, command: Sequence[str], *, environment: dict[str, str] | None = None, folder: Path = ROOT
    ) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=folder, start_new_session=True, preexec_fn=default_signals,  # noqa: PLW1509  (one system call)
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        )  # fmt: skip
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, *, times: int = 1, within: float = PATIENCE) -> str:
        """Wait until so many of its lines match, and return the last of those."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + within
        with self._changed:
            while True:
                found = [line for line in self.lines if expression.search(line)]
                if len(found) >= times:
                    return found[times - 1]
                left = deadline - time.monotonic()
                assert left > 0, f"no line with {pattern!r} within {within:g} s, but:\n{self.text()}"
                assert not self._over, f"it ended without a line with {pattern!r}:\n{self.text()}"
                self._changed.wait(left)

    def text(self) -> str:
        """Return everything it has said, for the text of a failing test."""
        return "\n".join(self.lines[-200:])

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """SIGSTOP: it stands still until `go_on`."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def send(self, order: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self._process.poll() is None:
            os.kill(self.pid, order)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end and return its exit code (negative: the signal that ended it)."""
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end within {within:g} s:\n{self.text()}") from None
        self._reader.join(5)
        return code

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill it if it still lives, and give back its pipe."""
        self.send(signal.SIGKILL)
        self._process.wait(30)
        self._reader.join(5)
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Processes:
    """The processes of one test; none outlives it."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def start(self, module: str, function: str, *arguments: object, **environment: str) -> Process:
        """Run a function of a module in a process of its own, with text arguments."""
        command = [sys.executable, __file__, module, function, *map(str, arguments)]
        return self.run(command, environment=environment)

    def run(
        self, command: Sequence[str], *, environment: dict[str, str] | None = None, folder: Path = ROOT
    ) -> Process:
        """Run a command."""
        process = Process(command, environment=environment, folder=folder)
        self._all.append(process)
        return process

    def close(self) -> None:
        """End all that are left."""
        for process in self._all:
            process.close()


@contextmanager
def processes() -> Iterator[Processes]:
    """Processes that are gone after the block, however it ends."""
    family = Processes()
    try:
        yield family
    finally:
        family.close()


def say(*words: object) -> None:
    """Print one line at once, as one write, so that lines of threads do not mix."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main() -> None:
    """Run what the command line names."""
    _, module, function, *arguments = sys.argv
    sys.path.insert(0, str(ROOT))
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    target = getattr(importlib.import_module(module), function)
    if inspect.iscoroutinefunction(target):
        asyncio.run(target(*arguments))
    else:
        target(*arguments)


if __name__ == "__main__":
    main()
