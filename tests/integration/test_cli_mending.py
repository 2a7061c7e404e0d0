"""`perdure restart`, `fork`, `delete`, `set-output`, `set-timeout`, `audit`, `versions`, and what `show` draws of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from perdure import step, sync, workflow
from perdure.sync import Perdure
from tests.api_tools import until
from tests.cli_tools import on_terminal, perdure

pytestmark = pytest.mark.postgres


@step(name="mill.grind")
def grind(pounds: int) -> int:
    """Lose a little."""
    return pounds - 1


@step(name="mill.pack")
def pack(pounds: int) -> str:
    """Pack it."""
    return f"{pounds} pounds"


@workflow(name="mill.bag")
def bag(pounds: int) -> str:
    """Grind and pack."""
    return pack(grind(pounds))


@workflow(name="mill.rest")
def rest() -> None:
    """Sleep for long."""
    sync.sleep(100_000)


@workflow(name="mill.family")
def family() -> str:
    """Start a bag as a child."""
    return bag(5)


@pytest.fixture
def mill(database_url: str) -> Iterator[Perdure]:
    """A worker of this process."""
    with Perdure(database_url, name="mill-1") as app:
        yield app


@pytest.fixture
def bagged(mill: Perdure) -> str:
    """The id of a run that has succeeded."""
    handle = bag.options(id="bag-1").start(10)
    assert handle.result(timeout=30) == "9 pounds"
    return handle.id


def read(url: str, *arguments: str) -> Any:
    answer = perdure(*arguments, "-o", "json", url=url)
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_restart(database_url: str, mill: Perdure, bagged: str) -> None:
    """It ends again under its id; one that is not there is code 3."""
    before = mill.handle(bagged).describe().key
    (done,) = read(database_url, "restart", bagged)
    assert done["outcome"] == "restarted"
    assert mill.handle(bagged).result(timeout=30) == "9 pounds"
    assert mill.handle(bagged).describe().key != before
    assert perdure("restart", "nowhere", url=database_url).returncode == 3


def test_resume_with_another_version(database_url: str, mill: Perdure) -> None:
    """`--to-version` is where it goes, `--version` which runs are meant."""
    mill.start("elsewhere.run", id="v-1", queue="far", version="1")
    mill.start("elsewhere.run", id="v-2", queue="far", version="2")
    done = perdure("restart", "--version", "1", "--to-version", "3", "--yes", url=database_url)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert {run["id"]: run["version"] for run in read(database_url, "ls")} == {"v-1": "3", "v-2": "2"}
    listed = {found["version"]: (found["runs"], found["workers"]) for found in read(database_url, "versions")}
    assert listed == {None: (0, 1), "2": (1, 0), "3": (1, 0)}


def test_fork_with_another_output(database_url: str, mill: Perdure, bagged: str) -> None:
    """What is kept may be edited; the id of the fork is written."""
    arguments = ["--from-step", "mill.pack", "--set-output", "mill.grind=4", "--new-id", "bag-2"]
    assert perdure("fork", bagged, *arguments, url=database_url).stdout == "bag-2\n"
    assert mill.handle("bag-2").result(timeout=30) == "4 pounds"
    made = perdure("fork", bagged, "--arg", "30", url=database_url).stdout.strip()
    assert mill.handle(made).result(timeout=30) == "29 pounds"


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ["nowhere"]),
        (4, ["bag-1", "--from-step", "mill.bake"]),
        (4, ["bag-1", "--new-id", "bag-1"]),
        (2, ["bag-1", "--set-output", "mill.grind=4"]),
        (2, ["bag-1", "--set-output", "mill.grind=four", "--from-step", "mill.pack"]),
        (2, ["bag-1", "--from-step", "mill.grind", "--set-output", 'mill.pack="x"']),
    ],
)
def test_forks_that_are_refused(database_url: str, bagged: str, code: int, arguments: list[str]) -> None:
    """No such run, no such step, an id that is taken, outputs that cannot be."""
    done = perdure("fork", *arguments, url=database_url)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_delete(database_url: str, mill: Perdure, bagged: str) -> None:
    """With its children; one that goes on is refused with code 4; the audit stays."""
    handle = family.options(id="family-1").start()
    handle.result(timeout=30)
    mill.start("elsewhere.run", id="on", queue="far")
    done = perdure("delete", "family-1", "on", "--reason", "asked for", url=database_url)
    assert done.returncode == 4
    assert done.stdout == "family-1\tdeleted\t\non\trefused\tqueued\n"
    assert {run["id"] for run in read(database_url, "ls")} == {bagged, "on"}
    (line,) = read(database_url, "audit", "family-1")
    assert (line["verb"], line["reason"], line["id"]) == ("delete", "asked for", "family-1")


def test_set_output(database_url: str, mill: Perdure, bagged: str) -> None:
    """What was recorded is another value; what is no result, or not there, is code 4."""
    done = perdure("set-output", bagged, "mill.grind", "3", "--reason", "typo", url=database_url)
    assert done.returncode == 0, done.stderr
    assert read(database_url, "show", bagged)["steps"][0]["value"] == 3
    (line,) = read(database_url, "audit", bagged)
    assert (line["verb"], line["reason"], line["detail"]["was"]) == ("set_output", "typo", "9")
    assert perdure("set-output", bagged, "mill.bake", "3", url=database_url).returncode == 4
    assert perdure("set-output", "nowhere", "mill.grind", "3", url=database_url).returncode == 3
    assert perdure("set-output", bagged, "mill.grind", "three", url=database_url).returncode == 2


def test_set_timeout(database_url: str, mill: Perdure, bagged: str) -> None:
    """Another deadline, or none; one that has ended keeps its end, code 4."""
    mill.start("elsewhere.run", id="t-1", queue="far")
    assert perdure("set-timeout", "t-1", "--timeout", "2h", url=database_url).returncode == 0
    assert read(database_url, "show", "t-1")["deadline"] is not None
    done = perdure("set-timeout", "t-1", bagged, "--no-timeout", url=database_url)
    assert (done.returncode, done.stdout) == (4, f"t-1\tset\tqueued\n{bagged}\ttoo_late\tsucceeded\n")
    assert read(database_url, "show", "t-1")["deadline"] is None
    assert perdure("set-timeout", "t-1", url=database_url).returncode == 2
    assert perdure("set-timeout", "--all", "--timeout", "-5", "--yes", url=database_url).returncode == 2


def test_cancel_without_undo(database_url: str, mill: Perdure) -> None:
    """A run that sleeps ends at once, without its code."""
    handle = rest.options(id="rest-1").start()
    until(lambda: handle.status() == "waiting")
    (done,) = read(database_url, "cancel", "rest-1", "--no-compensate")
    assert (done["outcome"], done["status"]) == ("requested", "cancelled")


def test_show_draws_the_timeline(database_url: str, mill: Perdure) -> None:
    """Why it waits stands first; then bars, the runs that it started, and what was done by hand."""
    family.options(id="family-2").start().result(timeout=30)
    perdure("set-output", "family-2", "2", '"none"', url=database_url)
    shown = on_terminal("show", "family-2", url=database_url, TERM="dumb")
    assert shown.startswith("family-2 succeeded")
    assert "█" in shown
    assert "\r\nstarted\r\n" in shown
    assert "set_output" in shown
    run = read(database_url, "show", "family-2")
    assert [(child["workflow"], child["status"]) for child in run["children"]] == [("mill.bag", "succeeded")]
    assert [line["verb"] for line in run["audit"]] == ["set_output"]
    labels = [
        line.split("\t")[0] for line in perdure("show", "family-2", url=database_url).stdout.splitlines()
    ]
    assert labels[-2:] == ["child", "audit"]
    mill.start("elsewhere.run", id="else-1", queue="far")
    first = on_terminal("show", "else-1", url=database_url, TERM="dumb").splitlines()[0]
    assert first.startswith("else-1 queued: waits for a worker")


def test_lists_on_a_terminal(database_url: str, mill: Perdure) -> None:
    """The audit and the versions are tables with heads."""
    mill.start("elsewhere.run", id="a-1", queue="far", version="7")
    perdure("cancel", "a-1", "--reason", "no\x1b[2Jthing", url=database_url)
    mill.start("elsewhere.run", id="a-2", queue="far", version="7")
    shown = on_terminal("audit", url=database_url, TERM="dumb")
    assert shown.splitlines()[0].split() == ["at", "who", "did", "id", "detail", "reason"]
    assert r"no\x1b[2Jthing" in shown
    versions = on_terminal("versions", url=database_url, TERM="dumb").splitlines()
    assert versions[0].split() == ["version", "runs", "workers", "of", "them"]
    assert versions[-1].split() == ["7", "1", "0", "1", "queued"]
