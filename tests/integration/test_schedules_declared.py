"""What the code declares: checked where it is written, applied once, and not in the way of what is changed live."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import DefinitionError, Schedule, scheduled, workflow
from perdure.core.registry import schedules as declared
from tests.api_tools import rows
from tests.schedule_tools import (
    HOUR,
    LEASE,
    NOON,
    at_noon,
    away_at_noon,
    forgotten,
    hourly,
    note,
    until_ticks,
)


@pytest.fixture(autouse=True)
def nothing_stays_declared() -> Iterator[None]:
    with forgotten():
        yield


@dataclass
class Part:
    """An argument with a type of its own."""

    number: int


def times(app: perdure.sync.Perdure, name: str) -> tuple[str | None, str]:
    info = app.schedules.get(name)
    return info.cron, info.overlap


def test_declared_workflows_run_in_both_colours(database_url: str) -> None:
    """`@scheduled` returns the workflow unchanged; a worker that opens declares it, with typed arguments."""

    @scheduled("0 13 * * *", name="a", args=(Part(1),))
    @scheduled("0 14 * * *", name="b", kwargs={"part": Part(2)})
    @workflow(name="declared.async_one")
    async def async_one(part: Part) -> str:
        at = perdure.info().scheduled_at
        return f"{part.number} at {at:%H:%M}"

    @scheduled(every=HOUR, name="c")
    @workflow(name="declared.blocking_one")
    def blocking_one() -> str:
        return f"{perdure.info().scheduled_at:%H:%M}"

    assert type(async_one).__name__ == "AsyncWorkflow"
    with at_noon(database_url) as (app, clock):
        # it was opened before the time was the test's: declared anew, it counts from noon
        for name in ("a", "b", "c"):
            app.schedules.delete(name)
        assert app.schedules.apply() == ("a", "b", "c")
        clock.advance(HOUR)
        until_ticks(database_url, "13:00", name="a")
        until_ticks(database_url, "13:00", name="c")
        assert app.handle("a@2026-03-02T13:00:00Z").result(timeout=20) == "1 at 13:00"
        assert app.handle("c@2026-03-02T13:00:00Z").result(timeout=20) == "13:00"
        clock.advance(HOUR)
        until_ticks(database_url, "14:00", name="b")
        assert app.handle("b@2026-03-02T14:00:00Z").result(timeout=20) == "2 at 14:00"
        until_ticks(database_url, "13:00", "14:00", name="c")
        assert blocking_one.handle("c@2026-03-02T14:00:00Z").result(timeout=20) == "14:00"


def test_clients_declare_nothing(database_url: str) -> None:
    """An app that runs nothing leaves the schedules alone when it is opened."""
    scheduled("0 * * * *", name="mine")(note)
    with perdure.sync.Perdure(database_url, worker=False) as app:
        assert app.schedules.list() == []
        with perdure.sync.Perdure(database_url, grace=0):
            assert [info.name for info in app.schedules.list()] == ["mine"]


def test_what_was_changed_live_stays_until_the_code_says_otherwise(database_url: str) -> None:
    """A restart with the same code keeps it, one with other code does not; what the code forgets stays."""

    def deploy(**how: Any) -> None:
        declared.clear()
        scheduled(**how, name="job")(note)
        with perdure.sync.Perdure(database_url, grace=0):
            pass

    with perdure.sync.Perdure(database_url, worker=False) as app:
        deploy(cron="0 1 * * *")
        assert times(app, "job") == ("0 1 * * *", "skip")
        app.schedules.update("job", cron="0 2 * * *")
        deploy(cron="0 1 * * *")
        assert times(app, "job") == ("0 2 * * *", "skip")
        deploy(cron="0 1 * * *", overlap="allow")
        assert times(app, "job") == ("0 1 * * *", "allow")
        declared.clear()
        with perdure.sync.Perdure(database_url, grace=0):
            pass
        assert times(app, "job") == ("0 1 * * *", "allow")


def test_a_pause_survives_another_declaration(database_url: str) -> None:
    """Only a declaration that says something else of the pause itself ends it."""
    with away_at_noon(database_url) as (app, _):
        app.schedules.apply(hourly())
        app.schedules.pause("hourly", "for now")
        app.schedules.apply(hourly(overlap="allow"))
        info = app.schedules.get("hourly")
        assert (info.overlap, info.paused, info.note) == ("allow", True, "for now")
        app.schedules.apply(hourly(overlap="allow", paused=True))
        app.schedules.apply(hourly(overlap="allow"))
        assert not app.schedules.get("hourly").paused


def test_a_tick_that_is_due_survives_another_declaration(database_url: str) -> None:
    """Only another timing counts from now; other arguments do not lose the tick that nobody has taken yet."""
    with away_at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(), hourly(name="other"))
        clock.advance(1.5 * HOUR)
        assert app.schedules.apply(hourly(args=("new ",))) == ("hourly",)
        app.schedules.apply(Schedule(note, "45 * * * *", name="other"))
        assert app.schedules.get("other").next == NOON + 1.75 * HOUR
        with perdure.sync.Perdure(database_url, grace=0, lease=LEASE):
            until_ticks(database_url, "13:00")
            assert app.handle("hourly@2026-03-02T13:00:00Z").result(timeout=20) == "new 13:00"


def test_edits_change_what_they_name(database_url: str) -> None:
    """Everything else stays; interval and expression replace each other."""
    with at_noon(database_url) as (app, clock):
        app.schedules.apply(hourly(priority=3, tags={"team": "a"}, timeout=60, jitter=5))
        app.schedules.update("hourly", timezone="Asia/Kathmandu", priority=0, queue="q", catch_up=None)
        info = app.schedules.get("hourly")
        assert (info.cron, info.timezone, info.queue) == ("0 * * * *", "Asia/Kathmandu", "q")
        assert info.options == {"tags": {"team": "a"}, "timeout": 60}
        assert info.next == NOON + timedelta(minutes=15)
        app.schedules.update("hourly", every=1800, queue=None, jitter=0)
        info = app.schedules.get("hourly")
        assert (info.cron, info.every, info.next) == (None, HOUR / 2, NOON + HOUR / 2)
        app.schedules.update("hourly", cron="0 9 * * *", timezone="UTC", args=("nine ",))
        assert app.schedules.get("hourly").every is None
        clock.advance(21 * HOUR)
        until_ticks(database_url, "09:00")
        run = app.handle("hourly@2026-03-03T09:00:00Z")
        assert run.result(timeout=20) == "nine 09:00"
        assert run.describe().tags == {"team": "a"}
        ((detail,),) = rows(database_url, "select detail from perdure.audit order by number limit 1")
        assert detail == {"fields": ["catch_up", "priority", "queue", "timezone"]}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"cron": "nonsense"}, ValueError),
        ({"timezone": "Mars/Base"}, ValueError),
        ({"overlap": "maybe"}, ValueError),
        ({"jitter": -1}, ValueError),
        ({"args": (1, 2, 3)}, TypeError),
        ({"args": (1,)}, perdure.SerializationError),
        ({"workflow": "other"}, TypeError),
        ({}, TypeError),
    ],
)
def test_an_edit_that_cannot_be_changes_nothing(
    database_url: str, changes: dict[str, Any], error: type[Exception]
) -> None:
    """It raises in the caller."""
    with away_at_noon(database_url) as (app, _):
        app.schedules.apply(hourly())
        before = app.schedules.get("hourly")
        with pytest.raises(error):
            app.schedules.update("hourly", **changes)
        assert app.schedules.get("hourly") == before


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "0 2 * * *", "timezone": "Europe/Atlantis"}, "no time zone"),
        ({"cron": "0 2 * * *", "every": 60}, "not both"),
        ({}, "not both"),
        ({"every": 0.5}, "between a second"),
        ({"every": 60, "anchor": datetime.fromisoformat("2026-01-01")}, "aware"),
        ({"cron": "0 2 * * *", "overlap": "never"}, "overlap="),
        ({"cron": "0 2 * * *", "args": (1, 2, 3)}, "takes from 0 to 1 positional arguments but 3 were given"),
        ({"cron": "0 2 * * *", "kwargs": {"wrod": "x"}}, "'wrod'"),
        ({"cron": "0 2 * * *", "args": (7,)}, "word"),
        ({"cron": "0 2 * * *", "name": ""}, "empty"),
        ({"cron": "0 2 * * *", "name": "x" * 401}, "the most is 400"),
        ({"cron": "0 2 * * *", "catch_up": -5}, "catch_up="),
        ({"cron": "0 2 * * *", "priority": 2**40}, "priority="),
        ({"cron": "0 2 * * *", "tags": {"a": float("nan")}}, "tags="),
        ({"cron": "0 2 * * *", "tomorrow": True}, "tomorrow"),
    ],
)
def test_a_wrong_declaration_fails_where_it_stands(how: dict[str, Any], text: str) -> None:
    """With the name of the workflow, and what is wrong."""
    with pytest.raises(DefinitionError, match=f"schedule_tools.note: .*{text}"):
        scheduled(**how)(note)


def test_names_are_taken_once() -> None:
    """Two schedules of one workflow need names; two workflows cannot share one."""
    scheduled("0 1 * * *")(note)
    with pytest.raises(DefinitionError, match="give them names"):
        scheduled("0 2 * * *")(note)
    with pytest.raises(DefinitionError, match="two schedules are called"):
        scheduled("0 2 * * *", name=note.definition.name)(other)
    with pytest.raises(DefinitionError, match="above @workflow"):
        scheduled("0 2 * * *")(len)  # type: ignore[type-var]  # on purpose


@workflow
def other() -> None: ...


class Shop:
    """Its methods are workflows."""

    def __init__(self, name: str) -> None:
        self.name = name

    @workflow
    @classmethod
    def of_all(cls) -> str:
        return cls.__name__

    @workflow
    def of_one(self, word: str) -> str:
        return f"{word} {self.name}"


def test_methods_are_scheduled(database_url: str) -> None:
    """A class method by declaration; that of an instance by `apply`, since only an app knows its name."""
    scheduled("0 * * * *", name="all")(Shop.of_all)
    with pytest.raises(DefinitionError, match="method of instances"):
        scheduled("0 * * * *")(Shop.of_one)
    shop = Shop("Lisbon")
    with at_noon(database_url, instances={"lisbon": shop}) as (app, _):
        app.schedules.apply(Schedule(shop.of_one, "0 * * * *", name="one", args=("hello",)))
        one, every = app.schedules.trigger("one"), app.schedules.trigger("all")
        assert one is not None
        assert every is not None
        assert one.result(timeout=20) == "hello Lisbon"
        assert every.result(timeout=20) == "Shop"
        with pytest.raises(ValueError, match="two schedules"):
            app.schedules.apply(hourly(), hourly())


def test_a_workflow_can_be_scheduled_without_its_code(database_url: str) -> None:
    """By its stored name, with plain arguments; a worker that has the code runs it."""
    with at_noon(database_url) as (app, _):
        app.schedules.apply(Schedule("elsewhere.job", "0 * * * *", args=(1, "x"), queue="far"))
        app.schedules.trigger("elsewhere.job")
        ((input, queue),) = rows(database_url, "select input, queue from perdure.run_list")
        assert (input, queue) == ({"args": [1, "x"]}, "far")


def test_many_declare_at_a_time(database_url: str) -> None:
    """Four apps with two hundred schedules each: every one is there once, as it was declared."""
    plans = [hourly(name=f"s{number:03}") for number in range(200)]
    told: list[tuple[str, ...]] = []
    with away_at_noon(database_url) as (app, _):
        ready = threading.Barrier(4)

        def declare() -> None:
            with perdure.sync.Perdure(database_url, worker=False) as mine:
                ready.wait(20)
                told.append(mine.schedules.apply(*plans))

        threads = [threading.Thread(target=declare) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(name for names in told for name in names) == [f"s{number:03}" for number in range(200)]
        assert {info.next for info in app.schedules.list()} == {NOON + HOUR}


def test_no_time_at_all_is_not_for_ever() -> None:
    """`expires=0` and `timeout=0` mean what they say, as at any start; a priority of 0 is the usual one."""
    assert hourly(expires=0, timeout=0, priority=0).plan().options == {"expires": 0, "timeout": 0}


def test_a_schedule_starts_as_a_start_does(database_url: str) -> None:
    """Its runs have timeout, expiry, version, queue, key, tags and priority, and what middleware sends along."""

    class Tenants(perdure.Middleware):
        def start(self, start: perdure.StartInfo) -> None:
            start.context["tenant"] = f"of {start.workflow.rpartition('.')[2]}"

    with at_noon(database_url, middleware=[Tenants()]) as (app, clock):
        app.schedules.apply(
            hourly(queue="q", key="k", priority=-2, expires=300, timeout=600, version="7", tags={"a": 1}),
            Schedule(limited, "0 * * * *", name="limited", queue="q"),
        )
        clock.advance(HOUR)
        until_ticks(database_url, "13:00")
        until_ticks(database_url, "13:00", name="limited")
        found = rows(
            database_url,
            "select l.queue, q.queue_key, r.queue_key, l.priority, l.version, l.tags, q.expires, l.deadline, r.context"
            " from perdure.run_list l join perdure.runs r using (key) join perdure.live q using (key) order by l.id",
        )
        one, minute = NOON + HOUR, timedelta(minutes=1)
        assert found == [
            ("q", "k", "k", -2, "7", {"a": 1}, one + 5 * minute, one + 10 * minute, {"tenant": "of note"}),
            ("q", "", None, 0, None, None, None, one + 5 * minute, {"tenant": "of limited"}),
        ]


@workflow(timeout=300)
def limited() -> None: ...
