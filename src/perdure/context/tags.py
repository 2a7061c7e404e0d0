"""Tags of a run, for async code."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from perdure.client import check_tags, current_app, on_loop
from perdure.context.branch import async_branch
from perdure.core.branch import current
from perdure.core.tags import set_tags as set_tags_operation


def set_tags(tags: Mapping[str, Any]) -> Coroutine[object, None, None]:
    """Change what the run is found by: the tags given here are merged into those that it has.

    Recorded with the run's next commit, once: a replay does not set them again, whoever has changed them since.

    Args:
        tags: names to JSON values; a tag that is None is taken away.

    Raises:
        NotInWorkflow: outside of a workflow's own code; there, use `app.runs.set_tags`.
        ValueError: they are no tags.

    Example:
        await perdure.set_tags({"state": "paid", "hold": None})
    """
    branch, checked = async_branch("perdure.set_tags"), check_tags(tags)
    return on_loop(lambda: set_tags_operation(current.get() or branch, checked), current_app())
