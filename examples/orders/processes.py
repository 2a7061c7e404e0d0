"""The processes of the demo: each has a log, and ends when its input is closed, however the demo ends.

They have sessions of their own, so that Ctrl-C reaches the director alone, which then ends them in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENDS_WITHIN = 20.0  # seconds


class Processes:
    """Python programs of this folder, running in another.

    Args:
        folder: their working folder, where `.perdure` is and the logs are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ)
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a program under a name."""
        with (self.folder / f"{name}.log").open("w") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, HERE / program, *map(str, arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=self.folder, env=self.environment, start_new_session=True,
            )  # fmt: skip
        return self.running[name]

    def kill(self, name: str) -> int:
        """`kill -9` a process and return its pid."""
        process = self.running.pop(name)
        process.kill()
        self._forget(process)
        return process.pid

    def crashed(self) -> list[str]:
        """Return the names of those that ended in error, without having been asked to."""
        return [name for name, process in self.running.items() if process.poll()]

    def end(self, *, at_once: bool) -> None:
        """End all of them: in order, by closing their input, or at once, by SIGKILL."""
        for process in self.running.values():
            if at_once:
                process.kill()
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + ENDS_WITHIN
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
            self._forget(process)
        self.running.clear()

    def last_words(self) -> str:
        """Return the end of every log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def _forget(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def postgres_pid(folder: Path) -> int | None:
    """Return the pid of the embedded Postgres of a folder, or None where none runs."""
    try:
        pid = int((folder / ".perdure/postgres/data/postmaster.pid").read_text().split("\n")[0])
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def stop_postgres(folder: Path) -> int | None:
    """Stop the Postgres of a folder as a power cut would, all but the fsync; return its pid."""
    pid = postgres_pid(folder)
    if pid is not None:
        os.kill(pid, signal.SIGQUIT)
    return pid


def end_postgres(folder: Path) -> None:
    """End the Postgres of a folder, if it still runs: only an app that could not close leaves it."""
    deadline = time.monotonic() + ENDS_WITHIN
    while postgres_pid(folder) is not None and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            stop_postgres(folder)
        time.sleep(0.05)
