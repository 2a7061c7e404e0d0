"""Starts in the caller's own open transaction (`connection=`), and what their handles may do before its commit.

Until then nobody else can see the run, so nobody runs it: to wait for it with the transaction open is to wait for
oneself. Whether it is committed is asked of the database, since the connection may have a later transaction open by then.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.client.current import App
from perdure.client.operations import Operation, new_id
from perdure.core.branch import current
from perdure.core.effects import Use
from perdure.core.messages import has_ended
from perdure.core.starting import Start, Started, attached, stored_options
from perdure.errors import PerdureError, WorkflowNotFound, WrongColour
from perdure.store import borrowed


def start_on_connection(app: App, what: Start, *, blocking: bool) -> Operation:
    """Start a run, queued, on the connection in its options.

    Args:
        app: of whose database the connection is one.
        what: to start.
        blocking: whether blocking code asks.

    Raises:
        WrongColour: the connection is of the other colour.
        PerdureError: in a workflow's own code, or the connection leads to another database.
        WorkflowConflict: the id is taken, by another workflow or against `on_conflict`.
    """
    options, runtime = what.options, app.runtime
    connection = options.connection
    if current.get() is not None:
        raise PerdureError(
            "connection= in a workflow: a replay would start it again. Do it in a @transaction, with its connection"
        )
    if borrowed.is_async(connection) is blocking:
        takes = "psycopg.Connection" if blocking else "psycopg.AsyncConnection"
        raise WrongColour(f"connection= takes a {takes} in {'blocking' if blocking else 'async'} code")
    given = stored_options(runtime, what, here=False)
    given |= {"id": options.id or new_id(), "on_conflict": options.on_conflict}
    topic, message = options.send or (None, None)
    parameters = {
        "workflow": what.workflow,
        "input": what.input,
        "options": msgspec.json.encode(given).decode(),
        "topic": topic,
        "message": message,
        "realm": runtime.realm,
    }
    try:
        found = yield from borrowed.start(connection, app.database.statements, parameters)
    except borrowed.TargetEnded as error:
        raise has_ended(given["id"]) from error
    if found is None:
        raise PerdureError("connection= leads to another database than the app's: nothing was started")
    if found.created:
        return Started(found.key, found.id, True)
    return attached((found.key, found.workflow), found.id, what)


def committed(app: App, key: int, id: str, connection: Any) -> Operation:
    """Go on if a run that was started on a connection is committed.

    Raises:
        PerdureError: the transaction is still open.
        WorkflowNotFound: it was rolled back.
    """
    still_open = borrowed.is_open(
        connection
    )  # before the look: what is committed in between counts as committed
    if (yield Use(lambda: borrowed.exists(app.database, key))):
        return
    if still_open:
        raise PerdureError(
            f"run {id} was started in a transaction that is still open: commit it first, then use the handle"
        )
    raise WorkflowNotFound(
        f"run {id} is not there: the transaction in which it was started was not committed"
    )
