"""Which classes an annotation could help to store: errors give that advice only where it is true."""

from __future__ import annotations

import enum
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

_PLAIN: Final = (
    *(int, float, str, bytes, bytearray, tuple, set, frozenset, list, dict, enum.Enum),
    *(date, time, timedelta, Decimal, UUID),
)
_FIELDS: Final = ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__", "__pydantic_fields__")
"""What classes with fields are known by: dataclasses, msgspec's, attrs' and pydantic's."""


def can_be_carried(kind: type) -> bool:
    """Whether values of this class could be stored, if an annotation said that they are."""
    return issubclass(kind, _PLAIN) or any(hasattr(kind, mark) for mark in _FIELDS)
