"""The programs of the page on messages, events and updates run, and print what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tools.check_docs import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "messages-events-updates.md"


def programs() -> list[tuple[str, str, str]]:
    """Name, code and output of each whole program: a Python block with what follows it."""
    found = blocks(PAGE.read_text("utf-8"))
    whole = []
    for block, shown in pairwise(found):
        if block.language == "python" and shown.language == "console":
            command, _, output = shown.code.partition("\n")
            whole.append((command.removeprefix("$ python "), block.code, output))
    return whole


@pytest.mark.parametrize(("name", "code", "output"), programs(), ids=lambda value: value[:12].strip())
def test_a_program_prints_what_the_page_shows(
    name: str, code: str, output: str, database_url: str, tmp_path: Path
) -> None:
    """Pasted into a file and run, as a reader does, on a database that is given by the environment."""
    (tmp_path / name).write_text(code)
    environment = os.environ | {"PERDURE_DATABASE_URL": database_url}
    ran = subprocess.run(
        [sys.executable, name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.returncode) == (output, 0), ran.stderr


def test_the_page_has_whole_programs() -> None:
    """One for each of messages, events and updates."""
    assert [name for name, _, _ in programs()] == ["approval.py", "progress.py", "account.py"]
