"""docs/how-to/operate.md as it is read: a thousand runs parked by a deploy, found, looked at, patched, replayed, resumed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from perdure import sync
from tests.api_tools import rows, until
from tests.cli_tools import environment, perdure

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/operate.md"
MANY: Final = 1000


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


OLD, PATCHED = blocks("python")
COMMANDS: Final = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
BAD: Final = PATCHED.replace('if perdure.patched("fraud check"):', "if True:")


@contextmanager
def deployed(folder: Path, url: str, code: str) -> Iterator[None]:
    """A worker with this code."""
    (folder / "shop.py").write_text(code)
    worker = subprocess.Popen(
        [sys.executable, "-m", "perdure", "worker", "shop:app"],
        cwd=folder,
        env=environment(url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def run(command: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """A command of the page."""
    line, _, file = command.partition(" > ")
    done = perdure(*_words(line)[1:], url=url, cwd=folder)
    if file:
        (folder / file).write_text(done.stdout)
    return done


def _words(line: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line)]


def standing(url: str, status: int) -> bool:
    return rows(url, "select count(*) from perdure.live where status = %s", status) == [(MANY,)]


def test_from_a_thousand_runs_parked_to_all_finished(database_url: str, tmp_path: Path) -> None:
    def page(number: int) -> subprocess.CompletedProcess[str]:
        return run(COMMANDS[number], tmp_path, database_url)

    with sync.Perdure(database_url, worker=False) as app:
        with deployed(tmp_path, database_url, OLD):
            started = "select perdure.start('shop.order', jsonb_build_array(n), jsonb_build_object('id', 'order-' || n))"
            rows(database_url, f"{started} from generate_series(1, %s) n", MANY)
            until(lambda: standing(database_url, 4), within=120)
        with deployed(tmp_path, database_url, BAD):
            rows(
                database_url,
                "select perdure.send('order-' || n, 'paid', to_jsonb(n)) from generate_series(1, %s) n",
                MANY,
            )
            until(lambda: standing(database_url, 6), within=120)

        listed, versions, shown, exported, replayed, gate, dry, resumed = range(8)
        assert page(listed).stdout.count("order-") >= 3
        assert "1000" in page(versions).stdout
        assert "fraud_check' at position 1" in page(shown).stdout
        assert page(exported).returncode == 0
        assert page(replayed).returncode == 1
        assert page(gate).returncode == 1

        (tmp_path / "shop.py").write_text(PATCHED)
        assert page(replayed).returncode == 0
        green = page(gate)
        assert (green.returncode, f"replayed: {MANY}; agree: {MANY}" in green.stderr) == (0, True), (
            green.stderr
        )
        with deployed(tmp_path, database_url, PATCHED):
            assert "1,000" in page(dry).stdout + page(dry).stderr
            assert standing(database_url, 6)
            assert page(resumed).returncode == 0
            until(lambda: app.runs.count(status="succeeded") == MANY, within=120)
        assert app.handle("order-7").result() == "order 7: 7"
        (note,) = app.runs.audit("order-7")
        assert (note.verb, note.reason) == ("resume", "fraud check is patched")
