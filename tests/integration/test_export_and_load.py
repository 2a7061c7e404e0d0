"""Runs as JSON: exported with all that is recorded, read back, loaded elsewhere, and gone on with there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Perdure, Topic, WorkflowConflict, WorkflowNotFound, step, sync, workflow
from perdure.store import archive
from tests import golden
from tests.api_tools import on_loop, rows, until, until_true
from tests.servers import TestServer

words = Topic("words", str)
HISTORIES = sorted(Path(golden.__file__).parent.glob("*.json"))
calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@step
async def note(text: str) -> dict[str, Any]:
    calls.append(text)
    return {"text": text, "$base64": "not really"}


@workflow
async def small(text: str) -> str:
    await note(text)
    return text


@workflow
async def talker(text: str) -> list[str]:
    chosen = perdure.random().choice(["x", "y", "z"])
    await note(text + chosen)
    await small.options(id=f"{text}-child")("child")
    await perdure.set_event("so far", 1)
    await perdure.write_stream("log", "line")
    heard = [await perdure.receive(words)]
    heard.append(await perdure.receive(words))
    return [*heard, perdure.random().choice(["x", "y", "z"]), str(perdure.uuid4())]


@workflow
async def counts(left: int) -> str:
    if left:
        await perdure.continue_as_new(left - 1)
    return "done"


def document(text: bytes) -> Any:
    """An export without what differs from run to run."""
    return json.loads(text)


@on_loop
async def test_a_waiting_tree_goes_on_in_another_database(server: TestServer, database_url: str) -> None:
    other = server.create_database()
    async with Perdure(database_url) as here:
        handle = await talker.options(id="t", tags={"shop": 1}).start("a")
        await handle.send(words, "one")
        await until_true(lambda: _waits(handle))
        text = await here.runs.export("t")
        await handle.send(words, "two")
        expected = await handle.result(timeout=30)
    ran = list(calls)
    async with Perdure(other) as there:
        await talker.options(id="unrelated").start("b")
        assert set(await there.runs.load(text, reason="to look at")) == {"t", "a-child"}
        info = await there.handle("t").describe()
        assert (info.status, info.tags) == ("parked", {"shop": 1})
        assert "loaded" in (info.why or "")
        assert (await there.handle("a-child").describe()).parent == "t"
        (found,) = await there.runs.replay("t")
        assert found.agrees, found.text
        await there.handle("t").send(words, "two")
        assert await there.runs.resume("t") == 1
        assert await there.handle("t").result(timeout=30) == expected  # chance too: the seed came along
        assert [call for call in calls if call not in ("by", "bx", "bz", "child")] == [
            c for c in ran if c != "child"
        ]
        assert await there.handle("t").get_event("so far", timeout=5) == 1
        stream = [item async for item in there.handle("t").stream("log")]
        assert len(stream) == 1
        assert [note.verb for note in await there.runs.audit("t")] == ["resume", "load"]


async def _waits(handle: perdure.Handle[Any]) -> bool:
    return await handle.status() == "waiting"


def test_what_is_loaded_is_exported_the_same(server: TestServer, database_url: str) -> None:
    other = server.create_database()
    with sync.Perdure(database_url) as here:
        here.start(talker.definition.name, ["a"], id="t", queue="default", key="acme").send(words, "one")
        until(lambda: here.handle("t").status() == "waiting")
        here.start(counts.definition.name, [3], id="c").result(timeout=30)
        first = here.runs.export(["t", "c"])
    with sync.Perdure(other, worker=False) as there:
        there.runs.load(first)
        second = there.runs.export(["t", "c"])
        there.runs.load(first, prefix="again-")
        assert there.runs.count(prefix="again-") == 3
    keyed = (
        "select r.queue_key, l.queue_key from perdure.runs r join perdure.live l using (key) order by r.id"
    )
    assert rows(other, keyed) == [("acme", "acme")] * 2
    assert _comparable(second) == _comparable(first)
    assert [run["seed"] for run in json.loads(second)["runs"]] == [
        run["seed"] for run in json.loads(first)["runs"]
    ]


def _comparable(text: bytes) -> Any:
    """Without keys, numbers of messages and the state, which are given anew."""
    found = json.loads(text)
    keys = {run["key"]: f"9000{place}" for place, run in enumerate(found["runs"])}
    shown = json.dumps(found["runs"])
    for key, name in keys.items():
        shown = shown.replace(key, name)
    runs = json.loads(shown)
    for run in runs:
        run.pop("state", None)
        run.pop("seed")
        for message in run.get("messages", ()):
            message.pop("number")
        for told in run.get("steps", ()):
            told.pop("message", None)
    return runs


def test_an_export_says_what_it_is_and_reads_as_json(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        app.start(small.definition.name, ["a"], id="s").result(timeout=30)
        export = json.loads(app.runs.export("s"))
        (run,) = export["runs"]
        assert export["perdure"] == archive.FORMAT
        assert (run["id"], run["end"]["status"], run["input"]) == ("s", "succeeded", {"args": ["a"]})
        assert run["end"]["value"] == "a"
        (told,) = run["steps"]
        assert (told["kind"], told["position"]) == ("step", "1")
        app.runs.export("s", children=False)
        with pytest.raises(WorkflowNotFound):
            app.runs.export(["s", "nobody"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"perdure": 1}',
        '{"perdure": 99, "runs": []}',
        '{"perdure": 1, "realm": "x", "exported": "2026-01-01T00:00:00Z", "runs": [{"id": 5}]}',
    ],
)
def test_what_is_no_export_is_refused_and_nothing_is_loaded(text: str, database_url: str) -> None:
    with sync.Perdure(database_url, worker=False) as app:
        with pytest.raises(ValueError, match=r"export|format"):
            app.runs.load(text)
        assert app.runs.count() == 0


def test_ids_that_are_taken_load_nothing(database_url: str) -> None:
    with sync.Perdure(database_url) as app:
        app.start(small.definition.name, ["a"], id="s").result(timeout=30)
        app.start(small.definition.name, ["b"], id="q").result(timeout=30)
        text = app.runs.export(["s", "q"])
        app.runs.delete("q")
        with pytest.raises(WorkflowConflict, match="'s'"):
            app.runs.load(text)
        assert app.runs.count() == 1
        assert set(app.runs.load(text, prefix="x")) == {"xs", "xq"}
        assert rows(database_url, "select count(*) from perdure.runs") == [(3,)]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.stem)
def test_what_an_earlier_version_exported_is_loaded_and_exported_the_same(
    history: Path, database_url: str
) -> None:
    """The format is stable: the files of tests/golden are never written again."""
    text = history.read_bytes()
    with sync.Perdure(database_url, worker=False) as app:
        app.runs.load(text)
        assert _comparable(app.runs.export(history.stem)) == _comparable(text)


@pytest.mark.parametrize(
    "payload", [b"1", b'{"$base64": 5}', b'{"a":{"$base64":"QQ=="}}', b"\xff\x00", b"", b'"text $base64"']
)
def test_a_payload_comes_back_byte_by_byte(payload: bytes) -> None:
    assert archive.stored(archive.shown(payload)) == payload
