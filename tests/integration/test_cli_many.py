"""What the command line does to many runs at a time: counted, agreed to, and no more than that."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from perdure import RunFilter
from perdure.cli.choosing import settled
from perdure.sync import Perdure
from tests.api_tools import rows
from tests.cli_tools import on_terminal, perdure

pytestmark = pytest.mark.postgres

MANY = 1200
HOSTILE = ["-rf", "--all", "a\x1b[2Jb", "tab\tand\nline", "ünï ☃", "'; drop table runs; --"]


@pytest.fixture
def app(database_url: str) -> Iterator[Perdure]:
    """A client: nothing of what is started here is run."""
    with Perdure(database_url, worker=False) as app:
        yield app


@pytest.fixture
def queued(app: Perdure) -> list[str]:
    """Three runs that wait, of two workflows."""
    for id, name in (("a-1", "shop.pay"), ("a-2", "shop.pay"), ("b-1", "shop.ship")):
        app.start(name, id=id, queue="far")
    return ["a-1", "a-2", "b-1"]


def statuses(url: str) -> dict[str, str]:
    listed = json.loads(perdure("ls", "-o", "json", url=url).stdout)
    return {run["id"]: run["status"] for run in listed}


def test_a_filter_reaches_those_that_match_and_no_others(database_url: str, queued: list[str]) -> None:
    """The answer is their number, and the audit has each with the reason."""
    done = perdure("cancel", "-w", "shop.pay", "--yes", "--reason", "sold out", url=database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    assert statuses(database_url) == {"a-1": "cancelled", "a-2": "cancelled", "b-1": "queued"}
    audit = [
        json.loads(line) for line in perdure("audit", "-o", "jsonl", url=database_url).stdout.splitlines()
    ]
    assert {(line["id"], line["verb"], line["reason"]) for line in audit} == {
        ("a-1", "cancel", "sold out"),
        ("a-2", "cancel", "sold out"),
    }


def test_1200_runs_are_cancelled_by_filter(database_url: str, app: Perdure) -> None:
    """More than fit into two transactions; the one that is not meant stays."""
    app.start("shop.pay", id="first", queue="far")
    rows(
        database_url,
        "insert into perdure.runs (key, id, workflow, input, queue) "
        "select 1000000 + n, 'many-' || n, 'shop.bulk', '{}', 'far' from generate_series(1, %s) n",
        MANY,
    )
    rows(
        database_url,
        "insert into perdure.live (key, workflow, status, queue, arrival) "
        "select key, workflow, 2, 'far', nextval('perdure.arrivals') from perdure.runs where workflow = 'shop.bulk'",
    )
    dry = perdure("cancel", "--prefix", "many-", "--dry-run", "-o", "json", url=database_url)
    assert json.loads(dry.stdout)["matched"] == MANY
    assert len(json.loads(dry.stdout)["runs"]) == 20
    shown = on_terminal("cancel", "--prefix", "many-", url=database_url, typed="y\n")
    assert "cancel 1,200 runs? [y/N]" in shown
    assert "cancelled or told to stop: 1,200 of 1,200" in shown
    assert rows(database_url, "select status, count(*) from perdure.ends group by status") == [(9, MANY)]
    assert rows(database_url, "select count(*) from perdure.live") == [(1,)]


@pytest.mark.parametrize("verb", ["cancel", "resume", "restart", "delete", "set-timeout"])
def test_a_dry_run_changes_nothing(database_url: str, queued: list[str], verb: str) -> None:
    """It says how many are meant, of those to which it can be done, and nothing is noted."""
    how = ["--timeout", "1h"] if verb == "set-timeout" else []
    dry = perdure(verb, "--queue", "far", "--dry-run", *how, url=database_url)
    expected = 0 if verb in ("resume", "delete") else 3
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (0, f"matched\t{expected}")
    assert f"{verb} would reach {expected} runs; nothing was changed" in dry.stderr
    assert set(statuses(database_url).values()) == {"queued"}
    assert rows(database_url, "select count(*) from perdure.audit") == [(0,)]


def test_nobody_is_asked_in_a_pipe(database_url: str, queued: list[str]) -> None:
    """Without --yes it is refused with code 2, whatever can be read there, and nothing is changed."""
    done = perdure("cancel", "--queue", "far", url=database_url, given="y\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "perdure: 3 runs would be reached by this cancel, and nobody is here to agree"
    )
    assert set(statuses(database_url).values()) == {"queued"}


def test_who_does_not_agree_changes_nothing(database_url: str, queued: list[str]) -> None:
    """Whatever is no yes is a no."""
    shown = on_terminal("cancel", "--all", url=database_url, typed="\n")
    assert "cancel 3 runs? [y/N]" in shown
    assert "nothing was changed" in shown
    assert set(statuses(database_url).values()) == {"queued"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Which runs?"),
        (["--yes"], "Which runs?"),
        (["x", "--status", "queued", "--yes"], "not in two of these ways"),
        (["--all", "--status", "queued", "--yes"], "not in two of these ways"),
        (["--prefix", "", "--yes"], "must not be empty"),
        (["", "--yes"], "must not be empty"),
        (["--status", "failed", "--yes"], "would do nothing"),
        (["--tag", "x", "--yes"], "not of the form name=value"),
        (["--all", "--yes", "--reason", "x" * 513], "513 characters"),
    ],
)
def test_unclear_words_reach_nothing(
    database_url: str, queued: list[str], arguments: list[str], text: str
) -> None:
    """Code 2: above all an empty text, as of a variable that is not set, does not mean all."""
    done = perdure("cancel", *arguments, url=database_url)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert rows(database_url, "select count(*) from perdure.ends") == [(0,)]


def test_nothing_matches(database_url: str, queued: list[str]) -> None:
    """Then nobody has to agree, and it is no failure."""
    done = perdure("cancel", "--prefix", "zzz", url=database_url)
    assert (done.returncode, done.stdout) == (0, "0\n")


def test_hostile_ids(database_url: str, app: Perdure) -> None:
    """They are found, are not obeyed by click or the terminal, and each has its own answer."""
    for id in HOSTILE:
        app.start("shop.pay", id=id, queue="far")
    done = perdure("cancel", "-o", "json", "--", *HOSTILE, url=database_url)
    assert done.returncode == 0
    assert [(run["id"], run["status"]) for run in json.loads(done.stdout)] == [
        (id, "cancelled") for id in HOSTILE
    ]
    deleted = perdure("delete", "--", *HOSTILE, "gone", url=database_url)
    assert deleted.returncode == 3
    assert len(deleted.stdout.splitlines()) == len(HOSTILE) + 1
    assert "\x1b" not in deleted.stdout
    assert rows(database_url, "select count(*) from perdure.runs") == [(0,)]


def test_an_id_that_is_no_text(database_url: str, queued: list[str]) -> None:
    """Bytes that are no UTF-8 are wrong usage, and no traceback."""
    done = perdure("cancel", "a\udcff", url=database_url)
    assert done.returncode == 2
    assert "lone surrogate" in done.stderr


def test_ids_for_a_pipe(database_url: str, queued: list[str]) -> None:
    """`-o id` writes ids and nothing else."""
    assert perdure("ls", "-o", "id", "-w", "shop.pay", url=database_url).stdout == "a-2\na-1\n"


def test_no_more_are_reached_than_were_counted(app: Perdure, queued: list[str]) -> None:
    """What is born while somebody thinks about the question is not meant, though it matches."""
    where = settled(app, RunFilter(queue="far"))
    app.start("shop.pay", id="late", queue="far")
    assert app.runs.count(RunFilter(queue="far")) == 4
    assert sorted(run.id for run in app.runs.list(where)) == queued


def test_a_filter_of_an_earlier_time_stays(app: Perdure, queued: list[str]) -> None:
    """`--created-before` is not moved to now."""
    before = app.handle("a-2").describe().created
    where = settled(app, RunFilter(queue="far", created_before=before))
    assert [run.id for run in app.runs.list(where)] == ["a-1"]
