"""The functions have the rights of their caller; the grants in the documents are enough for each, and no more than needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from perdure import sync
from tests.api_tools import rows
from tests.servers import TestServer
from tools import check_docs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sql.md"
CALLS = {
    "start": "select perdure.start('none', '[]', '{\"id\": \"x\", \"tags\": {}}')",
    "start with restart_if_failed": 'select perdure.start(\'none\', \'[]\', \'{"id": "a", "on_conflict": "restart_if_failed"}\')',
    "send, and start with a message": "select perdure.send('a', 't', '1'), "
    'perdure.start(\'none\', \'[]\', \'{"send": {"topic": "t", "payload": 1}}\')',
    "cancel": "select perdure.cancel('a')",
}


def grants() -> dict[str, list[str]]:
    """The grants of the page, by what they are for; those under no heading are for all."""
    block = next(
        block for block in check_docs.blocks(PAGE.read_text("utf-8")) if block.code.startswith("grant usage")
    )
    found: dict[str, list[str]] = {"": []}
    topic = ""
    for line in block.code.splitlines():
        if line.startswith("--"):
            topic = line.removeprefix("-- ")
            found[topic] = []
        else:
            found[topic].append(line.rstrip(";"))
    return found


def prepare(url: str) -> None:
    """A schema with a run to be sent to, and a role without any rights in it."""
    with sync.Perdure(url, worker=False) as app:
        app.start("none", id="a")
    rows(url, "drop role if exists shop")
    rows(url, "create role shop login")


def as_shop(server: TestServer, url: str, statement: str) -> Any:
    with psycopg.connect(server.tcp(url).replace("postgres@", "shop@")) as connection:
        return connection.execute(statement.encode()).fetchone()


@pytest.mark.parametrize("what", CALLS)
def test_the_grants_of_the_page_are_enough(what: str, server: TestServer, database_url: str) -> None:
    """Each call is refused without its grants, and works with them."""
    prepare(database_url)
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_shop(server, database_url, CALLS[what])
        needed = grants()
        base = needed["start"] if "start" in what else []
        for grant in [*needed[""], *base, *needed[what]]:
            rows(database_url, grant)
        assert as_shop(server, database_url, CALLS[what]) is not None
    finally:
        rows(database_url, "drop owned by shop")
        rows(database_url, "drop role shop")


def test_each_grant_is_needed_for_something(server: TestServer, database_url: str) -> None:
    """Take one away, and what it was for is refused."""
    prepare(database_url)
    try:
        needed = grants()
        for grant in [line for lines in needed.values() for line in lines]:
            rows(database_url, grant)
        for revoked, call in (
            ("usage on sequence perdure.strangers", "start"),
            ("insert on perdure.runs", "start"),
            ("insert on perdure.live", "start"),
            ("update (superseded) on perdure.runs", "start with restart_if_failed"),
            ("insert on perdure.messages", "send, and start with a message"),
            ("update on perdure.live", "send, and start with a message"),
            ("delete on perdure.live", "cancel"),
            ("insert on perdure.ends", "cancel"),
        ):
            rows(database_url, f"revoke {revoked} from shop")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                as_shop(server, database_url, CALLS[call])
            rows(database_url, f"grant {revoked} to shop")
    finally:
        rows(database_url, "drop owned by shop")
        rows(database_url, "drop role shop")


def test_a_trigger_can_have_the_rights_of_its_owner(server: TestServer, database_url: str) -> None:
    """`security definer`: whoever may insert the row need not be able to start anything else."""
    prepare(database_url)
    try:
        rows(database_url, "create table orders (id integer)")
        rows(
            database_url,
            """
            create function ship() returns trigger language plpgsql security definer
            set search_path = pg_catalog, pg_temp as $$
            begin
                perform perdure.start('none', jsonb_build_array(new.id), '{"id": "ship"}');
                return null;
            end $$;
            create trigger ship after insert on orders for each row execute function ship();
            grant insert on orders to shop;
            """,
        )
        as_shop(server, database_url, "with i as (insert into orders values (1)) select 1")
        assert rows(database_url, "select id from perdure.runs where id = 'ship'") == [("ship",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_shop(server, database_url, CALLS["start"])
    finally:
        rows(database_url, "drop owned by shop")
        rows(database_url, "drop role shop")
