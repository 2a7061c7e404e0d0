"""docs/how-to/test-your-workflows.md as it is read: its blocks are one suite, which passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tools.check_docs import blocks

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/test-your-workflows.md"


def suite(folder: Path) -> None:
    """Write the page's blocks as the files that it says they are."""
    for number, block in enumerate(
        code for _, language, code in blocks(PAGE.read_text("utf-8")) if language == "python"
    ):
        is_conftest = "@pytest.fixture" in block
        (folder / ("conftest.py" if is_conftest else f"test_block_{number}.py")).write_text(block)


@pytest.mark.skipif(
    os.environ.get("PERDURE_TEST_POSTGRES", "18") != "18", reason="the page is about the embedded server"
)
def test_the_page_is_a_suite(tmp_path: Path) -> None:
    """All of its tests pass together, on an embedded server, with a history that was exported beside them."""
    suite(tmp_path)
    (tmp_path / "histories").mkdir()
    export = (
        "from pathlib import Path\n"
        "from test_block_2 import invite\n"
        "def test_export(app):\n"
        "    invite.options(id='kept').start([]).result(timeout=20)\n"
        "    Path(__file__).with_name('histories').joinpath('kept.json').write_bytes(app.runs.export('kept'))\n"
    )
    (tmp_path / "test_export.py").write_text(export)
    run(tmp_path, "test_export.py")
    (tmp_path / "test_export.py").unlink()
    replay = next(
        path for path in tmp_path.glob("test_block_*.py") if "perdure.testing.replay" in path.read_text()
    )
    replay.write_text("import test_block_2\n" + replay.read_text())  # the page says: import the workflows
    told = run(tmp_path)
    assert "4 passed" in told
    assert "skipped" not in told


def run(folder: Path, *files: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=folder,
        env={
            name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "PYTEST_"))
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
