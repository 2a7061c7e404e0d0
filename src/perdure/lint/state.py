"""State: what outlives a run in the memory of its process, and so is changed again by every replay."""

from __future__ import annotations

import ast
import os
import sys
from collections import deque
from typing import Final

from perdure.lint.expressions import meaning_of
from perdure.lint.objects import UNKNOWN, Meaning
from perdure.lint.scopes import Scope

_CONTAINERS: Final = (list, dict, set, deque, bytearray)
_CHANGES: Final = {
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert",
    "intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "rotate", "setdefault", "sort",
    "symmetric_difference_update", "update",
}  # fmt: skip


def changed_outside(node: ast.Attribute | ast.Subscript, scope: Scope) -> bool:
    """Whether setting or deleting this changes what was there before the run."""
    if _is_outside(meaning_of(node.value, scope)):
        return True
    root: ast.expr = node
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    return isinstance(root, ast.Name) and scope.holder(root.id) is None


def changes_outside(call: ast.Call, scope: Scope) -> bool:
    """Whether a call is a method that changes a container that was there before the run."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _CHANGES:
        return False
    holder = meaning_of(call.func.value, scope)
    return _is_outside(holder) and holder is not None and issubclass(type(holder.value), _CONTAINERS)


def setting_of(meaning: Meaning | None) -> str | None:
    """The name of what this process was given by whoever started it: its environment, arguments or input."""
    if meaning is None or not _is_outside(meaning) or meaning.value is None:
        return None
    settings = {
        "os.environ": os.environ,
        "os.environb": getattr(os, "environb", None),
        "sys.argv": sys.argv,
        "sys.stdin": sys.stdin,
    }
    return next((name for name, there in settings.items() if there is meaning.value), None)


def _is_outside(meaning: Meaning | None) -> bool:
    return meaning is not None and meaning.value is not UNKNOWN and not meaning.instance
