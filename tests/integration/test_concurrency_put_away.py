"""Runs whose branches all wait are rows only, in races, maps and blocks with a time; and what wakes them counts."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure
from perdure import WaitTimeout, step, sync, workflow
from tests.api_tools import until

calls: list[str] = []
lives: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.policy.PUT_AWAY_AFTER", 0.05)
    calls.clear()
    lives.clear()


@step
async def once(text: str) -> str:
    calls.append(text)
    return text


@workflow
async def letter(topic: str) -> str:
    return str(await perdure.receive(topic))


@workflow
def letter_blocking(topic: str) -> str:
    return str(sync.receive(topic))


@workflow
async def waits(what: str) -> Any:
    lives.append(what)
    await once("before")
    match what:
        case "race":
            found = await perdure.race(perdure.sleep(60), perdure.receive("news"), perdure.receive("other"))
            return [found.which, found.value]
        case "map":
            return (await perdure.map_steps(letter, ["news", "news"], limit=2)).results
        case "gather":
            return list(await asyncio.gather(perdure.receive("news"), nested()))
        case _:
            try:
                async with perdure.timeout(60), perdure.timeout(1.5):
                    await perdure.receive("never")
            except WaitTimeout as error:
                return await once(str(error))


async def heat() -> list[Any]:
    """A race in a race."""
    return list(await perdure.race(perdure.receive("other"), perdure.sleep(60)))


async def nested() -> list[Any]:
    """A race of which one contestant is another one."""
    return list(await perdure.race(perdure.sleep(60), heat()))


@workflow
def waits_blocking(what: str) -> Any:
    lives.append(what)
    sync.run_step(once, "before")
    match what:
        case "race":
            found = sync.race(
                lambda: sync.sleep(60), lambda: sync.receive("news"), lambda: sync.receive("other")
            )
            return [found.which, found.value]
        case "map":
            return sync.map_steps(letter_blocking, ["news", "news"], limit=2).results
        case "gather":
            return sync.gather(lambda: sync.receive("news"), nested_blocking)
        case _:
            which = sync.race(lambda: sync.receive("never"), lambda: sync.sleep(1.5)).which
            return sync.run_step(once, "the block took longer than 1.5 s") if which else "never"


def heat_blocking() -> list[Any]:
    """A race in a race."""
    return list(sync.race(lambda: sync.receive("other"), lambda: sync.sleep(60)))


def nested_blocking() -> list[Any]:
    """A race of which one contestant is another one."""
    return list(sync.race(lambda: sync.sleep(60), heat_blocking))


RESULTS: dict[str, Any] = {
    "race": [1, "good"],
    "gather": ["good", [1, [0, "better"]]],
    "map": ["good", "good"],
    "time": "the block took longer than 1.5 s",
}


@pytest.mark.parametrize("target", [waits, waits_blocking], ids=["async", "blocking"])
@pytest.mark.parametrize("what", RESULTS)
def test_what_comes_while_all_branches_wait_is_found(target: Any, what: str, database_url: str) -> None:
    """The run is put away, woken by what it waits for, replayed, and ends as if it had stayed in memory."""
    with sync.Perdure(database_url) as app:
        handle = sync.start(target.options(id="the run"), what)
        until(lambda: handle.status() == "waiting")
        until(lambda: app.engine.executor.count == 0)
        if what == "map":
            for child in app.runs.list(
                workflow=(letter if target is waits else letter_blocking).definition.name
            ):
                sync.send(child.id, "news", "good")
        elif what != "time":
            sync.send("the run", "news", "good")
        if what == "gather":
            sync.send("the run", "other", "better")
        assert handle.result(timeout=20) == RESULTS[what]
    assert len(lives) > 1
    assert calls == (["before", RESULTS[what]] if what == "time" else ["before"])


@workflow
async def leaves_its_losers() -> str:
    await perdure.race(perdure.sleep(0.3), perdure.sleep(0.5), perdure.receive("news"))
    lives.append("decided")
    await perdure.sleep(60)
    return "never"


@workflow
def leaves_its_losers_blocking() -> str:
    sync.race(lambda: sync.sleep(0.3), lambda: sync.sleep(0.5), lambda: sync.receive("news"))
    lives.append("decided")
    sync.sleep(60)
    return "never"


@pytest.mark.parametrize("target", [leaves_its_losers, leaves_its_losers_blocking], ids=["async", "blocking"])
def test_the_waits_of_losers_wake_nobody(target: Any, database_url: str) -> None:
    """A run that sleeps after a race is not woken by what the losers waited for."""
    with sync.Perdure(database_url) as app:
        handle = sync.start(target)
        until(lambda: "decided" in lives)
        until(lambda: handle.status() == "waiting" and app.engine.executor.count == 0)
        before = list(lives)
        sync.send(handle.id, "news", "late")
        threading.Event().wait(1.5)  # longer than the losers' times, and than the poll
        assert handle.status() == "waiting"
        assert lives == before
