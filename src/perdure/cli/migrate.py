"""`perdure migrate`: bring the schema up to this version of perdure."""

from __future__ import annotations

import os

import click

from perdure.cli.opening import knock, settings_refused, url_of
from perdure.cli.options import database_options, output_option
from perdure.cli.writing import Form, safe, write_json, write_lines


@click.command()
@database_options
@output_option
def migrate(database: str | None, schema: str | None, form: Form) -> None:
    """Bring perdure's schema up to this version.

    Applies the numbered migrations that are missing, in one transaction; several at a time wait for each
    other. A schema that is newer than this version of perdure is refused.
    """
    from perdure.app.settings import setting, truth
    from perdure.store.database import Database
    from perdure.store.migrate import migrate as bring_up

    url = url_of(database)
    if url is not None:
        knock(url)
    if schema is None:
        schema = os.environ.get("PERDURE_SCHEMA") or "perdure"
    with settings_refused():
        store = Database(url, schema, pooler=setting("transaction_pooler", None, False, truth))
    store.open()
    try:
        applied = bring_up(store)
    finally:
        store.close()
    match form:
        case Form.JSON:
            write_json({"schema": store.schema, "applied": applied})
        case Form.TEXT:
            write_lines([name] for name in applied)
        case Form.TABLE:
            name = safe(store.schema)
            click.echo(
                "\n".join(f"applied {migration} to schema {name}" for migration in applied)
                or f"schema {name} is up to date"
            )
