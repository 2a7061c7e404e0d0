"""The schema is made once, whoever starts at the same time, and one that is newer than the code is refused."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from perdure import SchemaMismatch
from perdure.store.database import Database
from perdure.store.migrate import migrate
from perdure.sync import Perdure
from tests.api_tools import rows
from tests.protocol_tools import in_thread

pytestmark = pytest.mark.session

MIGRATE = """
import sys
from perdure.store.database import Database
from perdure.store.migrate import migrate
database = Database(sys.argv[1])
sys.stdin.readline()
print(len(migrate(database)))
"""


@pytest.mark.empty
def test_eight_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    """One of them applies the migrations, the others wait and find nothing to do."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, answers
    applied = sorted(int(out) for out, _ in answers)
    assert applied[:7] == [0] * 7
    assert applied[7] >= 1
    assert rows(database_url, "select count(*) from perdure.migrations") == [(applied[7],)]


@pytest.mark.empty
def test_threads_that_start_at_once_migrate_once(database_url: str) -> None:
    """The same within a process, in two schemas at the same time."""
    databases = [Database(database_url, schema) for schema in ("one", "two") for _ in range(4)]
    migrating = [in_thread(partial(migrate, database)) for database in databases]
    errors = [one.error() for one in migrating]
    for database in databases:
        database.close()
    assert errors == [None] * 8
    applied = [len(one.result()) for one in migrating]
    assert sorted(applied[:4])[:3] == sorted(applied[4:])[:3] == [0] * 3
    assert max(applied[:4]) == max(applied[4:]) >= 1


@pytest.mark.parametrize("apply", [True, False])
def test_newer_schema_is_refused(apply: bool, database_url: str) -> None:
    """A migration that this code does not know stops it, in both modes, and nothing is changed."""
    with Perdure(database_url, worker=False):
        pass
    rows(database_url, "insert into perdure.migrations (number, name) values (9999, 'of tomorrow')")
    with pytest.raises(SchemaMismatch, match="9999"):
        Perdure(database_url, migrate=apply).open()


def test_newer_schema_that_lacks_one_of_ours_is_refused(database_url: str) -> None:
    """As many migrations as this code knows, but not the same ones: refused all the same."""
    with Perdure(database_url, worker=False):
        pass
    rows(
        database_url,
        "update perdure.migrations set number = 9999 where number = (select max(number) from perdure.migrations)",
    )
    with pytest.raises(SchemaMismatch, match="9999"), Perdure(database_url):
        pass


@pytest.mark.empty
def test_missing_schema_is_refused_without_migrate(database_url: str) -> None:
    """`migrate=False` makes nothing, and says what to do."""
    with pytest.raises(SchemaMismatch, match="perdure migrate"):
        Perdure(database_url, migrate=False).open()
    assert rows(database_url, "select 1 from pg_namespace where nspname = 'perdure'") == []
