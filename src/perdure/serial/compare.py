"""Finding where a value that was read back differs from the one that was written.

Needed only where user code runs in between (after-init hooks, pydantic's serializers and validators): all
else is checked before it is written. Equality as classes define it will not do: it ignores what a class
leaves out of comparison, and fails for private state that is not stored on purpose.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any


def difference(given: object, back: object) -> str | None:
    """Return the path to the first difference; an empty path for the whole, None if there is none.

    Lists and tuples compare by items, numbers by value; classes that are unknown here count as equal if
    their own equality cannot tell.
    """
    names = _field_names(given)
    if names is not None:
        if type(given) is not type(back):
            return ""
        return _first((f".{name}", getattr(given, name, None), getattr(back, name, None)) for name in names)
    if isinstance(given, list | tuple):
        if not isinstance(back, list | tuple) or len(given) != len(back):
            return ""
        return _first((f"[{i}]", a, b) for i, (a, b) in enumerate(zip(given, back, strict=True)))
    if isinstance(given, Mapping):
        if not isinstance(back, Mapping) or len(given) != len(back):
            return ""
        entries = zip(given.items(), back.items(), strict=True)
        return _first((f"[{key!r}]", a, b) for (key, a), (_, b) in entries)
    return "" if _tell_apart(given, back) else None


def _first(parts: Any) -> str | None:  # a generator of triples
    for name, given, back in parts:
        inner = difference(given, back)
        if inner is not None:
            return f"{name}{inner}"
    return None


def _tell_apart(given: object, back: object) -> bool:
    """Use the value's own equality, if it has one: objects compared by identity are never equal."""
    if type(given).__eq__ is object.__eq__:
        return False
    try:
        return bool(given != back)
    except Exception:  # an array's equality is an array
        return False


def find_surrogate(value: object) -> str | None:
    """Return the path to the first text that UTF-8 cannot carry; None if there is none."""
    if isinstance(value, str):
        return "" if any("\ud800" <= character <= "\udfff" for character in value) else None
    names = _field_names(value)
    if names is not None:
        parts = [(f".{name}", getattr(value, name, None)) for name in names]
    elif isinstance(value, Mapping):
        parts = [(".keys()", list(value)), *((f"[{key!r}]", item) for key, item in value.items())]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [(f"[{index}]", item) for index, item in enumerate(value)]
    else:
        return None
    for name, item in parts:
        inner = find_surrogate(item)
        if inner is not None:
            return f"{name}{inner}"
    return None


def _field_names(value: object) -> list[str] | None:
    cls = type(value)
    model_fields = getattr(cls, "__pydantic_fields__", None)
    if isinstance(model_fields, dict):
        return [name for name, field in model_fields.items() if not getattr(field, "exclude", None)]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    struct_fields: Any = getattr(cls, "__struct_fields__", None)
    if struct_fields is not None:
        return list(struct_fields)
    if "__attrs_attrs__" in vars(cls):
        return [field.name for field in sys.modules["attr"].fields(cls)]
    return None
