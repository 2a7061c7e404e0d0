"""Unions: plain where JSON tells the members apart, else tagged by us with the member's name.

A tagged object is `{"$type": "Card", ...its fields}`, any other tagged value `{"$type": "date", "$value":
...}`. Only members that JSON cannot tell apart are tagged, so that `A | None`, `int | str` and `list[A] | A`
look as anybody would write them. A tag selects among the annotation's own members and nothing else: a row
can never choose a class. An object without a tag (written by hand, or when the annotation had one class only)
is taken by the one member whose fields it has.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from perdure.serial.fields import Structure
from perdure.serial.shapes import (
    INT,
    OBJECT,
    Annotation,
    Misfit,
    Real,
    Scalar,
    Shape,
    describe,
    is_union,
    kind_of,
)

TAG: Final = "$type"
VALUE: Final = "$value"


class Union(Shape):
    """One of several shapes."""

    def __init__(self, annotation: Annotation, members: tuple[Annotation, ...]) -> None:
        super().__init__(annotation)
        self._annotations = members

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        # By name, as `A | B` and `B | A` are equal and so share one entry in the cache.
        shapes = [compile(member) for member in sorted(self._annotations, key=_order)]
        self.members = tuple(dict.fromkeys(shapes))
        tagged = _must_tag(self.members)
        self.native = not tagged or _has_tags_of_its_own(self.members)
        self._tags = _name({shape for shape in self.members if shape in tagged})
        self._by_tag = {tag: shape for shape, tag in self._tags.items()}
        self._by_tag |= {describe(shape.annotation, full=True): shape for shape in self._tags}
        self.kinds = frozenset().union(*(shape.kinds for shape in self.members))
        if self._tags:
            self.kinds |= {OBJECT}
        self.types = tuple({cls for shape in self.members for cls in shape.types})
        self.passes = _passes(self.members)
        ordered = sorted(self.members, key=lambda shape: shape in tagged)
        self._by_type = {cls: [m for m in ordered if cls in m.types or not m.types] for cls in self.types}
        self._ordered = ordered
        if int not in self.types and any(INT in shape.kinds for shape in self.members):
            # An int under `Level | float` is a float, and must be written as one, as `Level` reads 1 as well.
            self.native = self.native and not any(isinstance(shape, Real) for shape in self.members)
        self._plain: dict[str, Shape] = {}
        for claim in ("also", "kinds"):
            for shape in ordered:
                if shape not in tagged:
                    self._plain |= dict.fromkeys(getattr(shape, claim), shape)

    def children(self) -> Iterable[Shape]:
        return self.members

    def check(self, value: object) -> None:
        self._choose(value)

    def _choose(self, value: object) -> Shape:
        candidates = self._by_type.get(type(value))
        if candidates is not None and len(candidates) == 1:
            candidates[0].check(value)
            return candidates[0]
        first: Misfit | None = None
        for shape in self._ordered if candidates is None else candidates:
            try:
                shape.check(value)
                return shape
            except Misfit as misfit:
                first = first or misfit
        if candidates and first is not None:
            raise first
        raise Misfit(f"expected {self.name}, got {type(value).__name__}, which is none of them")

    def write(self, value: object) -> object:
        if self.native:
            return value
        shape = self._choose(value)
        tag = self._tags.get(shape)
        if tag is None:
            return shape.write(value)
        plain = msgspec.to_builtins(shape.write(value), str_keys=True)
        if shape.inline and isinstance(plain, dict) and TAG not in plain and VALUE not in plain:
            return {TAG: tag, **plain}
        return {TAG: tag, VALUE: plain}

    def lift(self, plain: object) -> object:
        if isinstance(plain, dict) and self._tags and TAG in plain:
            return self._lift_tagged(plain)
        shape = self._plain.get(kind_of(plain))
        return self._guess(plain) if shape is None else shape.read(plain)

    def _lift_tagged(self, plain: dict[str, object]) -> object:
        tag = plain[TAG]
        shape = self._by_tag.get(tag) if isinstance(tag, str) else None
        if shape is None:
            raise Misfit(f"{TAG} {tag!r} is none of {', '.join(sorted(self._tags.values()))}")
        if VALUE in plain and len(plain) == 2:
            return shape.read(plain[VALUE])
        return shape.read({key: item for key, item in plain.items() if key != TAG})

    def _guess(self, plain: object) -> object:
        """Read a value without the tag it should have, if exactly one member takes it."""
        kind, found = kind_of(plain), []
        for shape in self.members:
            if kind in shape.kinds and (not isinstance(plain, dict) or shape.accepts(plain)):
                try:
                    found.append(shape.read(plain))
                except Misfit:
                    continue
        if len(found) == 1:
            return found[0]
        tags = ", ".join(sorted(self._tags.values()))
        raise Misfit(f"expected {self.name} with a {TAG}, which is one of: {tags}")


def _must_tag(members: tuple[Shape, ...]) -> set[Shape]:
    tagged: set[Shape] = set()
    while True:
        claims: dict[str, list[Shape]] = {}
        for shape in members:
            for kind in shape.kinds:
                claims.setdefault(kind, []).append(shape)
        more = {
            shape
            for kind, shapes in claims.items()
            if len(shapes) > 1 or (kind == OBJECT and tagged)
            for shape in shapes
            if not _keeps_its_kind(shape, shapes)
        }
        if more <= tagged:
            return tagged
        tagged |= more


def _keeps_its_kind(shape: Shape, rivals: list[Shape]) -> bool:
    """Let `str`, `int`, ... and a sole `list` stay as they are: the others are marked, so it is clear."""
    if isinstance(shape, Scalar):
        return shape.type in (type(None), bool, int, float, str)
    return shape.types == (list,) and sum(rival.types == (list,) for rival in rivals) == 1


def _has_tags_of_its_own(members: tuple[Shape, ...]) -> bool:
    """Tell whether all that collide are msgspec.Structs with tags, which msgspec tells apart by itself."""
    objects = [shape for shape in members if OBJECT in shape.kinds]
    if not all(isinstance(shape, Structure) and shape.tag is not None for shape in objects):
        return False
    others = tuple(shape for shape in members if OBJECT not in shape.kinds)
    return not _must_tag(others)


def _name(shapes: set[Shape]) -> dict[Shape, str]:
    short = {shape: describe(shape.annotation) for shape in shapes}
    names = list(short.values())
    return {
        shape: name if names.count(name) == 1 else describe(shape.annotation, full=True)
        for shape, name in short.items()
    }


def _order(annotation: Annotation) -> str:
    return describe(annotation, full=True)


def _passes(members: tuple[Shape, ...]) -> frozenset[type]:
    # With `float` and without `int`, an int comes back as a float.
    passes = frozenset[type]().union(*(shape.passes for shape in members))
    return passes if any(INT in shape.kinds for shape in members) else passes - {int}


def flatten(annotation: Annotation) -> tuple[Annotation, ...]:
    """List the members of a union, those of unions within it too."""
    found: list[Annotation] = []
    for member in typing.get_args(annotation):
        found.extend(flatten(member) if is_union(typing.get_origin(member)) else [member])
    return tuple(found)
