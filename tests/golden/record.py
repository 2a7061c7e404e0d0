"""Record histories: `python -m tests.golden.record [NAME]...`; one that is there is never recorded again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from perdure import sync
from tests.api_tools import until
from tests.golden import code
from tests.servers import start_server

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
Play = Callable[[sync.Perdure, Any], None]


def ends(_app: sync.Perdure, handle: Any) -> None:
    """To its end, whatever that is."""
    until(lambda: handle.status().final)


def waits(_app: sync.Perdure, handle: Any) -> None:
    """Until it waits."""
    until(lambda: handle.status() == "waiting")


def talks(_app: sync.Perdure, handle: Any) -> None:
    """One word and one question; the second word does not come."""
    handle.send(code.words, "one")
    assert handle.update("ask", "what", type=str, timeout=30) == "WHAT"
    until(lambda: handle.status() == "waiting")


def is_cancelled(_app: sync.Perdure, handle: Any) -> None:
    """Told to stop while it sleeps."""
    until(lambda: handle.status() == "waiting")
    handle.cancel()
    ends(_app, handle)


PLAYS: Final[dict[str, tuple[Any, list[Any], Play]]] = {
    "sequence": (code.sequence, [{"sku": "a", "price": "1.50", "tags": ["x"]}], ends),
    "branches": (code.branches, [4], ends),
    "talking": (code.talking, ["t"], talks),
    "undone": (code.undone, ["u"], ends),
    "cancelled": (code.cancelled, ["c"], is_cancelled),
    "onward": (code.onward, [2], ends),
    "blocking": (code.blocking, ["b"], waits),
    "tagging": (code.tagging, ["new"], ends),
}


def main(names: list[str]) -> None:
    """Record what is asked for, or everything that is not there."""
    server = start_server(18)
    try:
        with sync.Perdure(server.create_database()) as app:
            for name in names or PLAYS:
                file = HERE / f"{name}.json"
                if file.exists():
                    continue
                definition, args, play = PLAYS[name]
                given = [code.Line("a", Decimal("1.50"), {"x"})] if name == "sequence" else args
                handle = app.start(definition.definition.name, given, id=name)
                play(app, handle)
                text = app.runs.export(name).decode().replace(f"{ROOT}/", "")  # tracebacks name files
                file.write_text(text + "\n")
                print(f"recorded {file.name}")
    finally:
        server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
