"""Starts that are merged into one run, as long as it has not begun."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.store.database import Database


def start_merged(
    database: Database, workflow: str, input: bytes, options: Mapping[str, Any], merge: Mapping[str, Any]
) -> tuple[int, str, bool]:
    """Merge a start: key and id of the run it is part of now, and whether it made it. It may be repeated."""
    parameters = {
        "workflow": workflow,
        "input": input,
        "options": msgspec.json.encode(dict(options)).decode(),
        "merge": msgspec.json.encode(dict(merge)).decode(),
        "part": uuid.uuid4().hex,
    }
    ((key, id, born),) = database.run("start_merged", parameters)
    return int(key), str(id), bool(born)


def is_list(input: bytes) -> bool:
    """Whether stored arguments are one list, which others can be added to."""
    call = msgspec.json.decode(input)
    args = call.get("args", []) if isinstance(call, dict) else []
    return set(call) == {"args"} and len(args) == 1 and isinstance(args[0], list)
