"""What was recorded once is replayed by every later version: the promise to runs that live for years."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from perdure.models import Kind
from perdure.testing import replay
from tests import golden
from tests.golden import code

HISTORIES: Final = sorted(Path(golden.__file__).parent.glob("*.json"))


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.stem)
def test_a_recorded_history_agrees_with_its_code(history: Path) -> None:
    found = replay(history)
    assert found
    for run in found:
        assert run.agrees, f"{run.id}: {run.text}"


def test_every_kind_of_record_is_among_them() -> None:
    kinds = {
        step["kind"]
        for history in HISTORIES
        for run in json.loads(history.read_bytes())["runs"]
        for step in run.get("steps", ())
    }
    assert kinds == {kind.name.lower() for kind in Kind}


def test_a_history_of_other_code_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    async def other(line: code.Line) -> None:
        await code.once(1)

    monkeypatch.setattr(code.sequence.definition, "function", other)
    (found,) = replay(Path(golden.__file__).parent / "sequence.json")
    assert not found.agrees
    assert "golden.once" in found.text
