"""The values in an exception's `args` and attributes, which have no annotations.

JSON carries them where it can; the few standard scalars and containers besides are marked by name, a closed
list that has no place for a class of anybody's. What is left is kept as its text: an error that is half
readable is worth more than one that could not be stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec

from perdure.serial.text import storable_text

_TYPE: Final = "$type"
_VALUE: Final = "$value"
_DEEPEST: Final = 20
_LONGEST_REPR: Final = 1000

_SCALARS: Final = {cls.__name__: cls for cls in (bytes, datetime, date, time, timedelta, UUID)}
_CONTAINERS: Final[dict[str, Callable[[list[object]], object]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def loosen(value: object, *, strict: bool = False, depth: int = 0) -> object:
    """Return JSON for a value of unknown type.

    Args:
        value: anything.
        strict: raise for what cannot come back, instead of keeping its text.
        depth: how many containers are around it; beyond 20 only the text is kept.

    Raises:
        ValueError: `strict`, and the value is of no known class.
    """
    if value is None or isinstance(value, bool):
        return value
    if depth < _DEEPEST:
        for plain in (int, str, float):
            if isinstance(value, plain) and (not strict or type(value) is plain):
                return _loosen_plain(plain(value))
        name = type(value).__name__
        if type(value) is Decimal:
            return {_TYPE: name, _VALUE: str(value)}
        if type(value) is _SCALARS.get(name):
            return {_TYPE: name, _VALUE: msgspec.to_builtins(value)}
        if type(value) is list:
            return [loosen(item, strict=strict, depth=depth + 1) for item in value]
        if isinstance(value, tuple | set | frozenset) and name in _CONTAINERS:
            return {_TYPE: name, _VALUE: [loosen(item, strict=strict, depth=depth + 1) for item in value]}
        if type(value) is dict and all(type(key) is str for key in value):
            keyed = ((storable_text(key), item) for key, item in value.items())
            deeper = depth + 1
            items = {key: loosen(item, strict=strict, depth=deeper) for key, item in keyed}
            return {_TYPE: "dict", _VALUE: items} if _TYPE in items else items
    if strict:
        raise ValueError(f"{type(value).__name__} has no form in JSON")
    return _text_of(value)


def tighten(plain: object) -> object:
    """Return the value that `loosen` made JSON of.

    Raises:
        ValueError: it is not of the closed list.
    """
    if isinstance(plain, list):
        return [tighten(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if _TYPE not in plain:
        return {key: tighten(item) for key, item in plain.items()}
    name, inner = plain[_TYPE], plain.get(_VALUE)
    if name == "dict" and isinstance(inner, dict):
        return {key: tighten(item) for key, item in inner.items()}
    if name in ("Decimal", "float") and isinstance(inner, str):
        try:
            return Decimal(inner) if name == "Decimal" else float(inner)
        except ArithmeticError as error:
            raise ValueError(f"{inner!r} is no {name}") from error
    if isinstance(name, str) and name in _SCALARS:
        return msgspec.convert(inner, _SCALARS[name])
    if isinstance(name, str) and name in _CONTAINERS and isinstance(inner, list):
        return _CONTAINERS[name]([tighten(item) for item in inner])
    raise ValueError(f"{_TYPE} {name!r} is not known")


def _loosen_plain(value: str | float) -> object:
    if isinstance(value, str):
        # NUL can stay, as this is read by JSON readers alone; a lone surrogate is no JSON.
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {_TYPE: "float", _VALUE: str(value)}
    return value


def _text_of(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr of the user's, in the middle of an error
        text = f"<{type(value).__name__}>"
    return storable_text(text[:_LONGEST_REPR])
