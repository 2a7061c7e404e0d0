"""Settings: an argument beats its environment variable, which beats the default."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


def setting(name: str, given: Any, default: T, read: Callable[[str], Any]) -> T:
    """A setting: the argument, else its environment variable, else the default."""
    if given is not None:
        return cast("T", given)
    text = os.environ.get(f"PERDURE_{name.upper()}")
    if text is None:
        return default
    try:
        return cast("T", read(text))
    except ValueError:
        raise ValueError(f"PERDURE_{name.upper()} is {text!r}, which is no value for {name}=") from None


def truth(text: str) -> bool:
    """Read yes or no."""
    value = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in value:
        raise ValueError(text)
    return value[text.lower()]


def at_least_one(name: str, value: int) -> int:
    """Refuse a count below one."""
    if value < 1:
        raise ValueError(f"{name}= must be at least 1, not {value}")
    return value
