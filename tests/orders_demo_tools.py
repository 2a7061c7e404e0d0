"""The demo as its tests run it: in a temporary folder of its own, with a look at what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "orders" / "demo.py"
ENDS_WITHIN = 100.0


class Play:
    """One run of the demo, or of a program that runs it.

    Args:
        folder: an empty folder; the demo's temporary folder lies in it, and it is the working folder.
        arguments: of the command line.
        program: what to run in place of the demo.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], program: Path = DEMO) -> None:
        self.temporary, self.working = folder / "tmp", folder / "cwd"
        self.temporary.mkdir()
        self.working.mkdir()
        environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "PERDURE_DATABASE_URL": "postgresql://127.0.0.1:1/not_the_demos",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            cwd=self.working, env=environment, start_new_session=True,
        )  # fmt: skip
        self.output = ""

    def read_until(self, word: str) -> str:
        """Read lines until one has this word, and return that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if word in line:
                return line
        raise AssertionError(f"the demo ended without saying {word!r}:\n{self.output}")

    def end(self) -> int:
        """Read to the end and return the exit code."""
        rest, _ = self.process.communicate(timeout=ENDS_WITHIN)
        self.output += rest
        return self.process.returncode

    def left_behind(self) -> list[str]:
        """Return the files that the demo has left, and the processes that still work in its folder."""
        files = [str(path) for folder in (self.temporary, self.working) for path in folder.rglob("*")]
        return files + [f"{process.pid} {name}" for process, name in self._processes()]

    def close(self) -> None:
        """End whatever a failed test has left: the demo, and what works in its folder."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for process, _ in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self) -> list[tuple[psutil.Process, str]]:
        """Return the processes that work in the demo's folder, and their names; some end while we look."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(str(self.temporary)) and process.status() != "zombie":
                    found.append((process, process.name()))
        return found
