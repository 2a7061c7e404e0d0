"""`perdure result`: what a run returned, or how else it ended."""

from __future__ import annotations

import click

from perdure import sync
from perdure.cli.documents import stored_error, stored_json
from perdure.cli.exits import Exit, Failure
from perdure.cli.opening import client
from perdure.cli.options import database_options, id_argument, span
from perdure.cli.writing import say, write_json
from perdure.errors import WaitTimeout
from perdure.models import RunDetail, Status


@click.command()
@id_argument
@click.option("--wait", is_flag=True, help="Wait for the run's end.")
@click.option(
    "--timeout",
    metavar="DURATION",
    type=span,
    help="Wait so long at most: 90 (seconds), 15m, 2h. Includes --wait.",
)
@database_options
def result(id: str, database: str | None, schema: str | None, timeout: float | None, *, wait: bool) -> None:
    """Write what a run returned, as JSON.

    Of one that failed or was cancelled its error is written to stderr, with exit code 1. One that has not ended, or is
    parked, has none (exit code 4).
    """
    with client(database, schema) as app:
        write_result(app, id, wait=wait or timeout is not None, timeout=timeout)


def write_result(app: sync.Perdure, id: str, *, wait: bool, timeout: float | None = None) -> None:
    """Write how a run ended.

    Args:
        app: the open app.
        id: of the run.
        wait: wait for its end.
        timeout: seconds that it is waited for, or None.

    Raises:
        WorkflowNotFound: no run has this id.
        Failure: it has no result yet.
        Exit: with code 1 if it failed or was cancelled.
    """
    detail = _ended(app, id, timeout) if wait else app.runs.get(id)
    status, output = detail.info.status, detail.output
    if status is Status.PARKED:
        raise Failure(Exit.WRONG_STATE, f"run {id} is parked: {detail.info.reason or 'no reason given'}")
    if not status.final or output is None:
        raise Failure(Exit.WRONG_STATE, f"run {id} is {status}: it has no result yet; --wait waits for it")
    if status is Status.SUCCEEDED:
        write_json(stored_json(output))
        return
    what = "was cancelled" if status is Status.CANCELLED else "failed"
    say(f"run {id} {what}: {stored_error(output)}")
    raise click.exceptions.Exit(Exit.FAILED)


def _ended(app: sync.Perdure, id: str, timeout: float | None) -> RunDetail:
    """The run when it has ended, or is parked.

    Its own error is what the wait may raise, of whatever class, also of those that perdure raises for other reasons; so
    how the run stands decides, and not the error.
    """
    try:
        app.handle(id).result(timeout)
    except Exception as error:
        detail = app.runs.get(id)
        if detail.info.status.final or detail.info.status is Status.PARKED:
            return detail
        if isinstance(error, WaitTimeout):
            raise Failure(Exit.TIMEOUT, str(error)) from None
        raise
    return app.runs.get(id)
