"""`perdure send`: send a run a message."""

from __future__ import annotations

from typing import Any

import click

from perdure.cli.exits import refused_as_usage
from perdure.cli.opening import client
from perdure.cli.options import database_options, id_argument, json_value, word
from perdure.cli.writing import say


@click.command()
@id_argument
@click.argument("topic", metavar="TOPIC", type=word)
@click.argument("value", metavar="JSON", type=json_value)
@click.option("--key", metavar="TEXT", type=word, help="Sent twice with the same key, it arrives once.")
@database_options
def send(
    id: str,
    topic: str,
    value: Any,  # whatever JSON has
    key: str | None,
    database: str | None,
    schema: str | None,
) -> None:
    """Send a run a message; JSON - is read from stdin.

    It is stored when the command ends with 0. A run that has ended can be told nothing (exit code 4).
    """
    with client(database, schema) as app, refused_as_usage():
        app.handle(id).send(topic, value, key=key)
    say(f"sent to {id} on {topic}")
