"""Why a run does not go on, in one line, in every state in which it can be."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import perdure
from perdure import sync, workflow
from tests.api_tools import rows, until

go = threading.Event()
entered = threading.Event()


@workflow
async def sleeps() -> None:
    await perdure.sleep(3600)


@workflow
async def listens() -> None:
    await perdure.receive("approval", timeout=86400)


@workflow
async def asked() -> None:
    async for request in perdure.updates("price"):
        await request.reply(1)


@workflow
async def awaits(id: str) -> None:
    await listens.options(id=id)()


@workflow
async def hears(id: str) -> None:
    await perdure.get_event(id, "ready")


@perdure.step
def busy_step() -> None:
    entered.set()
    go.wait(30)


@workflow
def busy() -> None:
    busy_step()


def why(app: sync.Perdure, id: str) -> str:
    return app.handle(id).describe().why or ""


def says(app: sync.Perdure, id: str, *words: str) -> None:
    until(lambda: all(word in why(app, id) for word in words))


@pytest.mark.parametrize(
    ("code", "args", "words"),
    [
        (sleeps, [], ["asleep until", "UTC"]),
        (listens, [], ["message on topic 'approval'", "until"]),
        (asked, [], ["update 'price'"]),
        (awaits, ["the-child"], ["end of run the-child"]),
    ],
)
def test_what_it_waits_for(code: Any, args: list[str], words: list[str], database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        app.start(code.definition.name, args, id="r")
        says(app, "r", *words)
        assert app.runs.get("r").info.why == why(app, "r")
        assert app.runs.list()[0].why is None


def test_an_event_of_another_run(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        app.start(sleeps.definition.name, id="other")
        app.start(hears.definition.name, ["other"], id="r")
        says(app, "r", "event 'ready' of run other")


def test_who_runs_it_and_that_it_has_ended(database_url: str) -> None:
    go.clear()
    with sync.Perdure(database_url, name="anna") as app:
        handle = app.start(busy.definition.name, id="r")
        assert entered.wait(30)
        says(app, "r", "runs on worker", "anna")
        handle.cancel()
        says(app, "r", "told to stop")
        go.set()
        until(lambda: handle.describe().status.final)
        assert handle.describe().why is None


@pytest.mark.parametrize(
    ("worker", "options", "words"),
    [
        (None, {}, ["none is alive"]),
        ({"listen": ["mail"]}, {}, ["serves queue 'default'", "none does"]),
        ({"version": "2"}, {"version": "1"}, ["version '1'", "alive are 2"]),
        ({}, {}, ["free place", "nowhere.to_be_found"]),
        ({}, {"delay": 3600}, ["begins at"]),
    ],
)
def test_why_nobody_takes_it(
    worker: dict[str, Any] | None, options: dict[str, Any], words: list[str], database_url: str
) -> None:
    with sync.Perdure(database_url, worker=False) as app:
        app.start("nowhere.to_be_found", id="r", **options)
        if worker is None:
            says(app, "r", *words)
        else:
            with sync.Perdure(database_url, **worker):
                says(app, "r", *words)


def test_a_suspect_and_a_dead_owner(database_url: str) -> None:
    with sync.Perdure(database_url, worker=False) as app, sync.Perdure(database_url):
        app.start("nowhere.to_be_found", id="r")
        rows(database_url, "update perdure.live set recoveries = 2")
        says(app, "r", "suspected of killing")
    with sync.Perdure(database_url, worker=False) as app:
        rows(database_url, "update perdure.live set status = 3, worker = 4711")
        says(app, "r", "worker 4711 is dead")
        rows(database_url, "update perdure.live set status = 6, worker = null, reason = 'no such code'")
        assert why(app, "r") == "parked: no such code"
