"""Streams, as workflow code writes and reads them; bodies of steps write theirs in `body`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import msgspec

from perdure.core.branch import Branch
from perdure.core.effects import Await, Use
from perdure.core.gate import Call, Told
from perdure.core.messages import no_such_run
from perdure.core.recorded import recorded
from perdure.core.steps import failure
from perdure.models import Kind
from perdure.store.records import StreamKind, StreamRecord


class Row(NamedTuple):
    """One row of a stream: its place, what it is, and its payload; None stands for the end."""

    place: int
    kind: int
    value: bytes


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


def read_row(branch: Branch, id: str, key: str, place: int) -> Generator[Any, Any, Row | None]:
    """The first row of another run's stream from this place on, remembered; None at its end."""
    run = branch.run

    def produce(_call: Call) -> Generator[Any, Any, Told]:
        yield from run.barrier()
        found = yield Use(run.runtime.find, (id,))
        if found is None:
            return failure(run, no_such_run(id))
        signal = run.runtime.rows_of(found[0], key, place)
        try:
            yield Await(signal, None)
        finally:
            run.runtime.unwatch_rows(found[0], key, place, signal)
        run.check_open()
        rows: list[Row] = signal.value
        stored = msgspec.json.encode(rows[0] if rows else None)
        return Told(False, stored, _row(stored))

    return recorded(branch, Kind.STREAM, f"{id}/{key}", produce, _row)


def _row(stored: bytes) -> Row | None:
    row = msgspec.json.decode(stored, type=tuple[int, int, bytes] | None)
    return None if row is None else Row(*row)


def _nothing(_value: bytes) -> None:
    return None
