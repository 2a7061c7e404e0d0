"""Finding runs: any filter finds what a plain Python function finds among all runs, and pages leave nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.arguments import one_or_more
from perdure.models import RunFilter, RunInfo, Status
from perdure.sql import migrations
from perdure.store import runs
from perdure.store.database import Database
from perdure.store.filters import after_prefix
from perdure.store.migrate import migrate
from tests.api_tools import rows
from tests.million_runs import build
from tests.servers import TestServer

COUNT = 4_000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(-1, 345).map(lambda seconds: BEGIN + timedelta(seconds=seconds))
ERRORS = ("declined", "card 77 was", "missing: part 0", "CardDeclined", "nothing of this")


@pytest.fixture(scope="module")
def database(server: TestServer) -> Iterator[Database]:
    """Some thousand runs of every kind, those of a hundred moments apart."""
    url = server.create_database()
    opened = Database(url)
    migrate(opened)
    build(url, COUNT)
    yield opened
    opened.close()
    server.drop_database(url)


@pytest.fixture(scope="module")
def everything(database: Database) -> tuple[list[RunInfo], dict[str, str]]:
    """All runs, and what each failed with or was parked for."""
    found = runs.list_runs(database, RunFilter(limit=10_000))
    texts = rows(
        database.url,
        "select r.id, convert_from(e.value, 'UTF8') from perdure.ends e join perdure.runs r using (key) "
        "where e.status = 8 union all select r.id, l.reason from perdure.live l join perdure.runs r using (key) "
        "where l.reason is not null",
    )
    return found, dict(texts)


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    """Nothing, one value, or a list of some."""
    return st.none() | st.sampled_from(values) | st.lists(st.sampled_from(values), max_size=3)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "status": one_of(*[status for status in Status if status is not Status.CONTINUED]),
        "workflow": one_of("shop.rare", *(f"shop.flow_{number}" for number in range(17)), "shop.none"),
        "queue": one_of("queue_0", "queue_1", "default", "none"),
        "version": one_of("v0", "v1"),
        "worker": one_of(0, 3, 77),
        "tags": st.sampled_from([{}, {"vip": True}, {"vip": False}, {"customer": 7}, {"customer": 7, "vip": True}]),
        "ids": st.lists(st.integers(1, COUNT + 50).map(lambda n: f"customer-{n % 5000}-{n}"), max_size=30),
        "prefix": st.sampled_from(["", "c", "customer-", "customer-1", "customer-23-", "Customer", "\U0010ffff"]),
        "parent": st.sampled_from(["customer-1-1", "customer-1001-1001", "nobody"]),
        "created_after": MOMENTS,
        "created_before": MOMENTS,
        "finished_after": MOMENTS,
        "finished_before": MOMENTS,
        "error": st.sampled_from(ERRORS),
    },
)  # fmt: skip


def matches(run: RunInfo, where: RunFilter, text: str | None) -> bool:
    """Whether a run matches, field by field, as `RunFilter` says it."""
    plain = all(
        getattr(where, name) is None or getattr(run, name) in one_or_more(getattr(where, name))
        for name in ("status", "workflow", "queue", "version", "worker")
    )
    tags = all((run.tags or {}).get(name) == value for name, value in (where.tags or {}).items())
    late, early = where.finished_after, where.finished_before
    return (
        plain
        and tags
        and (where.ids is None or run.id in where.ids)
        and run.id.startswith(where.prefix or "")
        and (where.parent is None or run.parent == where.parent)
        and (where.created_after is None or run.created >= where.created_after)
        and (where.created_before is None or run.created < where.created_before)
        and (late is None or (run.finished is not None and run.finished >= late))
        and (early is None or (run.finished is not None and run.finished < early))
        and (where.error is None or where.error in (text or ""))
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=FIELDS, size=st.integers(1, 700))
def test_any_filter_finds_what_plain_python_finds(
    fields: dict[str, Any],
    size: int,
    database: Database,
    everything: tuple[list[RunInfo], dict[str, str]],
) -> None:
    """The same runs in the same order, the same count, and page by page too."""
    every, texts = everything
    where = RunFilter(**fields)
    expected = [run.id for run in every if matches(run, where, texts.get(run.id))]
    assert [run.id for run in runs.list_runs(database, RunFilter(**fields, limit=10_000))] == expected
    assert runs.count_runs(database, where) == len(expected)
    page = runs.list_runs(database, RunFilter(**fields, limit=size))
    assert [run.id for run in page] == expected[:size]
    if page:
        rest = runs.list_runs(database, RunFilter(**fields, limit=size, cursor=page[-1].cursor))
        assert [run.id for run in rest] == expected[size : 2 * size]


def test_there_is_something_of_everything(everything: tuple[list[RunInfo], dict[str, str]]) -> None:
    """The runs of these tests differ in all that is asked, and are in order."""
    every, texts = everything
    assert {run.status for run in every} == set(Status) - {Status.CONTINUED}
    assert [(run.created, run.key) for run in every] == sorted(
        ((run.created, run.key) for run in every), reverse=True
    )
    assert all(any(error in text for text in texts.values()) for error in ERRORS[:-1])
    assert any(run.parent for run in every)


def test_pages_are_exact_while_runs_are_born(database_url: str) -> None:
    """Many of one moment, and new ones between the pages: each that was there is seen once."""
    database = Database(database_url)
    migrate(database)
    born = "insert into perdure.runs (key, id, workflow, input) select n, 'r-' || n, 'w', '[]' from "
    with_live = "with l as (insert into perdure.live (key, workflow, status) select n, 'w', 2 from "
    seen: list[int] = []
    cursor = None
    for first in range(0, 10_000, 500):
        span = f"generate_series({first + 1}, {first + 500}) n"
        rows(database_url, f"{with_live}{span}) {born}{span}")
        if first < 1_000:
            continue  # a thousand are there before the first page
        page = runs.list_runs(database, RunFilter(limit=137, cursor=cursor))
        seen += [run.key for run in page]
        if page:
            cursor = page[-1].cursor
    database.close()
    assert seen == list(range(1_500, 0, -1))


def test_children_of_an_earlier_life_are_found(database_url: str) -> None:
    """By the parent's id, whichever of its lives started them."""
    database = Database(database_url)
    migrate(database)
    rows(
        database_url,
        "insert into perdure.runs (key, id, workflow, input, parent, superseded) values "
        "(1, 'p', 'w', '[]', null, true), (2, 'p', 'w', '[]', null, false), "
        "(3, 'a', 'w', '[]', 1, false), (4, 'b', 'w', '[]', 2, false), (5, 'c', 'w', '[]', 4, false)",
    )
    rows(
        database_url, "insert into perdure.live (key, workflow, status) select key, 'w', 2 from perdure.runs"
    )
    found = runs.list_runs(database, RunFilter(parent="p"))
    database.close()
    assert sorted(run.id for run in found) == ["a", "b"]


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("a", "b"), ("", None), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000"), ("ä9", "ä:")],
)
def test_a_prefix_ends_where_the_next_text_begins(prefix: str, end: str | None) -> None:
    """In the order of code points, which is that of bytes in UTF-8; surrogates are no text."""
    assert after_prefix(prefix) == end


@pytest.mark.parametrize(
    "fields",
    [
        {"prefix": "a\0"}, {"ids": ["a", "\ud800"]}, {"error": "\0"}, {"tags": {"a": ["\0"]}}, {"tags": {"\0": 1}},
        {"workflow": ["\0"]}, {"parent": "\udfff"}, {"queue": "\0"},
    ],
    ids=ascii,
)  # fmt: skip
def test_text_that_no_run_can_have_is_refused(fields: dict[str, Any]) -> None:
    """In the caller, with the name of the field."""
    with pytest.raises(ValueError, match=f"{next(iter(fields))}=.*NUL or a lone surrogate"):
        RunFilter(**fields)


@pytest.mark.parametrize("name", ["finished_after", "finished_before"])
def test_a_time_needs_a_zone(name: str) -> None:
    """A time without one could mean any."""
    with pytest.raises(ValueError, match=name):
        RunFilter(**{name: datetime(2026, 1, 1)})  # type: ignore[arg-type]  # noqa: DTZ001


@pytest.mark.empty
def test_a_database_with_runs_is_migrated(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before the indexes is found by them, and what ran goes on."""
    older = [migration for migration in migrations("perdure") if migration.number < 4]
    database = Database(database_url)
    with monkeypatch.context() as before:
        before.setattr("perdure.sql.migrations", lambda schema: older)
        migrate(database)
    rows(
        database_url,
        "insert into perdure.runs (key, id, workflow, input, tags) select n, 'Ä-' || n, 'w', '[]', "
        "jsonb_build_object('n', n) from generate_series(1, 100) n",
    )
    rows(
        database_url,
        "insert into perdure.live (key, workflow, status) select n, 'w', 2 from generate_series(1, 50) n",
    )
    rows(
        database_url,
        "insert into perdure.ends (key, status, value) select n, 7, '1' from generate_series(51, 100) n",
    )
    assert migrate(database) == [
        f"{migration.number:04} {migration.name}"
        for migration in migrations("perdure")
        if migration.number >= 4
    ]
    assert runs.count_runs(database, RunFilter(prefix="Ä-", status="queued")) == 50
    assert [run.id for run in runs.list_runs(database, RunFilter(tags={"n": 7}))] == ["Ä-7"]
    assert rows(database_url, "select status from perdure.run_list where id = 'Ä-99'") == [("succeeded",)]
    database.close()
