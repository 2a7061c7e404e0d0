"""`perdure schedules`: listed, shown, and acted on from a shell."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import perdure as library
from perdure import Schedule
from tests.api_tools import rows
from tests.cli_tools import on_terminal, perdure
from tests.schedule_tools import HOUR, held, note


def declare(url: str, *schedules: Schedule) -> None:
    with library.sync.Perdure(url, worker=False) as app:
        app.schedules.apply(*schedules)


def test_they_are_listed_in_every_form(database_url: str) -> None:
    """A line for each with tabs, an array of objects, and a table with what people want to know."""
    declare(
        database_url,
        Schedule(note, "0 2 * * *", name="nightly", timezone="Europe/Berlin"),
        Schedule(held, every=timedelta(hours=2), name="often", overlap="allow", paused=True),
    )
    listed = perdure("schedules", "ls", url=database_url)
    first, second = listed.stdout.splitlines()
    fields = first.split("\t")
    assert (fields[0], fields[2], fields[5]) == ("nightly", "0 2 * * * Europe/Berlin", "skip")
    assert fields[3].endswith("Z")
    assert second.split("\t")[2:7] == ["every 2 h 00 min", "", "", "allow", "paused"]
    found = json.loads(perdure("schedules", "ls", "-o", "json", "--not-paused", url=database_url).stdout)
    assert [(each["name"], each["cron"], each["every"]) for each in found] == [("nightly", "0 2 * * *", None)]
    shown = on_terminal("schedules", "ls", url=database_url)
    assert "remark" in shown
    assert "paused" in shown
    page = perdure("schedules", "ls", "-n", "1", url=database_url)
    assert page.stdout.startswith("nightly\t")
    assert "--after nightly" in page.stderr


def test_no_schedules_are_none(database_url: str) -> None:
    """Nothing on stdout, an empty array as JSON."""
    declare(database_url)
    assert perdure("schedules", "ls", url=database_url).stdout == ""
    assert json.loads(perdure("schedules", "ls", "-o", "json", url=database_url).stdout) == []


def test_one_is_shown_paused_and_resumed(database_url: str) -> None:
    """With its next ticks, or why it rests."""
    declare(database_url, Schedule(note, "0 * * * *", name="hourly", args=("x",)))
    shown = perdure("schedules", "show", "hourly", url=database_url).stdout.splitlines()
    assert 'input\t{"args":["x"]}' in shown
    assert sum(line.startswith("upcoming\t") for line in shown) == 5
    assert perdure("schedules", "pause", "hourly", "--note", "stocktaking", url=database_url).returncode == 0
    found = json.loads(perdure("schedules", "show", "hourly", "-o", "json", url=database_url).stdout)
    assert (found["paused"], found["note"], found["next"]) == (True, "stocktaking", None)
    assert perdure("schedules", "resume", "hourly", url=database_url).returncode == 0
    found = json.loads(perdure("schedules", "show", "hourly", "-o", "json", url=database_url).stdout)
    assert (found["paused"], found["note"]) == (False, None)


def test_it_is_triggered_and_backfilled(database_url: str) -> None:
    """The id of the run is written, or that it was skipped; then how many ticks got a run."""
    declare(database_url, Schedule(note, "0 * * * *", name="hourly"))
    begun = perdure("schedules", "trigger", "hourly", url=database_url)
    assert rows(database_url, "select id from perdure.runs") == [(begun.stdout.strip(),)]
    skipped = perdure("schedules", "trigger", "hourly", url=database_url)
    assert (skipped.returncode, skipped.stdout) == (0, "")
    assert "skipped" in skipped.stderr
    beside = perdure("schedules", "trigger", "hourly", "--overlap", "allow", "-o", "json", url=database_url)
    assert json.loads(beside.stdout)["id"].startswith("hourly@")
    day = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 30 * HOUR
    times = ["--from", day.isoformat(), "--until", (day + 24 * HOUR).isoformat()]
    filled = perdure("schedules", "backfill", "hourly", *times, url=database_url)
    assert filled.stdout.strip() == "24"
    again = perdure("schedules", "backfill", "hourly", *times, "-o", "json", url=database_url)
    assert json.loads(again.stdout) == {"started": 0}


def test_it_is_deleted(database_url: str) -> None:
    """Then there is none of this name, which is exit code 3; a reason is noted."""
    declare(database_url, Schedule(note, "0 * * * *", name="hourly"))
    assert perdure("schedules", "delete", "hourly", "--reason", "old", url=database_url).returncode == 0
    gone = perdure("schedules", "delete", "hourly", url=database_url)
    assert (gone.returncode, gone.stderr) == (3, "perdure: no schedule has the name 'hourly'\n")
    audit = perdure("audit", "hourly", url=database_url).stdout
    assert "schedule delete" in audit
    assert "old" in audit
