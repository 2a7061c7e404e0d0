"""The command line at its edges: wrong settings, answers that nobody takes, questions that nobody answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure import sync
from tests.api_tools import rows
from tests.cli_tools import environment, on_terminal, perdure

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(database_url: str) -> str:
    """A database with a run that nobody takes."""
    assert perdure("migrate", url=database_url).returncode == 0
    assert perdure("start", "nobody.has.it", "--id", "one", url=database_url).returncode == 0
    return database_url


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (["ls", "--schema", ""], {}, "schema"),
        (["migrate", "--schema", ""], {}, "schema"),
        (["ls"], {"PERDURE_LEASE": "abc"}, "PERDURE_LEASE is 'abc'"),
        (["show", "one"], {"PERDURE_THREADS": "0"}, "threads= must be at least 1"),
        (["ls", "-d", "nonsense"], {}, "postgresql://user:password@host:5432/name"),
        (["ls", "-d", "postgresql://127.0.0.1:99999/x"], {}, "port '99999'"),
        (["migrate", "-d", "host=127.0.0.1 port=x"], {}, "port 'x'"),
    ],
)
def test_a_wrong_setting_is_one_line(
    arguments: list[str], variables: dict[str, Any], text: str, url: str
) -> None:
    """Exit code 2 and a line that names it, wherever it comes from."""
    ended = perdure(*arguments, url=url, **variables)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert ended.stderr.startswith("perdure: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["ls", "-o", "json"], ["show", "one"], ["export", "one"]], ids=str)
def test_an_answer_that_cannot_be_written_is_one_line(command: list[str], url: str) -> None:
    """A full disk is said, with exit code 1."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "perdure", *command],
            env=environment(url),
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == "perdure: the answer cannot be written: No space left on device\n"


def test_an_answer_that_nobody_reads_on_ends_quietly(url: str) -> None:
    """In front of `head` a command ends as others do that SIGPIPE ends: with 141, and without a word."""
    rows(
        url,
        "insert into perdure.runs (key, id, workflow, input, queue) "
        "select 1000000 + n, 'many-' || n, 'shop.bulk', '{}', 'far' from generate_series(1, 3000) n",
    )
    rows(
        url,
        "insert into perdure.live (key, workflow, status, queue, arrival) "
        "select key, workflow, 2, 'far', nextval('perdure.arrivals') from perdure.runs where workflow = 'shop.bulk'",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "perdure", "ls", "--limit", "3000"],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_end_of_what_is_typed_is_a_no(url: str) -> None:
    """Ctrl-D at the question changes nothing, and says so."""
    shown = on_terminal("cancel", "--all", url=url, typed="\x04")
    assert "nothing was changed" in shown
    assert rows(url, "select count(*) from perdure.ends") == [(0,)]


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """Where `.perdure/` is there and no server was made in it, a command that looks makes none."""
    (tmp_path / ".perdure").mkdir()
    ended = perdure("show", "x", cwd=tmp_path)
    assert ended.returncode == 5
    assert "there is no database in .perdure/" in ended.stderr
    assert list((tmp_path / ".perdure").iterdir()) == []


def test_texts_say_how_to_go_on(url: str, tmp_path: Path) -> None:
    """What is wrong with JSON, the option of the command and not of Python, and one run as one."""
    broken = perdure("fork", "one", "--set-output", "step={", url=url)
    assert broken.returncode == 2
    assert "step=JSON: Expecting property name" in broken.stderr
    (tmp_path / "one.json").write_text(perdure("export", "one", url=url).stdout)
    taken = perdure("load", str(tmp_path / "one.json"), url=url)
    assert taken.returncode == 4
    assert taken.stderr.rstrip().endswith("delete it first, or give --prefix")
    loaded = perdure("load", str(tmp_path / "one.json"), "--prefix", "copy-", url=url)
    assert loaded.stdout == "copy-one\n"
    assert "cancelled or told to stop: 1 of 1" in on_terminal("cancel", "--prefix", "o", "--yes", url=url)


def test_why_does_not_promise_a_worker_that_has_the_code(url: str) -> None:
    """Which code workers have is not known: what is said holds, whether or not one has it."""
    with sync.Perdure(url):
        why = json.loads(perdure("show", "one", "-o", "json", url=url).stdout)["why"]
    assert why == "waits for a worker of queue 'default' that has the code of nobody.has.it and a free place"
