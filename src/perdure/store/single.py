"""A batch that is one statement: a single step, start, end, or a last step with its end, with the fence inside.

It can be sent by one thread and answered in another: while the second is waked to wait for the answer, Postgres is
already at work.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from perdure.sql import Statements
from perdure.store.columns import end_parameters, start_parameters, step_parameters
from perdure.store.connection import Connection, confirm
from perdure.store.prepared import FORGOTTEN, Statement, answered, execute, send
from perdure.store.records import EndRecord, Outcome, StartRecord, StepRecord

if TYPE_CHECKING:
    from perdure.store.batch import Batch


def single_form(batch: Batch) -> tuple[str, dict[str, Any]] | None:
    """The one statement, with its parameters but for who writes, that is all of a small batch; if there is one."""
    match batch.only():
        case (kind,) if kind is StepRecord:
            return "record_step", step_parameters(batch.of(StepRecord)[0])
        case (kind,) if kind is StartRecord:
            start = batch.of(StartRecord)[0]
            if start.options is None:
                return "start_run", start_parameters(start)
            if start.parent is None and start.dedup is None and not (start.sized or start.supersede):
                return "start_with_options", start_parameters(start) | {"options": start.options}
        case (kind,) if kind is EndRecord and not batch.of(EndRecord)[0].waited:
            return "end_run", end_parameters(batch.of(EndRecord)[0])
        case (first, second) if first is StepRecord and second is EndRecord:
            step, end = batch.of(StepRecord)[0], batch.of(EndRecord)[0]
            if step.run == end.run and not end.waited:
                return "record_step_and_end", step_parameters(step) | end_parameters(end)
        case _:
            pass
    return None


class SingleWriter:
    """Writes batches that are one statement, as one worker's slot, or as a client."""

    def __init__(self, statements: Statements, identity: dict[str, Any]) -> None:
        self._sql, self._identity = statements, identity

    def begin(self, connection: Connection, batch: Batch) -> None:
        """Send it, if it is one that this connection has prepared; `write` waits for the answer then.

        Raises:
            psycopg.Error: whether it was sent is not known.
        """
        if (statement := self._statement(batch)) is not None:
            batch.answer = send(connection, statement)

    def write(self, connection: Connection, batch: Batch) -> bool:
        """Write it, or wait for the answer, where it was sent; False: the general form has to write it, or to tell.

        Raises:
            psycopg.Error: nothing is written, or (a lost connection) nobody knows.
        """
        answer, batch.answer = batch.answer, None
        results = None
        if answer is not None:
            # Where it is no longer prepared nothing was done.
            with suppress(*FORGOTTEN):
                results = answered(connection, answer)
        if results is None:
            statement = self._statement(batch)
            if statement is None:
                return False
            results = execute(connection, [statement])
        if results[0].command_tuples != 1:
            return False  # fenced, written by an earlier try, or cancelled
        confirm(connection)
        for ticket in batch.tickets:
            for record in ticket.records:
                record.outcome = Outcome.WON
        return True

    def _statement(self, batch: Batch) -> Statement | None:
        if (form := single_form(batch)) is None:
            return None
        name, parameters = form
        return Statement(self._sql[name], parameters | self._identity, name)
