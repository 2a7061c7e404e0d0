"""Tags that a run gives itself: what it is found by, as it goes along.

They ride on the step that sets them, in the same commit; a replay finds the step and changes nothing, whoever has
changed the tags since.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from perdure.core.branch import Branch
from perdure.core.gate import Call, Told
from perdure.core.recorded import recorded
from perdure.models import Kind
from perdure.store.records import TagsRecord


def set_tags(branch: Branch, tags: Mapping[str, Any]) -> Generator[Any, Any, None]:
    """Merge tags into the run's; one that is None is taken away."""
    run, stored = branch.run, msgspec.json.encode(tags)

    def produce(call: Call) -> Generator[Any, Any, Told]:
        told = Told(False, stored, None)
        told.with_records = [TagsRecord(run.key, call.position, stored.decode())]
        return told
        yield  # a generator, as every operation is

    return recorded(branch, Kind.SET_TAGS, "set_tags", produce, _nothing)


def _nothing(_value: bytes) -> None:
    return None
