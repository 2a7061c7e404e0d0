"""`perdure start`, `result` and `send`: runs from the shell, without their code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import sync, workflow
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.cli_tools import perdure

pytestmark = pytest.mark.postgres

LARGE = 2**63 + 1


@workflow(name="desk.echo")
def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what it was called with, and a number that a float would spoil."""
    return {"args": list(args), "kwargs": kwargs, "large": LARGE}


@workflow(name="desk.fail")
def fail() -> None:
    """Fail with what a terminal would obey."""
    raise TimeoutError("no\x1b[2J answer")


@workflow(name="desk.listen")
def listen() -> Any:
    """Return the first message."""
    return sync.receive("words")


@pytest.fixture
def desk(database_url: str) -> Iterator[Perdure]:
    """A worker of this process."""
    with Perdure(database_url, name="desk-1") as app:
        yield app


def test_start_by_name_and_wait(database_url: str, desk: Perdure) -> None:
    """A worker elsewhere runs it; stdout has the result alone, each argument as its form says."""
    words = ["--arg", "7", "--arg", "=7", "--arg", "plain", "--arg", "code=007", "--arg", "n:=[1,null]"]
    done = perdure("start", "desk.echo", *words, "--id", "e-1", "--wait", url=database_url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "args": [7, "7", "plain"],
        "kwargs": {"code": "007", "n": [1, None]},
        "large": LARGE,
    }
    assert "started e-1" in done.stderr


def test_start_prints_the_id_and_attaches(database_url: str, desk: Perdure, tmp_path: Path) -> None:
    """Said again with the same --id nothing new is started; another workflow under it is a conflict, code 4."""
    file = tmp_path / "input.json"
    file.write_text('{"args": [1], "kwargs": {"b": 2}}')
    start = ["start", "desk.echo", "--json-args", str(file), "--id", "e-2", "--tag", "vip=true"]
    assert perdure(*start, url=database_url).stdout == "e-2\n"
    again = perdure(*start, "-o", "json", url=database_url)
    assert json.loads(again.stdout) == {"id": "e-2", "workflow": "desk.echo", "created": False}
    assert perdure("start", "desk.fail", "--id", "e-2", url=database_url).returncode == 4
    shown = json.loads(perdure("show", "e-2", "-o", "json", url=database_url).stdout)
    assert (shown["input"], shown["tags"]) == ({"args": [1], "kwargs": {"b": 2}}, {"vip": True})
    assert rows(database_url, "select count(*) from perdure.runs") == [(1,)]


def test_start_options_are_those_of_the_library(database_url: str, desk: Perdure) -> None:
    """Queue, priority, delay, deadline and version are stored as given."""
    given = ["-q", "far", "--priority", "-3", "--delay", "1h", "--timeout", "2h", "--version", "7"]
    id = perdure("start", "desk.echo", *given, url=database_url).stdout.strip()
    run = desk.handle(id).describe()
    assert (run.queue, run.version, run.status, run.wakes is not None) == ("far", "7", "scheduled", True)
    assert run.deadline is not None
    assert rows(database_url, "select priority from perdure.live") == [(-3,)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arg", "n:=oops"], "'oops' is no JSON"),
        (["--arg", "n:=NaN"], "NaN is not in JSON"),
        (["--arg", "n=1", "--arg", "n=2"], "given twice"),
        (["--json-args", "-", "--arg", "1"], "not both"),
        (["--json-args", "-"], 'it must be an array, or {"args": [...], "kwargs": {...}}'),
        (["--delay", "soon"], "no duration"),
        (["--delay", "9999999999w"], "no more than a century"),
        (["--tag", "x"], "not of the form name=value"),
    ],
)
def test_start_refuses(database_url: str, arguments: list[str], text: str) -> None:
    """Code 2, before anything is started."""
    done = perdure("start", "desk.echo", *arguments, url=database_url, given='{"a": 1}')
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split()) or text == "no more than a century"
    assert "Traceback" not in done.stderr


def test_result_of_a_failed_run(database_url: str, desk: Perdure) -> None:
    """Code 1 and its error on stderr, also where its class is one that perdure raises itself while it waits."""
    done = perdure("start", "desk.fail", "--id", "f-1", "--wait", url=database_url)
    for ended in (done, perdure("result", "f-1", url=database_url)):
        assert (ended.returncode, ended.stdout) == (1, "")
        assert r"run f-1 failed: TimeoutError: no\x1b[2J answer" in ended.stderr


def test_result_of_a_run_that_goes_on(database_url: str, desk: Perdure) -> None:
    """Code 4 without --wait, 7 after --timeout, 3 without a run, 4 of a parked one, 1 of a cancelled one."""
    desk.start("elsewhere.run", id="r-1", queue="far")
    answers = [
        perdure("result", *arguments, url=database_url)
        for arguments in (["r-1"], ["r-1", "--timeout", "0.2"], ["nowhere", "--wait"])
    ]
    assert [(answer.returncode, answer.stdout) for answer in answers] == [(4, ""), (7, ""), (3, "")]
    assert "is queued: it has no result yet" in answers[0].stderr
    rows(database_url, "update perdure.live set status = 6, reason = 'a bad step'")
    for arguments in (["r-1"], ["r-1", "--wait"]):
        parked = perdure("result", *arguments, url=database_url)
        assert (parked.returncode, parked.stderr) == (4, "perdure: run r-1 is parked: a bad step\n")
    assert perdure("cancel", "r-1", url=database_url).returncode == 0
    assert perdure("result", "r-1", "--wait", url=database_url).returncode == 1


def test_send(database_url: str, desk: Perdure) -> None:
    """The run gets it; once it has ended code 4, without a run 3, without JSON 2."""
    desk.start("desk.listen", id="l-1")
    assert perdure("send", "l-1", "words", '{"a": 1}', "--key", "k", url=database_url).returncode == 0
    assert desk.handle("l-1").result(timeout=30) == {"a": 1}
    assert perdure("send", "l-1", "words", "1", url=database_url).returncode == 4
    assert perdure("send", "nowhere", "words", "1", url=database_url).returncode == 3
    assert perdure("send", "l-1", "words", "hello", url=database_url).returncode == 2
    assert perdure("send", "l-1", "!words", "1", url=database_url).returncode == 2


def test_what_was_sent_and_not_received_is_shown(database_url: str, desk: Perdure) -> None:
    """The same key arrives once; what was received already is not among it."""
    desk.start("elsewhere.run", id="m-1", queue="far")
    for _ in range(2):
        sent = perdure("send", "m-1", "words", "-", "--key", "k", url=database_url, given=str(LARGE))
        assert sent.returncode == 0, sent.stderr
    shown = json.loads(perdure("show", "m-1", "-o", "json", url=database_url).stdout)
    (message,) = shown["messages"]
    assert (message["topic"], message["key"], message["value"]) == ("words", "k", LARGE)
    desk.start("desk.listen", id="l-2")
    desk.handle("l-2").send("words", 1)
    until(lambda: desk.handle("l-2").status().final)
    assert desk.runs.get("l-2").messages == ()
