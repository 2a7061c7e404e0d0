"""Whoever does something to runs may be killed in the middle: it is done whole, or not at all, and nobody is held up.

The command is stopped at its last statement but one, by a lock on `audit`, with all its changes made and none committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import WorkflowCancelled, step, sync, workflow
from tests.api_tools import rows, until
from tests.process_tools import processes, say
from tests.protocol_tools import stranger

MODULE = "tests.acceptance.test_operations_survive_kills"
TABLES = ("runs", "live", "ends", "steps", "messages", "events", "streams", "waits", "intents", "audit")
HELD = "select 1 from pg_locks where not granted and relation = 'perdure.audit'::regclass"
LEFT = "select 1 from pg_stat_activity where application_name = 'perdure query' and state = 'active'"


@step(name="killed.work")
def work(text: str) -> str:
    return text


@workflow(name="killed.two")
def two() -> str:
    return work("a") + work("b")


@step(name="killed.hangs")
def hangs() -> None:
    say("in the body")
    threading.Event().wait()


@workflow(name="killed.hanging")
def hanging() -> None:
    hangs()


VERBS: dict[str, Callable[[sync.Perdure, str], Any]] = {
    "restart": lambda app, _: app.runs.restart("r"),
    "resume": lambda app, _: app.runs.resume("r"),
    "fork": lambda app, _: app.runs.fork("r", from_step="2", new_id="f"),
    "delete": lambda app, _: app.runs.delete("r"),
    "set_output": lambda app, _: app.runs.set_output("r", "1", "x"),
    "cancel": lambda app, _: app.runs.cancel("p", compensate=False),
    "set_timeout": lambda app, _: app.runs.set_timeout("p", timeout=5),
    "load": lambda app, file: app.runs.load(Path(file).read_bytes(), prefix="loaded-"),
}


def act(url: str, verb: str, file: str) -> None:
    """One command, in a process that is to be killed in it."""
    with sync.Perdure(url, worker=False) as app:
        say("begins")
        say("did", VERBS[verb](app, file))


def serve(url: str) -> None:
    """A worker."""
    with sync.Perdure(url, lease=1):
        threading.Event().wait()


def fingerprint(url: str) -> list[Any]:
    return [
        rows(url, f"select md5(string_agg(t::text, '' order by t::text)) from perdure.{table} t")
        for table in TABLES
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_in_the_middle_has_done_nothing(
    verb: str, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "export.json"
    with sync.Perdure(database_url) as app:
        app.start(two.definition.name, id="r").result(timeout=30)
        file.write_bytes(app.runs.export("r"))
    with sync.Perdure(database_url, worker=False) as app, processes() as family:
        app.start("nowhere", id="p")
        if verb == "resume":
            rows(database_url, "update perdure.ends set status = 8")
        before = fingerprint(database_url)
        with stranger(database_url) as somebody:
            somebody.execute("lock table perdure.audit in share mode")
            command = family.start(MODULE, "act", database_url, verb, file)
            command.wait_for("begins")
            until(lambda: rows(database_url, HELD))
            command.kill()
        until(lambda: not rows(database_url, LEFT))
        assert "did" not in command.text()
        assert fingerprint(database_url) == before
        VERBS[verb](app, str(file))
        assert fingerprint(database_url) != before
        assert len(rows(database_url, "select 1 from perdure.audit")) == 1


def test_a_run_whose_worker_is_killed_while_it_is_stopped_at_once_ends_elsewhere(database_url: str) -> None:
    """The body hangs, the run is told to stop, its worker dies: another one ends it, and runs nothing of it."""
    with sync.Perdure(database_url, worker=False) as app, processes() as family:
        handle = app.start(hanging.definition.name, id="h")
        first = family.start(MODULE, "serve", database_url)
        first.wait_for("in the body")
        assert handle.cancel(compensate=False)
        first.kill()
        second = family.start(MODULE, "serve", database_url)
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=60)
        assert "in the body" not in second.text()
        assert app.runs.delete("h") == 1
        for table in TABLES[:-1]:
            assert rows(database_url, f"select 1 from perdure.{table}") == [], table


def test_a_restarted_run_whose_worker_is_killed_has_one_new_life(database_url: str) -> None:
    """Restarted while it waits for its worker to be found dead, and again after: one life at a time under its id."""
    with sync.Perdure(database_url, worker=False) as app, processes() as family:
        app.start(hanging.definition.name, id="h")
        worker = family.start(MODULE, "serve", database_url)
        worker.wait_for("in the body")
        worker.kill()
        assert app.runs.restart("h") == 0  # by the database it runs still
        second = family.start(MODULE, "serve", database_url)
        second.wait_for("in the body")  # taken over
        second.kill()
        rows(database_url, "update perdure.live set status = 2, worker = null")
        assert app.runs.restart("h") == 1
        family.start(MODULE, "serve", database_url).wait_for("in the body")
        assert len(rows(database_url, "select 1 from perdure.live")) == 1
        assert rows(database_url, "select count(*) from perdure.runs where not superseded") == [(1,)]
        assert rows(database_url, "select status from perdure.ends") == [(10,)]
