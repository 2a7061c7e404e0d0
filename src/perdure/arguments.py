"""What callers give, checked where they see the error: of the type that is meant, and text that the database takes.

A wrong value that goes through ends as an error of the driver, which names a column and not the argument; or, worse, it
means something else, as a text does that is taken for a list of its letters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

MOST = 10_000
"""Runs of one page."""
BIGINT = 2**63


class HasName(Protocol):
    """A definition."""

    @property
    def name(self) -> str:
        """Its stored name."""
        ...


class Defined(Protocol):
    """A workflow: what has a definition."""

    @property
    def definition(self) -> HasName:
        """What is stored of it in the registry."""
        ...


class HasId(Protocol):
    """What stands for a run: a handle, or what is known of it."""

    @property
    def id(self) -> str:
        """Of the run."""
        ...


def one_or_more(value: Any) -> list[Any]:
    """Return a list of what may be one value or a sequence of them."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value]
    several: Sequence[Any] = value  # pyright: ignore[reportUnknownVariableType]  (of whatever it is)
    return list(several)


def names_of(workflows: Any) -> Any:
    """Names of workflows, of which one or several may be given themselves; anything else as it is."""
    if isinstance(workflows, str) or workflows is None:
        return workflows
    names = [_name_of(each) for each in one_or_more(workflows)]
    return names[0] if len(names) == 1 else tuple(names)


def _name_of(workflow: Any) -> Any:
    return getattr(getattr(workflow, "definition", None), "name", workflow)


def text(value: Any, what: str) -> None:
    """Refuse what is no text, or none that a run can have.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is a text, not {value!r}")  # noqa: TRY004 - a filter's fields have one class of error
    _storable(value, what)


def texts(value: Any, what: str) -> None:
    """Refuse what is neither a text nor several.

    Raises:
        ValueError: it is neither.
    """
    for each in one_or_more(value):
        if not isinstance(each, str):
            raise ValueError(f"{what} is a text or several, not {value!r}")  # noqa: TRY004
        _storable(each, what)


def moment(value: Any, what: str) -> None:
    """Refuse what is no time with a zone.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{what} needs an aware datetime, such as datetime.now(UTC), not {value!r}")


def numbers(value: Any, what: str) -> None:
    """Refuse what is neither a number of a worker nor several.

    Raises:
        ValueError: it is neither.
    """
    for each in one_or_more(value):
        if not _whole(each) or not 0 <= each < BIGINT:
            raise ValueError(f"{what} is a number or several, not {value!r}")


def tags(value: Any, what: str) -> None:
    """Refuse what are no tags that could be searched.

    Raises:
        ValueError: they are none.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError("no mapping")
        json.dumps(dict(value), allow_nan=False)  # pyright: ignore[reportUnknownArgumentType]  (whatever it has)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{what} is a mapping of names to JSON values, not {value!r}") from None
    _storable(value, what)


def limit(value: Any, what: str) -> None:
    """Refuse what is no number of things to list.

    Raises:
        ValueError: it is none.
    """
    if not _whole(value) or not 1 <= value <= MOST:
        raise ValueError(
            f"{what} is between 1 and {MOST:,}, not {value!r}; use cursor= for the next page of runs"
        )


def count(value: Any, what: str) -> None:
    """Refuse what is no number of things, of which there may be none.

    Raises:
        ValueError: it is none.
    """
    if not _whole(value) or not 0 <= value <= MOST:
        raise ValueError(f"{what} is between 0 and {MOST:,}, not {value!r}")


def truth(value: Any, what: str) -> bool:
    """Return what is True or False.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {value!r}")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _storable(value: Any, what: str) -> None:
    if not _is_text(value):
        raise ValueError(f"{what} holds a NUL or a lone surrogate, which no run can have")


def _is_text(value: Any) -> bool:
    """Whether all text in a value of a filter is text that the database takes."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        items: Mapping[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]  (of whatever it is)
        return all(_is_text(name) and _is_text(item) for name, item in items.items())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        several: Sequence[Any] = value  # pyright: ignore[reportUnknownVariableType]  (of whatever it is)
        return all(_is_text(item) for item in several)
    return True
