"""What a log line carries of a run besides its text, for handlers that write fields: the `extra` of the standard library.

Only lines that tell of trouble have them, so a run that goes well pays nothing.
"""

from __future__ import annotations

from typing import Any


def marks(run: str, workflow: str, step: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    """The fields of a log record: `perdure_run` and `perdure_workflow`, and of a step `perdure_step` and `perdure_attempt`.

    Args:
        run: id of the run.
        workflow: its stored name.
        step: stored name of the step that the line is about.
        attempt: which attempt of it, from 1.
    """
    fields: dict[str, Any] = {"perdure_run": run, "perdure_workflow": workflow}
    if step is not None:
        fields["perdure_step"] = step
    if attempt is not None:
        fields["perdure_attempt"] = attempt
    return fields
