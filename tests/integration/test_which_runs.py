"""Which runs a verb reaches: those that were said, and no others, however they were said."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

import perdure
from perdure import Perdure, RunFilter, step, sync, workflow
from perdure.sync import entities
from tests.api_tools import on_loop, until

Runs = Any
"""`app.runs` with arguments that no checker lets through."""


@step
def once(number: int) -> int:
    return number


@workflow(name="which.runs")
def waits(number: int) -> str:
    once(number)
    once(number + 1)
    return str(sync.receive("never"))


class Counter(perdure.Entity):
    """An object to look back at."""

    count: int = 0


def begun(app: sync.Perdure, count: int = 4) -> list[sync.Handle[str]]:
    handles = [waits.options(id=f"f{number}").start(number) for number in range(count)]
    for handle in handles:
        until(lambda handle=handle: handle.describe().status == "waiting")  # type: ignore[misc]
    return handles


def told(app: sync.Perdure) -> list[str]:
    return sorted(run.id for run in app.runs.list() if run.status.final or run.cancel_requested)


def test_a_text_is_one_id(database_url: str) -> None:
    """`ids="f1"` is the run f1, and not those whose ids are its letters."""
    with sync.Perdure(database_url) as app:
        begun(app)
        waits.options(id="f").start(9)
        assert [run.id for run in app.runs.list(ids="f1")] == ["f1"]
        assert app.runs.cancel(ids="f1") == 1
        assert app.runs.cancel(RunFilter(ids="f2")) == 1
        assert told(app) == ["f1", "f2"]


@on_loop
async def test_a_text_is_one_id_in_async_code(database_url: str) -> None:
    """The same on an event loop."""
    async with Perdure(database_url) as app:
        await app.start_many(waits.options(id=id).bind(1) for id in ("f", "f1"))
        assert await app.runs.cancel(ids="f1") == 1
        assert await app.runs.count(status=["waiting", "queued", "running"]) == 1


@pytest.mark.parametrize(
    "said",
    [{"parent": None}, {"prefix": None}, {"ids": None, "tags": None}, {"limit": 2}, {"cursor": None}, {}],
    ids=str,
)
def test_what_is_none_says_nothing(said: dict[str, Any], database_url: str) -> None:
    """A keyword that is None, as a variable that was never set, does not mean all runs; nor does a limit."""
    with sync.Perdure(database_url, worker=False) as app:
        waits.start(1)
        for verb in (app.runs.cancel, app.runs.delete, app.runs.resume, app.runs.restart, app.runs.replay):
            with pytest.raises(TypeError, match="say which runs"):
                verb(**said)
        assert told(app) == []


@pytest.mark.parametrize(
    "said", [{"prefix": ""}, {"tags": {}}, {"parent": ""}, {"ids": []}, {"error": ""}], ids=str
)
def test_what_is_empty_is_refused(said: dict[str, Any], database_url: str) -> None:
    """An empty text, mapping or list as a keyword does not mean all runs; in a filter neither, where it would."""
    with sync.Perdure(database_url, worker=False) as app:
        waits.start(1)
        for verb in (app.runs.cancel, app.runs.delete, app.runs.resume):
            with pytest.raises(ValueError, match="is empty"):
                verb(**said)
            if said.keys() & {"prefix", "tags", "error"}:
                with pytest.raises(ValueError, match="is empty"):
                    verb(RunFilter(**said))
        assert told(app) == []
        assert app.runs.cancel(RunFilter()) == 1  # all, in so many words


def test_a_limit_is_a_limit(database_url: str) -> None:
    """With `limit` the newest so many are reached, from the cursor on if there is one; without it all are."""
    with sync.Perdure(database_url) as app:
        begun(app, 6)
        assert app.runs.set_tags(RunFilter(limit=2), {"seen": 1}) == 2
        assert sorted(run.id for run in app.runs.list(tags={"seen": 1})) == ["f4", "f5"]
        first = app.runs.list(limit=2)[-1].cursor
        assert app.runs.cancel(prefix="f", cursor=first, limit=3) == 3
        until(lambda: told(app) == ["f1", "f2", "f3"])
        assert app.runs.cancel(prefix="f", status="waiting") == 3


def test_a_limit_goes_over_pages(database_url: str) -> None:
    """A limit beyond one transaction is kept too, and no limit means all, not the hundred of a list."""
    with sync.Perdure(database_url, worker=False) as app:
        app.start_many(waits.bind(number) for number in range(620))
        assert app.runs.set_tags(RunFilter(limit=510), {"a": 1}) == 510
        assert app.runs.set_tags(RunFilter(), {"a": 2}) == 620
        assert len(app.runs.list()) == 100


def test_a_handle_stands_for_its_run(database_url: str) -> None:
    """Handles, and what is known of runs, are taken where ids are, also in lists."""
    with sync.Perdure(database_url) as app:
        one, two, three, four = begun(app)
        assert app.runs.cancel(one) == 1
        assert app.runs.cancel([two, "f2"]) == 2
        assert app.runs.cancel(ids=[three]) == 1
        assert app.runs.cancel(app.runs.list(ids=["f3"])) == 1
        assert app.runs.get(four).info.id == four.id
        assert [line.id for line in app.runs.audit(one)] == ["f0"]
        assert isinstance(app.runs.fork(one), sync.Handle)
        assert json.loads(app.runs.export([one, two]))["runs"][0]["id"] == "f0"


def test_a_workflow_stands_for_its_name(database_url: str) -> None:
    """`workflow=` takes the decorated function itself."""
    with sync.Perdure(database_url, worker=False) as app:
        waits.start(1)
        assert [run.workflow for run in app.runs.list(workflow=waits)] == ["which.runs"]
        assert app.runs.count(workflow=[waits, "other"]) == 1
        assert app.runs.cancel(workflow=waits) == 1


def test_forks_come_in_the_order_of_the_ids(database_url: str) -> None:
    """The handle of each fork stands where the id stood that was asked for."""
    with sync.Perdure(database_url) as app:
        begun(app)
        asked = ["f2", "f0", "f3", "f1"]
        assert [handle.id.partition("/")[0] for handle in app.runs.fork(asked)] == asked


def test_a_step_may_be_given_by_the_number_of_its_position(database_url: str) -> None:
    """A position that looks like a number is taken as one, for a fork and for a correction."""
    with sync.Perdure(database_url) as app:
        begun(app, 1)
        position = next(step.position for step in app.handle("f0").steps() if step.name.endswith("once"))
        assert position == "1"
        assert app.runs.set_output("f0", 1, 7) == 1
        fork = app.runs.fork("f0", from_step=2, outputs={1: 8})
        until(lambda: len(fork.steps()) == 2)
        assert [step.json() for step in fork.steps()] == ["8", "1"]


WRONG: list[tuple[type[Exception], str, Callable[[Runs], object]]] = [
    (ValueError, "worker", lambda runs: runs.list(worker="x")),
    (ValueError, "worker", lambda runs: runs.list(worker=2**70)),
    (ValueError, "datetime", lambda runs: runs.list(created_after="2h")),
    (ValueError, "datetime", lambda runs: runs.cancel(created_after=datetime(2026, 1, 1))),  # noqa: DTZ001
    (ValueError, "limit", lambda runs: runs.list(limit="x")),
    (ValueError, "limit", lambda runs: runs.list(limit=True)),
    (ValueError, "limit", lambda runs: runs.list(limit=0)),
    (ValueError, "cursor", lambda runs: runs.list(cursor=3)),
    (ValueError, "prefix", lambda runs: runs.list(prefix=3)),
    (ValueError, "queue", lambda runs: runs.list(queue=["a", 3])),
    (ValueError, "workflow", lambda runs: runs.list(workflow=3)),
    (ValueError, "tags", lambda runs: runs.list(tags="x")),
    (ValueError, "tags", lambda runs: runs.list(tags={"x": object()})),
    (ValueError, "status", lambda runs: runs.list(status="done")),
    (TypeError, "RunFilter", lambda runs: runs.list({"status": "failed"})),
    (TypeError, "RunFilter", lambda runs: runs.count("f0")),
    (TypeError, "'nosuch'.*status, workflow", lambda runs: runs.list(nosuch=1)),
    (TypeError, "'nosuch'.*status, workflow", lambda runs: runs.cancel(nosuch=1)),
    (TypeError, "by its id", lambda runs: runs.cancel(["f0", 3])),
    (TypeError, "by its id", lambda runs: runs.cancel(3)),
    (TypeError, "by its id", lambda runs: runs.cancel({"status": "failed"})),
    (TypeError, "by its id", lambda runs: runs.get(3)),
    (TypeError, "by its id", lambda runs: runs.set_tags([3], {})),
    (TypeError, "version=", lambda runs: runs.restart("f0", version=5)),
    (TypeError, "version=", lambda runs: runs.resume("f0", version=5)),
    (TypeError, "queue=", lambda runs: runs.fork("f0", queue=5)),
    (TypeError, "a step", lambda runs: runs.fork("f0", from_step=1.5)),
    (TypeError, "by its id", lambda runs: runs.audit(3)),
    (ValueError, "limit=", lambda runs: runs.audit(limit=-1)),
    (ValueError, "limit=", lambda runs: runs.audit(limit="x")),
    (TypeError, "children=", lambda runs: runs.export("f0", children="no")),
    (TypeError, "takes ids", lambda runs: runs.export(RunFilter())),
    (ValueError, "timeout=.*seconds or a timedelta", lambda runs: runs.set_timeout("f0", timeout="1h")),
    (ValueError, "without a name", lambda runs: runs.set_tags("f0", {"": 1})),
]


@pytest.mark.parametrize(("error", "text", "call"), WRONG)
def test_a_wrong_argument_is_named(
    error: type[Exception], text: str, call: Callable[[Runs], object], database_url: str
) -> None:
    """What cannot be meant is refused by the name of the argument, not by the driver or by Python."""
    with sync.Perdure(database_url, worker=False) as app:
        waits.options(id="f0").start(1)
        with pytest.raises(error, match=text):
            call(app.runs)


def test_wrong_options_and_handles_are_named(database_url: str) -> None:
    """An option that is none is named, with those that there are; an empty id has no handle."""
    anything: Any = waits.options
    with pytest.raises(TypeError, match=r"'idd'.*id, on_conflict"):
        anything(idd=1)
    with pytest.raises(ValueError, match="without a name"):
        waits.options(tags={"": 1})
    with sync.Perdure(database_url, worker=False) as app:
        for handle in (app.handle, waits.handle):
            with pytest.raises(ValueError, match="must not be empty"):
                handle("")
        with pytest.raises(ValueError, match="limit="):
            entities.history(Counter, "a", limit=-1)
        with pytest.raises(ValueError, match="the name of a topic"):
            sync.send("a", "", 1)


def test_an_export_of_nothing_can_be_loaded(database_url: str) -> None:
    """Of no ids the export is a document without runs."""
    with sync.Perdure(database_url, worker=False) as app:
        document = app.runs.export([])
        assert json.loads(document)["runs"] == []
        assert app.runs.load(document) == ()


def test_a_prefix_makes_no_ids_that_nobody_can_name(database_url: str) -> None:
    """A prefix with which an id is too long, or no text, is refused, and nothing is loaded."""
    with sync.Perdure(database_url, worker=False) as app:
        waits.options(id="f" * 500).start(1)
        document = app.runs.export("f" * 500)
        for prefix in ("copy-of-what-was-exported-", "\0"):
            with pytest.raises(ValueError, match="id of a run with its prefix"):
                app.runs.load(document, prefix=prefix)
        assert app.runs.count() == 1
        assert app.runs.load(document, prefix="copy-") == ("copy-" + "f" * 500,)
