"""Streams, as workflow code writes and reads them; bodies of steps write theirs in `body`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple

import msgspec

from perdure.core.branch import Branch
from perdure.core.effects import Await, StopHere, Use
from perdure.core.gate import Call, Told
from perdure.core.messages import no_such_run
from perdure.core.recorded import recorded
from perdure.core.steps import failure
from perdure.models import Kind
from perdure.store.records import StreamKind, StreamRecord

LOOK_SECONDS: Final = 0.5
"""How often a blocking reader looks whether it is told to stop."""


class Row(NamedTuple):
    """One row of a stream: its place, what it is, its payload, and the key of its run; None stands for the end."""

    place: int
    kind: int
    value: bytes
    run: int


def write(
    branch: Branch, key: str, value: bytes, kind: StreamKind = StreamKind.ITEM
) -> Generator[Any, Any, None]:
    """Write an item, with the step that does."""
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        told = Told(False, b"null", None)
        told.with_records = [StreamRecord(run.key, key, kind, value, rides=call.position)]
        return told
        yield  # a generator, as every operation is

    return recorded(branch, Kind.STREAM, key, produce, _nothing)


def read_row(
    branch: Branch, id: str, key: str, place: int, whose: list[int]
) -> Generator[Any, Any, Row | None]:
    """The first row of another run's stream from this place on, remembered; None at its end.

    `whose` holds the key of that run, once its first row was read.
    """
    run = branch.run

    def produce(call: Call) -> Generator[Any, Any, Told]:
        yield from run.barrier()
        target = whose[0] if whose else None
        if target is None:
            found = yield Use(run.runtime.find, (id,))
            if found is None:
                return failure(run, no_such_run(id))
            target = int(found[0])
        signal = run.runtime.rows_of(target, key, place)
        try:
            while not (yield Await(signal, LOOK_SECONDS)):
                run.check_open()
                if run.calling and run.cancel_due:
                    run.tell_cancel()
                    yield StopHere()
                elif call.began and call not in run.gate.running:
                    yield StopHere()  # told to stop among other branches
        finally:
            run.runtime.unwatch_rows(target, key, place, signal)
        run.check_open()
        rows: list[tuple[int, int, bytes]] = signal.value
        stored = msgspec.json.encode((*rows[0], target) if rows else None)
        return Told(False, stored, _row(stored))

    row: Row | None = yield from recorded(branch, Kind.STREAM, f"{id}/{key}", produce, _row)
    if row is not None and not whose:
        whose.append(row.run)
    return row


def _row(stored: bytes) -> Row | None:
    row = msgspec.json.decode(stored, type=tuple[int, int, bytes, int] | None)
    return None if row is None else Row(*row)


def _nothing(_value: bytes) -> None:
    return None
