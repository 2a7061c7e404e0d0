"""Documents that were spoilt: each is refused with a ValueError that says what is wrong, and nothing of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perdure import step, sync, workflow
from perdure.testing import replay
from tests.api_tools import rows

Change = Callable[[dict[str, Any]], Any]
TABLES = ("runs", "live", "ends", "steps", "messages", "events", "streams", "waits", "intents", "audit")


@step(name="damage.note")
async def note(text: str) -> str:
    return text


@workflow(name="damage.child")
async def child(text: str) -> str:
    return await note(text)


@workflow(name="damage.parent")
async def parent(text: str) -> str:
    await note(text)
    return await child.options(id="child")(text)


def exported(url: str) -> dict[str, Any]:
    """What a parent and its child have left, which are gone."""
    with sync.Perdure(url) as app:
        app.start(parent.definition.name, ["x"], id="r").result(timeout=30)
        document: dict[str, Any] = json.loads(app.runs.export("r"))
        assert app.runs.delete("r") == 1
    rows(url, "delete from perdure.audit")
    return document


def unended(document: dict[str, Any], **state: Any) -> None:
    document["runs"][0].pop("end")
    document["runs"][0]["state"] = {"status": "waiting", **state}


def root(document: dict[str, Any], **fields: Any) -> None:
    document["runs"][0].update(fields)


def past(document: dict[str, Any]) -> None:
    unended(document)
    root(document, superseded=True)


def circle(document: dict[str, Any]) -> None:
    one, two = document["runs"]
    one["parent"], two["parent"] = two["key"], one["key"]


def went_on(document: dict[str, Any], key: Any) -> None:
    document["runs"][0]["end"].update(status="continued", value=key)


DAMAGE: dict[str, tuple[Change, str]] = {
    "a reason to stop that is none": (lambda d: unended(d, cancel=99), "99"),
    "a negative reason to stop": (lambda d: unended(d, cancel=-1), "-1"),
    "an end that is none": (lambda d: d["runs"][0]["end"].update(status="running"), "running"),
    "a state that is an end": (lambda d: unended(d, status="failed"), "no end"),
    "a state of nonsense": (lambda d: unended(d, status="nonsense"), "nonsense"),
    "a state and an end": (lambda d: root(d, state={"status": "waiting"}), "state or an end"),
    "no state and no end": (lambda d: d["runs"][0].pop("end"), "state or an end"),
    "a past life that goes on": (past, "another's"),
    "its own parent": (lambda d: root(d, parent=d["runs"][0]["key"]), "ancestors"),
    "parents in a circle": (circle, "ancestors"),
    "going on as itself": (lambda d: went_on(d, int(d["runs"][0]["key"])), "as itself"),
    "going on as nobody": (lambda d: went_on(d, 12), "not in the export"),
    "going on as another's": (lambda d: went_on(d, int(d["runs"][1]["key"])), "not in the export"),
    "a key twice": (lambda d: d["runs"].append({**d["runs"][0], "id": "other"}), "duplicate"),
    "an id twice": (lambda d: d["runs"].append({**d["runs"][0], "key": "7"}), "duplicate"),
    "an id of nothing": (lambda d: root(d, id=""), "empty"),
    "an id with NUL": (lambda d: root(d, id="a\0b"), "NUL"),
    "an id without an end": (lambda d: root(d, id="a" * 20_000), "characters"),
    "a position without an end": (
        lambda d: d["runs"][0]["steps"][0].update(position="".join(map(str, range(9000)))),
        "index row",
    ),
    "no workflow": (lambda d: root(d, workflow=""), "empty"),
    "a priority too large": (lambda d: unended(d, priority=2**40), "out of range"),
    "a negative group": (lambda d: d["runs"][0]["steps"][0].update(group=-5), "-5"),
    "a payload too deep": (
        lambda d: json.dumps(d).replace('"x"', "[" * 200_000 + "]" * 200_000, 1),
        "recursion",
    ),
    "a format of the past": (lambda d: d.update(perdure=0), "format 0"),
}


def test_a_spoilt_document_is_refused_whole(database_url: str) -> None:
    good = exported(database_url)
    with sync.Perdure(database_url, worker=False) as app:
        for name, (change, told) in DAMAGE.items():
            document = json.loads(json.dumps(good))
            changed = change(document)
            text = changed if isinstance(changed, str) else json.dumps(document)
            with pytest.raises(ValueError, match=told):
                app.runs.load(text)
            for table in TABLES:
                assert rows(database_url, f"select 1 from perdure.{table}") == [], (name, table)
        assert set(app.runs.load(json.dumps(good))) == {"r", "child"}


def test_a_start_that_recorded_nothing_is_loaded_as_it_is(database_url: str) -> None:
    """What a step was told is its code's business: a replay says so, a load does not fall over it."""
    good = exported(database_url)
    (start,) = [told for told in good["runs"][0]["steps"] if told["kind"] == "start"]
    start["value"] = []
    with sync.Perdure(database_url, worker=False) as app:
        assert set(app.runs.load(json.dumps(good))) == {"r", "child"}


def test_a_document_too_deep_is_not_replayed_either() -> None:
    text = (
        '{"perdure":1,"realm":"x","exported":"2026-01-01T00:00:00Z","runs":'
        + "[" * 200_000
        + "]" * 200_000
        + "}"
    )
    with pytest.raises(ValueError, match="recursion"):
        replay(text)
