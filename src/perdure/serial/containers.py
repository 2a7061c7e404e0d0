"""The shapes of lists, sets, tuples and dicts.

A container is native as long as everything in it is. Abstract annotations (`Sequence`, `Mapping`, ...)
accept what Python calls one and come back as the plain list, set or dict. A dict whose keys have no form as
a JSON key (tuples, unions) is written as a list of pairs.
"""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

from perdure.serial.shapes import (
    ARRAY,
    OBJECT,
    Annotation,
    Choice,
    Member,
    Misfit,
    Scalar,
    Shape,
    Untyped,
)

_LISTS: Final = (list, tuple)
_GROUPS: Final = (list, tuple, set, frozenset)

# origin -> (classes accepted, the class that comes back)
COLLECTIONS: Final[dict[object, tuple[tuple[type, ...], type]]] = {
    list: ((list,), list),
    set: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    collections.abc.Sequence: (_LISTS, list),
    collections.abc.MutableSequence: ((list,), list),
    collections.abc.Collection: (_GROUPS, list),
    collections.abc.Iterable: (_GROUPS, list),
    collections.abc.Set: ((set, frozenset), set),
    collections.abc.MutableSet: ((set,), set),
}
MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class Collection(Shape):
    """A list, set or frozenset of one kind of item."""

    kinds = frozenset((ARRAY,))

    def __init__(self, annotation: Annotation, origin: object, item: Annotation) -> None:
        super().__init__(annotation)
        self.types, self.result = COLLECTIONS[origin]
        self._annotation_of_item = item

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        self.item = compile(self._annotation_of_item)

    def children(self) -> Iterable[Shape]:
        return (self.item,)

    def check(self, value: object) -> None:
        if type(value) not in self.types:
            raise self.misfit(value)
        check = self.item.check
        index = 0
        try:
            for index, item in enumerate(typing.cast("Iterable[object]", value)):  # noqa: B007
                check(item)
        except Misfit as misfit:
            raise misfit.inside(f"[{index}]") from None

    def write(self, value: object) -> object:
        if self.native:
            return value
        write = self.item.write
        return [write(item) for item in typing.cast("Iterable[object]", value)]

    def lift(self, plain: object) -> object:
        return self.result(read_items(plain, (self.item.read for _ in _list(plain, self.name))))


class FixedTuple(Shape):
    """`tuple[A, B]`: so many items, each of its own shape."""

    kinds = frozenset((ARRAY,))
    types = (tuple,)

    def __init__(self, annotation: Annotation, items: tuple[Annotation, ...]) -> None:
        super().__init__(annotation)
        self._annotations_of_items = items

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        self.items = tuple(compile(item) for item in self._annotations_of_items)

    def children(self) -> Iterable[Shape]:
        return self.items

    def check(self, value: object) -> None:
        if type(value) is not tuple:
            raise self.misfit(value)
        if len(value) != len(self.items):
            raise Misfit(f"expected {self.name}, got a tuple of {len(value)}")
        for index, (shape, item) in enumerate(zip(self.items, value, strict=True)):
            try:
                shape.check(item)
            except Misfit as misfit:
                raise misfit.inside(f"[{index}]") from None

    def write(self, value: object) -> object:
        if self.native:
            return value
        items = typing.cast("tuple[object, ...]", value)
        return [shape.write(item) for shape, item in zip(self.items, items, strict=True)]

    def lift(self, plain: object) -> object:
        if len(_list(plain, self.name)) != len(self.items):
            raise Misfit(f"expected {self.name}, got an array of {len(_list(plain, self.name))}")
        return tuple(read_items(plain, (shape.read for shape in self.items)))


class RunningTuple(Collection):
    """`tuple[A, ...]`: any number of items of one shape."""

    def __init__(self, annotation: Annotation, item: Annotation) -> None:
        super().__init__(annotation, list, item)
        self.types, self.result = (tuple,), tuple


class Dictionary(Shape):
    """A dict; keys of one scalar class become JSON keys, other keys make it a list of pairs."""

    types = (dict,)

    def __init__(self, annotation: Annotation, key: Annotation, item: Annotation) -> None:
        super().__init__(annotation)
        self._annotations = key, item

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        self.key, self.item = map(compile, self._annotations)
        self._pairs = not _is_key(self.key)
        self.native = not self._pairs
        self._text_keys = self.key.annotation is str or isinstance(self.key, Untyped)
        self.kinds = frozenset((ARRAY if self._pairs else OBJECT,))

    def children(self) -> Iterable[Shape]:
        return self.key, self.item

    def check(self, value: object) -> None:
        if type(value) is not dict:
            raise self.misfit(value)
        check_key, check_item = self.key.check, self.item.check
        untyped = isinstance(self.key, Untyped)
        for key, item in value.items():
            if untyped and type(key) is not str:
                raise Misfit(f"{self.name} must have str keys, got {type(key).__name__}: annotate the key")
            try:
                check_key(key)
                check_item(item)
            except Misfit as misfit:
                raise misfit.inside(f"[{key!r}]" if type(key) in (str, int) else "[...]") from None

    def write(self, value: object) -> object:
        if self.native:
            return value
        entries = typing.cast("dict[object, object]", value).items()
        if self._pairs:
            return [[self.key.write(key), self.item.write(item)] for key, item in entries]
        return {key: self.item.write(item) for key, item in entries}

    def lift(self, plain: object) -> object:
        found: dict[object, object] = {}
        if self._pairs:
            for pair in _list(plain, self.name):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise Misfit(f"expected {self.name} as a list of pairs")
                found[self.key.read(pair[0])] = self.item.read(pair[1])
            return found
        if not isinstance(plain, dict):
            raise Misfit(f"expected {self.name} as an object")
        keys: Iterable[object] = plain
        if not self._text_keys:
            # Only msgspec knows how each class is spelt as a JSON key: let it read the keys alone.
            annotation: Any = self.key.annotation  # an annotation made at run time
            keys = Shape.read(_KeyReader(dict[annotation, None]), dict.fromkeys(plain))  # type: ignore[assignment]
        for key, (name, item) in zip(keys, plain.items(), strict=True):
            try:
                found[key] = self.item.read(item)
            except Misfit as misfit:
                raise misfit.inside(f"[{name!r}]") from None
        return found


class _KeyReader(Shape):
    """Reads nothing but the keys of a dict."""


def _is_key(key: Shape) -> bool:
    key = getattr(key, "inner", key)  # `Annotated` with constraints
    if isinstance(key, Untyped):
        return True
    if isinstance(key, Scalar):
        return key.type not in (type(None), bool, bytearray)
    if isinstance(key, Choice):
        return key.native and key.classes == frozenset((str,))
    return isinstance(key, Member) and key.native


def _list(plain: object, name: str) -> list[object]:
    if not isinstance(plain, list):
        raise Misfit(f"expected {name} as an array")
    return plain


def read_items(plain: object, readers: Iterable[Callable[[object], object]]) -> list[object]:
    """Read each item of a decoded array by its own reader, naming the place of one that fails."""
    found: list[object] = []
    for index, (read, item) in enumerate(zip(readers, typing.cast("list[object]", plain), strict=True)):
        try:
            found.append(read(item))
        except Misfit as misfit:
            raise misfit.inside(f"[{index}]") from None
    return found
