"""`perdure show`: one run, drawn: where it stands, why it waits, and what its code has been told."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from perdure.cli.documents import detail_document, stored_error
from perdure.cli.opening import client
from perdure.cli.options import database_options, output_option
from perdure.cli.writing import (
    STYLES,
    Form,
    local,
    plain,
    safe,
    shortened,
    took,
    write_drawn,
    write_json,
    write_lines,
    write_table,
)
from perdure.models import RunDetail, Status, StepInfo

STEP_HEADS = ("position", "step", "kind", "at", "took", "tries", "worker", "result")


@click.command()
@click.argument("id", metavar="ID")
@database_options
@output_option
def show(id: str, database: str | None, schema: str | None, form: Form) -> None:
    """Show one run and its steps.

    Where it stands, why it waits, what its code has been told, in order, and by which workers. Values are shortened; with -o json they are whole.
    """
    with client(database, schema) as app:
        detail = app.runs.get(id)
    match form:
        case Form.JSON:
            write_json(detail_document(detail))
        case Form.TEXT:
            write_lines((label, value) for label, value in _facts(detail, plain))
            write_lines(_step_line(step) for step in in_order(detail.steps))
            write_lines(("on", str(number), name) for number, name in sorted(detail.workers.items()))
        case Form.TABLE:
            _draw(detail)


def in_order(steps: Sequence[StepInfo]) -> list[StepInfo]:
    """Steps as the code was told them, and readings of the clock, which have no place among them, by time."""
    readings = deque(step for step in steps if step.group is None)
    ordered: list[StepInfo] = []
    for step in steps:
        if step.group is None:
            continue
        while readings and readings[0].recorded < step.recorded:
            ordered.append(readings.popleft())
        ordered.append(step)
    return [*ordered, *readings]


def _facts(detail: RunDetail, time: Any) -> Iterator[tuple[str, str]]:
    """What is known of the run, by label; `time` writes a time."""
    info = detail.info
    output = detail.output
    lasted = ((info.finished or datetime.now(UTC)) - info.created).total_seconds()
    facts: list[tuple[str, Any]] = [
        ("id", info.id),
        ("workflow", info.workflow),
        ("status", str(info.status)),
        ("cancel", "asked for" if info.cancel_requested and not info.status.final else None),
        ("created", time(info.created)),
        ("finished", time(info.finished)),
        ("took" if info.status.final else "for", took(max(0.0, lasted))),
        ("deadline", time(info.deadline)),
        ("queue", info.queue),
        ("version", info.version),
        ("parent", info.parent),
        ("tags", None if info.tags is None else json.dumps(dict(info.tags), ensure_ascii=False)),
        ("worker", None if info.worker is None else f"{info.worker}"),
        ("recoveries", info.recoveries or None),
        ("takeovers", info.takeovers or None),
        ("reason", info.reason),
        ("why", info.why),
        *(("waits", wait) for wait in detail.waits if len(detail.waits) > 1),
        ("input", _shown(detail.input)),
        ("result", _shown(output) if output is not None and info.status is Status.SUCCEEDED else None),
        (
            "error",
            str(stored_error(output)) if output is not None and info.status is not Status.SUCCEEDED else None,
        ),
    ]
    return ((label, safe(str(value))) for label, value in facts if value not in (None, ""))


def _shown(payload: bytes) -> str:
    return shortened(payload.decode("utf-8", "replace"))


def _told(step: StepInfo) -> str:
    return shortened(str(stored_error(step.value))) if step.failed else _shown(step.value)


def _step_line(step: StepInfo) -> tuple[Any, ...]:
    outcome = "failed" if step.failed else "ok"
    seconds = f"{step.seconds:.6f}"
    return (
        "step", step.position, step.kind, step.name, outcome, seconds, step.attempts, step.worker, step.recorded,
        _told(step),
    )  # fmt: skip


def _draw(detail: RunDetail) -> None:
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(detail, local):
        style = STYLES.get(value, "") if label == "status" else ""
        facts.add_row(label, Text(value, style=style))
    for number, name in sorted(detail.workers.items()):
        facts.add_row(f"worker {number}", Text(safe(name)))
    write_drawn(facts)
    if detail.steps:
        click.echo()
        begun = detail.info.created
        write_table(STEP_HEADS, [_step_row(step, begun) for step in in_order(detail.steps)])


def _step_row(step: StepInfo, begun: datetime) -> tuple[str, ...]:
    return (
        step.position,
        step.name,
        step.kind,
        f"+{took(max(0.0, (step.recorded - begun).total_seconds()))}",
        took(step.seconds),
        str(step.attempts),
        str(step.worker),
        f"✗ {_told(step)}" if step.failed else _told(step),
    )
