"""Factories: default values that a class makes anew for each object, such as an id or a time of its birth.

`field(default_factory=uuid4)` stands far from the workflow that makes the object, and its call says nothing
of it, so it is what escapes the eye most easily.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from typing import Any

from perdure.lint.objects import Meaning, is_a, known


def factories_of(meaning: Meaning, call: ast.Call) -> Iterator[tuple[str, Meaning]]:
    """Yield the fields that a call of a class leaves to their factory, and the factory.

    Args:
        meaning: of what is called; if that is no dataclass and no model of pydantic, there are none.
        call: which, if it has `*args` or `**kwargs`, may fill any field.
    """
    if not is_a(meaning.value, type) or meaning.instance:
        return
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return
    given = {keyword.arg for keyword in call.keywords}
    if None in given:
        return
    for name, factory in _left_out(meaning.value, len(call.args)):
        if name not in given:
            yield name, known(factory)


def _left_out(cls: type, positions: int) -> Iterator[tuple[str, Any]]:
    """The fields with a factory, but for those that so many positional arguments fill."""
    filled = 0
    for name, field in _fields(cls, "__dataclass_fields__").items():
        if not field.init:
            continue
        if not field.kw_only and filled < positions:
            filled += 1
        elif field.default_factory is not MISSING:
            yield name, field.default_factory
    for name, field in _fields(cls, "__pydantic_fields__").items():
        if field.default_factory is not None:
            yield field.alias or name, field.default_factory


def _fields(cls: type, attribute: str) -> Mapping[str, Any]:
    """The fields that dataclasses or pydantic leave in a class; theirs to know of what type they are."""
    found = vars(cls).get(attribute)
    return found if isinstance(found, dict) else {}
