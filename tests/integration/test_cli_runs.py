"""`perdure ls`, `show`, `cancel` and `resume`: for people on a terminal, for programs in a pipe and in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Status, step, sync, workflow
from perdure.cli.documents import LINE
from perdure.sync import Perdure
from tests.api_tools import rows, until
from tests.cli_tools import on_terminal, perdure

pytestmark = pytest.mark.postgres

LARGE = 2**63 + 1
"""A number that loses its last digit as a float."""

open_for_business = False


@step(name="kiosk.charge")
def charge(cents: int) -> dict[str, Any]:
    """Return a payment."""
    return {"payment": LARGE, "cents": cents, "words": "paid " * 40}


@step(name="kiosk.pour")
def pour() -> str:
    """Fail as long as the kiosk is closed."""
    if not open_for_business:
        raise LookupError("closed\x1b[2J until nine")
    return "coffee"


@workflow(name="kiosk.sell")
def sell(cents: int) -> str:
    """Sell a coffee."""
    charge(cents)
    return pour()


@workflow(name="kiosk.nap")
def nap() -> None:
    """Sleep for days."""
    charge(1)
    sync.sleep(timedelta(days=3))


@pytest.fixture
def kiosk(database_url: str) -> Iterator[Perdure]:
    """A worker of this process, and a kiosk that is closed."""
    global open_for_business
    open_for_business = False
    with Perdure(database_url, name="kiosk-1") as app:
        yield app


@pytest.fixture
def failed(kiosk: Perdure) -> str:
    """The id of a failed run."""
    handle = sell.options(id="sold-1", tags={"vip": True, "shop": "west"}).start(250)
    with pytest.raises(LookupError):
        handle.result(timeout=30)
    return handle.id


@pytest.fixture
def asleep(kiosk: Perdure) -> str:
    """The id of a run that sleeps, put away."""
    handle = nap.options(id="nap-1").start()
    until(lambda: handle.status() is Status.WAITING)
    return handle.id


@pytest.fixture
def unknown(kiosk: Perdure) -> str:
    """The id of a run that nobody has the code of."""
    return kiosk.start("elsewhere.run", [1], id="else-1", queue="far").id


@pytest.fixture
def parked(database_url: str, unknown: str) -> str:
    """The id of a parked run."""
    rows(database_url, "update perdure.live set status = 6, reason = 'it met another step'")
    return unknown


def read(url: str, *arguments: str) -> Any:
    answer = perdure(*arguments, "-o", "json", url=url)
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_ls_in_json_has_every_field(database_url: str, failed: str) -> None:
    """One array; the fields are those of the reference, with times in UTC."""
    (run,) = read(database_url, "ls")
    assert list(run) == [
        "id", "workflow", "status", "queue", "version", "tags", "parent", "worker", "created", "finished",
        "wakes", "deadline", "recoveries", "takeovers", "reason", "cancel_requested", "cursor",
    ]  # fmt: skip
    assert (run["id"], run["workflow"], run["status"]) == (failed, "kiosk.sell", "failed")
    assert run["tags"] == {"vip": True, "shop": "west"}
    assert run["created"].endswith("Z")


def test_ls_in_a_pipe_is_lines_with_tabs(database_url: str, failed: str, unknown: str) -> None:
    """One line for each run, without a head, so that `cut -f1` gives ids."""
    answer = perdure("ls", url=database_url)
    lines = [line.split("\t") for line in answer.stdout.splitlines()]
    assert [dict(zip(LINE, line, strict=True))["id"] for line in lines] == [unknown, failed]
    assert dict(zip(LINE, lines[0], strict=True))["queue"] == "far"


def test_ls_on_a_terminal_is_a_table(database_url: str, failed: str, asleep: str) -> None:
    """It has a head, whole ids, and what keeps a run waiting."""
    shown = on_terminal("ls", url=database_url, TERM="dumb")
    head, *rows = shown.splitlines()
    assert head.split() == ["id", "workflow", "status", "queue", "created", "took", "remark"]
    assert rows[0].split()[:4] == [asleep, "kiosk.nap", "waiting", "default"]
    assert " until " in rows[0]
    assert rows[1].split()[:3] == [failed, "kiosk.sell", "failed"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--status", "failed"], ["sold-1"]),
        (["--status", "failed", "--status", "queued"], ["else-1", "sold-1"]),
        (["--workflow", "elsewhere.run"], ["else-1"]),
        (["--queue", "far"], ["else-1"]),
        (["--version", "7"], []),
        (["--tag", "vip=true"], ["sold-1"]),
        (["--tag", "vip=true", "--tag", "shop=east"], []),
        (["--tag", 'vip="true"'], []),
        (["--parent", "sold-1"], []),
        (["--prefix", "else"], ["else-1"]),
        (["--created-after", "1h"], ["else-1", "sold-1"]),
        (["--created-before", "1h"], []),
        (["--created-before", "2020-01-01"], []),
        (["--finished-after", "1h"], ["sold-1"]),
        (["--finished-before", "1h"], []),
        (["--error", "until nine"], ["sold-1"]),
        (["--limit", "1"], ["else-1"]),
    ],
)
def test_ls_filters(
    database_url: str, failed: str, unknown: str, filters: list[str], found: list[str]
) -> None:
    """Each option is one field of the filter, and all of them must match."""
    assert [run["id"] for run in read(database_url, "ls", *filters)] == found


def test_ls_by_the_worker_that_ended_a_run(database_url: str, failed: str, unknown: str) -> None:
    """`--worker` takes the number that a listed run has."""
    number = next(run["worker"] for run in read(database_url, "ls") if run["id"] == failed)
    assert [run["id"] for run in read(database_url, "ls", "--worker", str(number))] == [failed]


def test_ls_pages_by_cursor(database_url: str, failed: str, unknown: str) -> None:
    """A full page says how the next one is asked for, and the last one follows."""
    answer = perdure("ls", "--limit", "1", url=database_url)
    assert answer.stdout.startswith(unknown)
    *_, cursor = answer.stderr.split()
    assert [run["id"] for run in read(database_url, "ls", "--cursor", cursor)] == [failed]


def test_show_in_json_is_whole(database_url: str, failed: str) -> None:
    """Steps in order, values as they are stored to the last digit, errors with their traceback."""
    run = read(database_url, "show", failed)
    assert run["input"] == {"args": [250]}
    assert run["result"] is None
    assert run["error"]["type"] == "LookupError"
    assert run["error"]["message"] == "closed\x1b[2J until nine"
    assert "in pour" in run["error"]["traceback"]
    first, second = run["steps"]
    assert (first["name"], first["kind"], first["failed"]) == ("kiosk.charge", "step", False)
    assert first["value"] == {"payment": LARGE, "cents": 250, "words": "paid " * 40}
    assert (second["name"], second["value"], second["error"]["type"]) == ("kiosk.pour", None, "LookupError")
    assert list(run["workers"]) == [str(run["worker"])]


def test_show_in_a_pipe_is_labelled_lines(database_url: str, failed: str) -> None:
    """The first field says what a line is; values are shortened, and no control character comes through."""
    answer = perdure("show", failed, url=database_url)
    lines = [line.split("\t") for line in answer.stdout.splitlines()]
    facts = {label: rest for label, *rest in lines if label not in ("step", "on")}
    assert facts["status"] == ["failed"]
    assert facts["input"] == ['{"args":[250]}']
    assert facts["error"] == [r"LookupError: closed\x1b[2J until nine"]
    steps = [rest for label, *rest in lines if label == "step"]
    assert [(position, kind, name, outcome) for position, kind, name, outcome, *_ in steps] == [
        ("1", "step", "kiosk.charge", "ok"),
        ("2", "step", "kiosk.pour", "failed"),
    ]
    assert steps[0][-1].endswith("…")
    assert "\x1b" not in answer.stdout


def test_show_on_a_terminal_draws_the_run(database_url: str, failed: str) -> None:
    """Facts, steps and the worker; what the run holds cannot command the terminal."""
    shown = on_terminal("show", failed, url=database_url)
    assert "\x1b[31mfailed" in shown
    assert "kiosk.charge" in shown
    assert "kiosk-1" in shown
    assert "✗ LookupError" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("asleep", "asleep until "),
        ("unknown", "waits for a worker"),
        ("parked", "parked: "),
    ],
)
def test_show_says_why_a_run_waits(
    database_url: str, request: pytest.FixtureRequest, run: str, reason: str
) -> None:
    """A run that does not go on says what for."""
    id = request.getfixturevalue(run)
    facts = [line.split("\t") for line in perdure("show", id, url=database_url).stdout.splitlines()]
    (why,) = [rest for label, *rest in facts if label == "why"]
    assert why[0].startswith(reason)


def test_resume_lets_a_failed_run_go_on(database_url: str, kiosk: Perdure, failed: str) -> None:
    """The step that failed runs again, the one before does not."""
    global open_for_business
    open_for_business = True
    before = kiosk.handle(failed).steps()[0].recorded
    assert read(database_url, "resume", failed)[0]["outcome"] == "resumed"
    assert kiosk.handle(failed).result(timeout=30) == "coffee"
    assert kiosk.handle(failed).steps()[0].recorded == before


def test_resume_unparks(database_url: str, parked: str) -> None:
    """A parked run is listed with its reason, and goes back to its queue."""
    assert [run["reason"] for run in read(database_url, "ls", "--status", "parked")] == [
        "it met another step"
    ]
    assert read(database_url, "resume", parked) == [{"id": parked, "outcome": "resumed", "status": "queued"}]


def test_resume_refuses_what_has_nothing_to_resume(database_url: str, unknown: str) -> None:
    """A run that waits for a worker is neither failed nor parked: exit code 4, and why."""
    answer = perdure("resume", unknown, url=database_url)
    assert answer.returncode == 4
    assert answer.stdout == "else-1\trefused\tqueued\n"
    assert answer.stderr == "perdure: else-1 is queued; only parked and failed runs are resumed\n"


def test_cancel_ends_a_run(database_url: str, kiosk: Perdure, asleep: str, unknown: str) -> None:
    """Several at a time; one that has not begun ends at once, and asking again changes nothing."""
    done = read(database_url, "cancel", asleep, unknown)
    assert [(run["id"], run["outcome"]) for run in done] == [(asleep, "requested"), (unknown, "requested")]
    assert done[1]["status"] == "cancelled"
    until(lambda: kiosk.handle(asleep).status() is Status.CANCELLED)
    assert read(database_url, "cancel", unknown)[0]["outcome"] == "already"


def test_cancel_is_too_late_for_a_run_that_ended(database_url: str, failed: str) -> None:
    """Exit code 4, and how it ended."""
    answer = perdure("cancel", failed, "-o", "json", url=database_url)
    assert answer.returncode == 4
    assert json.loads(answer.stdout) == [{"id": failed, "outcome": "too_late", "status": "failed"}]
    assert answer.stderr == "perdure: sold-1 has failed already\n"


@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_an_id_that_is_not_there_does_not_keep_the_others(
    database_url: str, failed: str, unknown: str, command: str
) -> None:
    """Each id has its own answer; the exit code is that of the worst."""
    answer = perdure(command, "nowhere", failed if command == "resume" else unknown, url=database_url)
    assert answer.returncode == 3
    assert [line.split("\t")[1] for line in answer.stdout.splitlines()] == [
        "not_found",
        "resumed" if command == "resume" else "requested",
    ]
    assert answer.stderr == "perdure: nowhere is not there: no run has this id\n"


def test_on_a_terminal_a_command_says_what_it_did(database_url: str, unknown: str) -> None:
    """A sentence for each run."""
    assert on_terminal("cancel", unknown, url=database_url).split() == ["else-1", "is", "cancelled"]


def test_times_in_a_pipe_are_utc(database_url: str, failed: str) -> None:
    """Whatever the zone of the machine, programs read RFC 3339 in UTC."""
    line = perdure("ls", url=database_url, TZ="Pacific/Auckland").stdout.split("\t")
    created = datetime.fromisoformat(dict(zip(LINE, line, strict=True))["created"])
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
