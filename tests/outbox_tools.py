"""What tests of starts in somebody's own transaction share: the examples of the documents, their tables, their worker."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from perdure import sync
from tests.api_tools import rows, until
from tools import check_docs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "outbox.md"


@cache
def example(heading: str, number: int = 0) -> Any:
    """The Python block of the page under a heading, as a module whose functions a test calls."""
    text = PAGE.read_text("utf-8")
    lines = text.splitlines()
    begin = lines.index(heading) + 1
    found = [block for block in check_docs.blocks(text) if block.line > begin and block.language == "python"]
    module = types.ModuleType(f"outbox_example_{begin}_{number}")
    sys.modules[module.__name__] = module
    exec(compile(found[number].code, f"{PAGE}:{found[number].line}", "exec"), module.__dict__)
    return module


def statements(heading: str) -> str:
    """The SQL block of the page under a heading."""
    text = PAGE.read_text("utf-8")
    begin = text.splitlines().index(heading) + 1
    return next(
        block.code for block in check_docs.blocks(text) if block.line > begin and block.language == "sql"
    )


TITLE = "# Start a run together with your own rows"


@contextmanager
def shop(url: str) -> Iterator[sync.Perdure]:
    """The shop of the page: its tables, and a worker that has its workflows."""
    example(TITLE)
    rows(url, statements(TITLE))
    with sync.Perdure(url, grace=0) as app:
        yield app


def check_rolled_back(url: str) -> None:
    """Neither the order nor its run is there."""
    assert rows(url, "select * from orders") == []
    assert rows(url, "select * from perdure.runs") == []
    assert rows(url, "select * from perdure.live") == []


def check_shipped_once(app: sync.Perdure, url: str, order: int) -> None:
    """The order is there, and its run has shipped it, once."""
    assert app.handle(f"ship-{order}").result(30) == f"order {order} is on its way"
    until(lambda: rows(url, "select count(*) from perdure.live") == [(0,)])
    assert rows(url, "select id from orders") == [(order,)]
    assert rows(url, "select order_id from shipment") == [(order,)]
    assert [run.id for run in app.runs.list()] == [f"ship-{order}"]


def started_from_sql(url: str, name: str, args: Any = (), **options: Any) -> str:
    """Start a run from SQL, committed at once; return its id."""
    ((id,),) = rows(url, "select perdure.start(%s, %s, %s)", name, Jsonb(list(args)), Jsonb(options))
    return str(id)
