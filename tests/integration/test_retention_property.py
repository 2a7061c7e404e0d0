"""Pruning against a model: of random families exactly those go of which all has ended and is kept no longer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from perdure import Retention, sync
from perdure.models import Status
from tests.api_tools import rows
from tests.servers import TestServer

pytestmark = pytest.mark.postgres

HOUR, DAY = 3600.0, 86400.0
KEPT = Retention(
    succeeded=2 * HOUR,
    failed=timedelta(days=1),
    workflows={"kept*": Retention(succeeded=5 * DAY), "kept.short": HOUR, "ever": None},
)
WORKFLOWS = ("plain", "plain", "plain", "kept.some", "kept.short", "ever")


@dataclass
class Life:
    """One row of `runs`, and how it ended, if so; `ago` is when, in seconds."""

    key: int
    id: str
    superseded: bool
    parent: int | None
    workflow: str
    status: int | None
    ago: float


@pytest.fixture(scope="module")
def app(server: TestServer) -> Iterator[sync.Perdure]:
    url = server.create_database()
    with sync.Perdure(url, worker=False) as opened:
        yield opened
    server.drop_database(url)


def some_lives(chance: random.Random) -> list[Life]:
    """Random families: deep and wide ones, with past lives, parents that are not there, unfinished ones here and there."""
    lives: list[Life] = []
    unhappy = chance.choice((0.0, 0.05, 0.3))
    ages = chance.choice(
        ((0.5 * HOUR, 1.5 * HOUR, 3 * HOUR, 2 * DAY, 9 * DAY), (*(9 * DAY,) * 9, 0.5 * HOUR))
    )
    for key in range(1, chance.randint(2, 60)):
        parent = chance.choice(lives).key if lives and chance.random() < 0.5 else None
        parent = 10_000 if chance.random() < 0.05 else parent
        id, superseded = f"id-{key}", False
        heir = chance.choice(lives) if lives else None
        if heir is not None and not heir.superseded and chance.random() < 0.25:
            id, superseded = heir.id, True
            parent = heir.parent if chance.random() < 0.8 else parent
        status = chance.choice((7, 7, 7, 8, 9, 10) if superseded else (7, 7, 7, 8, 9))
        ago = chance.choice(ages)
        ended = superseded or chance.random() >= unhappy
        life = Life(key, id, superseded, parent, chance.choice(WORKFLOWS), status if ended else None, ago)
        lives.append(life)
    return lives


def expected(lives: list[Life], awaited: set[int]) -> set[int]:
    """What is to go, worked out one run at a time."""
    by_key = {life.key: life for life in lives}

    def may_go(life: Life) -> bool:
        if life.status is None or life.key in awaited:
            return False
        seconds = KEPT.kept(life.workflow, Status.of(life.status))
        return seconds is not None and life.ago > seconds

    def below(key: int) -> set[int]:
        found = {key}
        for life in lives:
            if life.parent == key and life.key not in found:
                found |= below(life.key)
        return found

    gone: set[int] = set()
    for root in lives:
        if root.parent in by_key:
            continue
        tree = below(root.key)
        if not root.superseded:
            for past in lives:
                if past.id == root.id and past.superseded and past.parent not in by_key:
                    tree |= below(past.key)
        if all(may_go(by_key[key]) for key in tree):
            gone |= tree
    return gone


HANGING = (
    "steps (run, position, kind, name, failed, value, attempts, seconds, worker) select key, '1', 1, '', false, '1', 1, 0, 1",
    "messages (run, topic, seq, key, value) select key, 't', key, 'k', '1'",
    "events (run, key, seq, failed, value) select key, 'e', 1, false, '1'",
    "streams (run, key, place, kind, value) select key, 's', 1, 0, '1'",
    "intents (run, position, name, worker) select key, '1', 's', 1",
    "takeovers (run, worker) select key, 1",
)


def written(url: str, lives: list[Life], awaited: set[int]) -> None:
    """Write the lives, with a row in each other table that hangs on a run, in place of what is there."""
    tables = (
        "runs",
        "ends",
        "live",
        "steps",
        "messages",
        "events",
        "streams",
        "intents",
        "takeovers",
        "waits",
    )
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("truncate " + ", ".join(f"perdure.{table}" for table in tables))
        cursor.executemany(
            "insert into perdure.runs (key, id, workflow, input, parent, superseded, created) "
            "values (%s, %s, %s, '[]', %s, %s, perdure.clock() - interval '10 days' + %s * interval '1 second')",
            [(o.key, o.id, o.workflow, o.parent, o.superseded, o.key % 7) for o in lives],
        )
        cursor.executemany(
            "insert into perdure.ends (key, status, value, finished) "
            "values (%s, %s, '1', perdure.clock() - %s * interval '1 second')",
            [(o.key, o.status, o.ago) for o in lives if o.status is not None],
        )
        for hanging in HANGING:
            cursor.execute(f"insert into perdure.{hanging} from perdure.runs")
        cursor.executemany(
            "insert into perdure.runs (key, id, workflow, input) values (%s, %s, 'w', '')",
            [(-key, f"waiter-{key}") for key in awaited],
        )
        cursor.executemany(
            "insert into perdure.live (key, workflow, status) values (%s, 'w', 4)",
            [(o.key,) for o in lives if o.status is None] + [(-key,) for key in awaited],
        )
        cursor.executemany(
            "insert into perdure.waits (run, position, target) values (%s, '1', %s)",
            [(-key, key) for key in awaited],
        )


@pytest.mark.parametrize("seed", range(40))
def test_exactly_what_may_go_goes(seed: int, app: sync.Perdure) -> None:
    """And of what stays no row is missing; nothing that is left hangs on a run that is not there."""
    chance, url = random.Random(seed), app.url
    assert url is not None
    lives = some_lives(chance)
    awaited = {life.key for life in lives if life.status is not None and chance.random() < 0.03}
    written(url, lives, awaited)
    gone = expected(lives, awaited)
    there = {life.key for life in lives}

    would = app.runs.prune(KEPT, dry_run=True)
    assert (would.runs, would.rows.get("steps", 0)) == (len(gone), len(gone))
    assert app.runs.prune(KEPT).runs == len(gone)

    print(f"seed {seed}: {len(gone)} of {len(lives)} go")
    left = there - gone
    assert {key for (key,) in rows(url, "select key from perdure.runs where key > 0")} == left
    assert {key for (key,) in rows(url, "select key from perdure.ends")} == {
        life.key for life in lives if life.status is not None and life.key in left
    }
    for table in ("steps", "messages", "events", "streams", "intents", "takeovers"):
        assert {key for (key,) in rows(url, f"select run from perdure.{table}")} == left, table
    assert app.runs.prune(KEPT).runs == 0
