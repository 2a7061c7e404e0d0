"""Tags of a run, for blocking code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.client import blocking, check_tags, current_app
from perdure.context.branch import blocking_branch
from perdure.core.branch import current
from perdure.core.tags import set_tags as set_tags_operation


def set_tags(tags: Mapping[str, Any]) -> None:
    """Change what the run is found by; see `perdure.set_tags`."""
    branch, checked = blocking_branch("perdure.sync.set_tags", "perdure.set_tags"), check_tags(tags)
    blocking(lambda: set_tags_operation(current.get() or branch, checked), current_app())
