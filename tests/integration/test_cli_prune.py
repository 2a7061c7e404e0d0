"""`perdure prune` says what would go, asks, and deletes that."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from perdure.sync import Perdure
from tests.api_tools import rows
from tests.cli_tools import on_terminal, perdure

pytestmark = pytest.mark.postgres


@pytest.fixture
def client(database_url: str) -> Iterator[Perdure]:
    """Two runs of `old.work` that succeeded ten days ago, one of `new.work` that failed five days ago."""
    with Perdure(database_url, worker=False) as app:
        for key, workflow, status, days in (
            (1, "old.work", 7, 10),
            (2, "old.work", 7, 10),
            (3, "new.work", 8, 5),
        ):
            rows(
                database_url,
                "insert into perdure.runs (key, id, workflow, input, created) "
                "values (%s, %s, %s, '[]', perdure.clock() - interval '20 days')",
                key,
                f"run-{key}",
                workflow,
            )
            rows(
                database_url,
                "insert into perdure.ends (key, status, value, finished) "
                "values (%s, %s, '{}', perdure.clock() - %s * interval '1 day')",
                key,
                status,
                days,
            )
        yield app


def ids(app: Perdure) -> list[str]:
    return sorted(run.id for run in app.runs.list())


def test_a_dry_run_says_what_would_go(client: Perdure, database_url: str) -> None:
    done = perdure("prune", "--succeeded", "7d", "--failed", "1d", "--dry-run", url=database_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "new.work\tfailed\t1\nold.work\tsucceeded\t2\n"
    assert "would delete 3 runs in 3 trees (rows: 3 ends, 3 runs); nothing was changed" in done.stderr
    assert len(ids(client)) == 3


def test_rules_of_workflows_and_the_limit_are_kept(client: Perdure, database_url: str) -> None:
    command = ("prune", "--failed", "1d", "--workflow", "old.*=7d", "--yes", "-o", "json")
    done = perdure(*command, "--limit", "2", "--reason", "too many", url=database_url)
    told = json.loads(done.stdout)
    assert (told["matched"], told["reached"], told["complete"]) == (2, 2, False)
    assert ids(client) == ["run-3"]
    again = perdure("prune", "--failed", "1d", "--workflow", "new.work=forever", "--yes", url=database_url)
    assert (again.returncode, again.stdout) == (0, "")
    assert ids(client) == ["run-3"]
    assert [line.reason for line in client.runs.audit()] == ["too many"]


def test_nobody_is_deleted_without_agreement(client: Perdure, database_url: str) -> None:
    """In a pipe it refuses; on a terminal it asks, and a no is a no."""
    refused = perdure("prune", "--succeeded", "7d", url=database_url)
    assert (refused.returncode, "2 runs would be reached by this prune" in refused.stderr) == (2, True)
    assert "nothing was changed" in on_terminal("prune", "--succeeded", "7d", url=database_url, typed="n\n")
    assert len(ids(client)) == 3
    assert "2 runs in 2 trees are pruned" in on_terminal(
        "prune", "--succeeded", "7d", url=database_url, typed="y\n"
    )
    assert ids(client) == ["run-3"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "How long are runs to be kept?"),
        (("--succeeded", "10s"), "at least 60 s"),
        (("--succeeded", "soon"), "is no duration"),
        (("--workflow", "name"), "NAME=DURATION"),
        (("--workflow", "*=7d"), "for all workflows say"),
        (("--failed", "7d", "--limit", "0"), "--limit"),
    ],
)
def test_what_cannot_be_is_wrong_usage(options: tuple[str, ...], says: str, database_url: str) -> None:
    done = perdure("prune", *options, url=database_url)
    assert done.returncode == 2
    assert says in done.stderr
