"""Runs started in Django's `atomic` blocks: with a business row, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import django
import pytest
from django.conf import settings
from django.db import connection, transaction

from tests.outbox_tools import check_rolled_back, check_shipped_once, example, shop
from tests.servers import TestServer


class Refused(Exception):
    """What rolls a block back."""


@pytest.fixture
def django_database(server: TestServer, database_url: str) -> Iterator[str]:
    """This test's database, as Django's default one."""
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}})
        django.setup()
    name = server.tcp(database_url).rpartition("/")[2]
    connection.settings_dict.update(NAME=name, USER="postgres", HOST=server.host, PORT=str(server.port))
    yield database_url
    connection.close()


def test_an_atomic_block_starts_the_run_with_its_row(django_database: str) -> None:
    """Rolled back there is neither, committed both, and the run is executed once."""
    place_order = example("## Django").place_order
    with shop(django_database) as app:
        with suppress(Refused), transaction.atomic():
            place_order("Anna")
            raise Refused
        check_rolled_back(django_database)
        with transaction.atomic():
            order = place_order("Anna")
            check_nothing_to_see(django_database)
        check_shipped_once(app, django_database, order)


def check_nothing_to_see(url: str) -> None:
    """Before the commit nobody else sees anything."""
    check_rolled_back(url)
