"""`perdure show`: one run, drawn: where it stands, why it waits, and what its code has been told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from perdure.cli.audit import audit_line, audit_texts
from perdure.cli.documents import detail_document, stored_error
from perdure.cli.opening import client
from perdure.cli.options import database_options, id_argument, output_option
from perdure.cli.timeline import Timeline, in_order
from perdure.cli.writing import (
    STYLES,
    Form,
    local,
    plain,
    safe,
    say,
    shortened,
    terminal_width,
    took,
    write_drawn,
    write_json,
    write_lines,
    write_table,
)
from perdure.models import AuditInfo, RunDetail, RunInfo, Status, StepInfo

STEP_HEADS = ("position", "step", "kind", "timeline", "at", "took", "tries", "worker", "result")
SHOWN_STEPS: Final = 500
"""Steps that are drawn on a terminal: the last ones."""
SHOWN_CHILDREN: Final = 1000


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a run."""

    detail: RunDetail
    children: Sequence[RunInfo]
    audit: Sequence[AuditInfo]


@click.command()
@id_argument
@database_options
@output_option
def show(id: str, database: str | None, schema: str | None, form: Form) -> None:
    """Show one run and its steps.

    Where it stands, why it waits, what its code has been told, in order, when, and by which workers; the runs that it
    started, messages that it has not received yet, and what was done to it by hand. Values are shortened; with -o json
    they are whole.
    """
    with client(database, schema) as app:
        detail = app.runs.get(id)
        shown = Shown(detail, app.runs.list(parent=id, limit=SHOWN_CHILDREN), app.runs.audit(id))
    match form:
        case Form.JSON:
            write_json(detail_document(detail, shown.children, shown.audit))
        case Form.TABLE:
            _draw(shown)
        case _:
            _write_text(shown)


def _write_text(shown: Shown) -> None:
    detail = shown.detail
    write_lines((label, value) for label, value in _facts(detail, plain))
    write_lines(_step_line(step) for step in in_order(detail.steps))
    write_lines(("on", str(number), name) for number, name in sorted(detail.workers.items()))
    write_lines(("child", child.id, child.workflow, child.status) for child in shown.children)
    write_lines(
        ("message", message.topic, message.sent, _shown(message.value)) for message in detail.messages
    )
    write_lines(("audit", *audit_line(line)) for line in shown.audit)


def _facts(detail: RunDetail, time: Any) -> Iterator[tuple[str, str]]:
    """What is known of the run, by label; `time` writes a time."""
    info = detail.info
    output = detail.output
    lasted = (_end(info) - info.created).total_seconds()
    facts: list[tuple[str, Any]] = [
        ("id", info.id),
        ("workflow", info.workflow),
        ("status", str(info.status)),
        ("why", info.why),
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
        *(("waits", wait) for wait in detail.waits if len(detail.waits) > 1),
        ("input", _shown(detail.input)),
        ("result", _shown(output) if output is not None and info.status is Status.SUCCEEDED else None),
        (
            "error",
            str(stored_error(output)) if output is not None and info.status is not Status.SUCCEEDED else None,
        ),
    ]
    return ((label, safe(str(value))) for label, value in facts if value not in (None, ""))


def _end(info: RunInfo) -> datetime:
    return info.finished or datetime.now(UTC)


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


def _draw(shown: Shown) -> None:
    """Draw the run for people: what it waits for first, since that is what they ask first."""
    from rich.table import Table
    from rich.text import Text

    detail = shown.detail
    info = detail.info
    status = Text(str(info.status), style=STYLES.get(str(info.status), ""))
    why = f": {safe(info.why)}" if info.why else ""
    write_drawn(Text.assemble((safe(info.id), "bold"), " ", status, why))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(detail, local):
        if label not in ("id", "status", "why"):
            facts.add_row(label, Text(value))
    for number, name in sorted(detail.workers.items()):
        facts.add_row(f"worker {number}", Text(safe(name)))
    write_drawn(facts)
    _draw_steps(detail)
    _draw_part("started", ("id", "workflow", "status"), [_child(child) for child in shown.children])
    messages = [(m.topic, local(m.sent), _shown(m.value)) for m in detail.messages]
    _draw_part("not received yet", ("topic", "sent", "message"), messages)
    lines = [(local(line.at), *audit_texts(line)) for line in shown.audit]
    _draw_part("done by hand", ("at", "who", "did", "id", "detail", "reason"), lines)


def _draw_steps(detail: RunDetail) -> None:
    steps = in_order(detail.steps)
    left_out = len(steps) - SHOWN_STEPS
    cells = min(max(terminal_width() // 5, 12), 40)
    line = Timeline(detail.info.created, _end(detail.info), cells)
    _draw_part("steps", STEP_HEADS, [_step_row(step, line) for step in steps[-SHOWN_STEPS:]])
    if left_out > 0:
        say(f"the first {left_out:,} steps are not shown: -o text and -o json have them")


def _draw_part(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        click.echo(f"\n{title}")
        write_table(heads, rows)


def _child(child: RunInfo) -> tuple[str, ...]:
    return (child.id, child.workflow, str(child.status))


def _step_row(step: StepInfo, line: Timeline) -> tuple[str, ...]:
    return (
        step.position,
        step.name,
        step.kind,
        line.bar(step),
        f"+{took(max(0.0, (step.recorded - line.begin).total_seconds()))}",
        took(step.seconds),
        str(step.attempts),
        str(step.worker),
        f"✗ {_told(step)}" if step.failed else _told(step),
    )
