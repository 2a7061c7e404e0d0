"""Which runs something is done to, as keywords: the fields of a `RunFilter`, why, and who wants to hear how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, TypedDict

from perdure.arguments import Defined, HasId
from perdure.models import RunFilter, Status

Id = str | HasId
"""The id of a run, or what has it: a handle, a `RunInfo`."""
Ids = Id | Sequence[Id]
"""One, or several."""
Which = Ids | RunFilter
"""One run, several, or a filter."""
Several = list[str] | list[HasId] | list[Id] | tuple[Id, ...] | RunFilter
"""The same without one id, which is a sequence of texts too."""
Chosen = str | tuple[str, ...] | RunFilter
"""What is left of these when they are read."""
Progress = Callable[[int], None]


class Filters(TypedDict, total=False):
    """Fields of a `RunFilter`, but for `version`, which is a verb's own with some."""

    status: Status | str | Sequence[Status | str] | None
    workflow: Defined | str | Sequence[Defined | str] | None
    queue: str | Sequence[str] | None
    worker: int | Sequence[int] | None
    tags: Mapping[str, Any] | None
    ids: Ids | None
    prefix: str | None
    parent: str | None
    created_after: datetime | None
    created_before: datetime | None
    finished_after: datetime | None
    finished_before: datetime | None
    error: str | None
    limit: int | None
    cursor: str | None


class Asked(Filters, total=False):
    """What every verb that takes a filter takes besides."""

    reason: str | None
    """For the audit."""
    progress: Progress | None
    """Called after each transaction, with the number of runs reached so far."""


class AskedOfVersion(Asked, total=False):
    """The same, where `version` is that of the filter."""

    version: str | Sequence[str] | None


class Forked(TypedDict, total=False):
    """How a fork is to differ from what it is forked from; see `Runs.fork`."""

    from_step: str | int | None
    outputs: Mapping[str, Any] | Mapping[int, Any] | None
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    new_id: str | None
    version: str | None
    queue: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """Which runs something is done to, why, and who wants to hear how far it is."""

    which: Chosen
    reason: str | None = None
    progress: Progress | None = None

    @classmethod
    def of(cls, which: Which | None, asked: Mapping[str, Any]) -> Command:
        """The command for ids or a filter, or the fields of one as keywords; one that is None is not said.

        Raises:
            TypeError: both, or neither (all runs are meant by an empty `RunFilter()`), or a keyword that is none.
            ValueError: a keyword is empty, or has a value that it cannot have.
        """
        said = dict(asked)
        reason, progress = said.pop("reason", None), said.pop("progress", None)
        check_fields(said)
        said = {name: value for name, value in said.items() if value is not None}
        if (which is None) == (not said.keys() - _PAGE) or (which is not None and said):
            raise TypeError(
                "say which runs: an id, ids, a RunFilter or its fields as keywords; RunFilter() is all"
            )
        if which is not None:
            return cls(read_which(which), reason, progress)
        _refuse_empty({name: said.get(name) for name in ("prefix", "tags", "error", "parent", "ids")})
        if "ids" in said:
            ids = read_which(said["ids"])
            said["ids"] = (ids,) if isinstance(ids, str) else ids
        return cls(RunFilter(**said), reason, progress)


_PAGE: Final = {"limit", "cursor"}
"""How many are meant, and from where on: not which."""


def _refuse_empty(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, str | Sequence | Mapping) and not value:
            raise ValueError(f"{name}= is empty, which says nothing: RunFilter() is all runs")


def read_which(which: Any) -> Chosen:
    """An id, ids or a filter, whatever stands for them.

    Raises:
        TypeError: it is none of these.
        ValueError: a field of the filter is empty, so that it would be all runs.
    """
    if isinstance(which, RunFilter):
        _refuse_empty({name: getattr(which, name) for name in ("prefix", "tags", "error")})
        return which
    if not isinstance(which, str) and isinstance(which, Iterable) and not isinstance(which, bytes | Mapping):
        several: Iterable[Any] = which  # pyright: ignore[reportUnknownVariableType]  (of whatever it is)
        return tuple(dict.fromkeys(id_of(each) for each in several))
    return id_of(which)


def id_of(run: Any) -> str:
    """The id of a run: itself, or what a handle or a `RunInfo` has.

    Raises:
        TypeError: it is none.
    """
    id = run if isinstance(run, str) else getattr(run, "id", None)
    if not isinstance(id, str):
        raise TypeError(f"a run is given by its id, or by its handle, not as {run!r}")
    return id


def check_fields(filters: Mapping[str, Any]) -> None:
    """Refuse keywords that are no fields of a `RunFilter`.

    Raises:
        TypeError: one is none.
    """
    for name in filters:
        if name not in (known := [field.name for field in fields(RunFilter)]):
            raise TypeError(f"there is no filter {name!r}: they are {', '.join(known)}")
