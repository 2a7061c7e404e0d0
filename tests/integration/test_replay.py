"""Replaying what is recorded against today's code: what agrees, what diverges first, and that nothing is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import Perdure, Retry, RunFilter, Topic, sync, workflow
from perdure.core.registry import workflows
from tests.api_tools import on_loop, rows, until

words = Topic("words", str)
calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@perdure.step(retry=Retry(max_attempts=2, delay=0))
async def one(text: str) -> str:
    calls.append(text)
    if text == "bad":
        raise LookupError(text)
    return text.upper()


@perdure.step
def one_blocking(text: str) -> str:
    calls.append(text)
    return text.upper()


@workflow(name="replay.child")
async def child(text: str) -> str:
    return await one(text)


async def everything(text: str) -> str:
    """Every durable call there is, and a message to wait for at the end."""
    perdure.now()
    chosen = perdure.random().choice(["x", "y", "z"])
    first = await one(text + chosen)
    both = await asyncio.gather(one("left"), one("right"), child("born"))
    try:
        await one("bad")
    except LookupError:
        await perdure.set_event("trouble", 1)
    if perdure.patched("newer"):
        await perdure.sleep(0.01)
    started = await child.options(id=f"named-{perdure.uuid4()}").start("named")
    await started.result()
    await perdure.write_stream("log", first)
    async with asyncio.TaskGroup() as group:
        group.create_task(one("grouped"))
    return "".join((*both, await perdure.receive(words)))


def everything_blocking(text: str) -> str:
    sync.now()
    chosen = sync.random().choice(["x", "y", "z"])
    one_blocking(text + chosen)
    sync.gather(lambda: one_blocking("left"), lambda: one_blocking("right"))
    sync.sleep(0.01)
    return sync.receive(words)


def define(code: Callable[..., Any], name: str = "replay.main") -> Any:
    """The workflow of this name, as it is today."""
    workflows.pop(name, None)
    return workflow(name=name)(code)


def fingerprint(url: str) -> list[Any]:
    tables = ("runs", "live", "steps", "waits", "intents", "ends", "messages", "events", "streams", "audit")
    return [
        rows(url, f"select md5(string_agg(t::text, '' order by t::text)) from perdure.{table} t")
        for table in tables
    ]


@pytest.mark.parametrize("code", [everything, everything_blocking])
def test_a_run_that_waits_agrees_with_its_code_and_is_not_disturbed(code: Any, database_url: str) -> None:
    main = define(code)
    with sync.Perdure(database_url) as app:
        handle = app.start(main.definition.name, ["a"], id="r")
        until(lambda: handle.status() == "waiting")
        before, ran = fingerprint(database_url), list(calls)
        (found,) = app.runs.replay("r")
        assert found.agrees, found.text
        assert "goes on with message 'words'" in found.text
        assert fingerprint(database_url) == before
        assert calls == ran
        handle.send(words, "!")
        handle.result(timeout=30)
        for done in app.runs.replay(RunFilter()):
            assert done.agrees, done
            assert "ends as succeeded" in done.text
        assert calls == ran


async def without_gather(text: str) -> str:
    perdure.now()
    await one(text)
    await one("left")
    return await perdure.receive(words)


async def shorter(text: str) -> str:
    await one(text)
    return "done"


async def returns(text: str) -> str:
    perdure.now()
    return text


async def renamed(text: str) -> str:
    return await child(text)


async def stuck(text: str) -> str:
    await asyncio.Event().wait()
    return text


async def crashes(text: str) -> str:
    raise ZeroDivisionError(text)


@pytest.mark.parametrize(
    ("changed", "words_of_it"),
    [
        (without_gather, ["test_replay.one' at position 3", "start 'replay.child' at position 3/1"]),
        (shorter, ["test_replay.one' at position 1", "clock 'now' at position 1"]),
        (renamed, ["start 'replay.child' at position 1", "clock 'now'"]),
        (returns, ["returned", "record goes on with", "position 2"]),
        (stuck, ["no durable call", "record goes on with", "position 2"]),
        (crashes, ["ZeroDivisionError", "record goes on with"]),
    ],
)
def test_the_first_divergence_is_told(changed: Any, words_of_it: list[str], database_url: str) -> None:
    main = define(everything)
    with sync.Perdure(database_url) as app:
        handle = app.start(main.definition.name, ["a"], id="r")
        until(lambda: handle.status() == "waiting")
        define(changed)
        (found,) = app.runs.replay("r", within=5)
        assert not found.agrees
        for word in words_of_it:
            assert word in found.text, found.text
        define(everything)
        assert app.runs.replay("r")[0].agrees


@on_loop
async def test_code_that_is_not_here_and_runs_that_ended_otherwise(database_url: str) -> None:
    async with Perdure(database_url) as app:
        await app.start("nowhere", id="n")
        (found,) = await app.runs.replay("n")
        assert (found.agrees, "not here" in found.text) == (False, True)
        main = define(shorter)
        assert await main.options(id="s")("a") == "done"

        async def longer(text: str) -> str:
            await one(text)
            return await one("more")

        define(longer)
        (found,) = await app.runs.replay("s")
        assert not found.agrees
        assert "succeeded after 1 record" in found.text
        assert calls == ["a"]


@on_loop
async def test_a_failed_run_agrees_with_the_code_that_mends_it(database_url: str) -> None:
    async def fails(text: str) -> str:
        await one(text)
        raise ValueError(text)

    async def mended(text: str) -> str:
        await one(text)
        return await one("more")

    async with Perdure(database_url) as app:
        main = define(fails)
        with pytest.raises(ValueError, match="a"):
            await main.options(id="f")("a")
        define(mended)
        (found,) = await app.runs.replay(status="failed")
        assert found.agrees, found.text
        assert "goes on with step" in found.text


def test_a_thousand_runs_are_replayed_in_some_seconds_with_progress(database_url: str) -> None:
    main = define(shorter)
    with sync.Perdure(database_url) as app:
        for number in range(3):
            app.start(main.definition.name, ["a"], id=f"r{number}").result(timeout=30)
        rows(
            database_url,
            "with more as (insert into perdure.runs (key, id, workflow, input) select -n, 'm' || n, r.workflow, r.input"
            " from perdure.runs r, generate_series(1, 1000) n where r.id = 'r0' returning key),"
            " told as (insert into perdure.steps select more.key, s.position, s.grp, s.ord, s.kind, s.name, s.failed,"
            " s.value, s.attempts, s.seconds, s.worker from more, perdure.steps s join perdure.runs r on r.key = s.run"
            " where r.id = 'r0') insert into perdure.ends (key, status, value) select key, 7, 'null' from more",
        )
        told: list[int] = []
        found = app.runs.replay(RunFilter(), progress=told.append)
        assert len(found) == 1003
        assert {one.text for one in found} == {"agrees with 1 records, then ends as succeeded"}
        assert told[-1] == 1003
