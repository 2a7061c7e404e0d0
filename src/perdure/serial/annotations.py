"""From an annotation to its shape, each compiled once.

Compiling walks the annotation to its end, classes and their fields too; a class or an alias that contains
itself meets its own unfinished shape. Then each shape is settled: it is native, and left to msgspec, if
everything within reach is native and msgspec agrees.
"""

from __future__ import annotations

import enum
import threading
import typing
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from perdure.serial.containers import (
    COLLECTIONS,
    MAPPINGS,
    Collection,
    Dictionary,
    FixedTuple,
    RunningTuple,
)
from perdure.serial.fields import class_with_fields, init_variables
from perdure.serial.hints import Unresolved, alias_value, substitute
from perdure.serial.models import Model, is_model
from perdure.serial.shapes import (
    Annotation,
    Choice,
    Member,
    Shape,
    Unsupported,
    Untyped,
    is_distinct,
    is_union,
    scalars,
)
from perdure.serial.unions import Union, flatten

_MOST_SHAPES: Final = 20_000
_lock: Final = threading.RLock()
_shapes: Final[dict[Annotation, Shape]] = {}
_QUALIFIERS: Final = ("Final", "Required", "NotRequired", "ReadOnly", "ClassVar")
_SCALARS: Final = scalars()


def shape_of(annotation: Annotation) -> Shape:
    """Return the shape of an annotation, from the cache if it was compiled before."""
    try:
        found = _shapes.get(annotation)
    except TypeError:  # unhashable metadata
        found = None
    if found is not None:
        return found
    with _lock:
        compiler = _Compiler()
        shape = compiler.compile(annotation)
        _settle(shape)
        if len(_shapes) > _MOST_SHAPES:
            _shapes.clear()  # annotations are made at run time without end: forget rather than grow
        _shapes.update(compiler.done)
        return shape


class _Constrained(Shape):
    """`Annotated` with constraints of msgspec: checked by decoding, as msgspec does not when it encodes."""

    def __init__(self, annotation: Annotation, inner: Shape) -> None:
        super().__init__(annotation)
        self.inner = inner
        self.kinds, self.also, self.types, self.inline = inner.kinds, inner.also, inner.types, inner.inline
        self.check = inner.check  # type: ignore[method-assign]  # one call less for each value

    def children(self) -> Iterable[Shape]:
        return (self.inner,)

    def write(self, value: object) -> object:
        return self.inner.write(value)

    def lift(self, plain: object) -> object:
        return self.inner.read(plain)


class _Deferred(Shape):
    """An alias within itself (`type Json = ... | list[Json]`)."""

    native = False
    target: Shape

    def children(self) -> Iterable[Shape]:
        return (self.target,)

    def check(self, value: object) -> None:
        self.target.check(value)

    def write(self, value: object) -> object:
        return self.target.write(value)

    def lift(self, plain: object) -> object:
        return self.target.read(plain)


class _Compiler:
    """Compiles one annotation with all that is inside it."""

    def __init__(self) -> None:
        self.done: dict[Annotation, Shape] = {}
        self._aliases: dict[Annotation, list[_Deferred]] = {}

    def compile(self, annotation: Annotation) -> Shape:
        try:
            found = self.done.get(annotation) or _shapes.get(annotation)
        except TypeError:
            found = None
        if found is not None:
            return found
        if type(annotation).__name__ == "TypeAliasType" or _is_filled_alias(annotation):
            return self._alias(annotation)
        shape = self._make(annotation)
        try:
            self.done[annotation] = shape
        except TypeError:
            pass
        shape.link(self.compile)
        return shape

    def _alias(self, annotation: Annotation) -> Shape:
        if annotation in self._aliases:
            deferred = _Deferred(annotation)
            self._aliases[annotation].append(deferred)
            return deferred
        self._aliases[annotation] = []
        shape = self.compile(_alias_value(annotation))
        for deferred in self._aliases.pop(annotation):
            deferred.target = shape
        self.done[annotation] = shape
        return shape

    def _make(self, annotation: Annotation) -> Shape:
        if annotation is None:
            annotation = type(None)
        if annotation is Any or annotation is object:
            return Untyped(annotation)
        if isinstance(annotation, Unresolved):
            return Unsupported(annotation, annotation.reason)
        if isinstance(annotation, typing.TypeVar):
            return self.compile(_bound(annotation))
        if hasattr(annotation, "__supertype__"):  # a NewType
            return self.compile(annotation.__supertype__)
        origin: Any = typing.get_origin(annotation)  # a class or a special form
        arguments = typing.get_args(annotation)
        if hasattr(annotation, "__metadata__"):
            return self._annotated(annotation, arguments)
        if getattr(origin, "_name", getattr(origin, "__name__", "")) in _QUALIFIERS and arguments:
            return self.compile(arguments[0])
        if origin is typing.Literal:
            return Choice(annotation) if is_distinct(annotation) else Unsupported(annotation)
        if is_union(origin):
            return Union(annotation, flatten(annotation))
        return self._class(annotation, origin or annotation, arguments)

    def _annotated(self, annotation: Annotation, arguments: tuple[Annotation, ...]) -> Shape:
        inner = self.compile(arguments[0])
        if any(isinstance(extra, msgspec.Meta) for extra in annotation.__metadata__):
            return _Constrained(annotation, inner)
        return inner

    def _class(self, annotation: Annotation, origin: Any, arguments: tuple[Annotation, ...]) -> Shape:
        if annotation in _SCALARS:
            return _SCALARS[annotation]
        if any(map(_is_unpacked, arguments)):
            return Unsupported(annotation)
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return RunningTuple(annotation, arguments[0])
            return FixedTuple(annotation, arguments) if annotation is not tuple else RunningTuple(tuple, Any)
        if origin in COLLECTIONS:
            return Collection(annotation, origin, arguments[0] if arguments else Any)
        if origin in MAPPINGS:
            key, item = arguments if len(arguments) == 2 else (Any, Any)
            return Dictionary(annotation, key, item)
        if not isinstance(origin, type):
            return Unsupported(annotation)
        if is_model(origin):
            return Model(annotation, origin)
        if issubclass(origin, enum.Enum):
            return Member(origin) if len(origin) else Unsupported(origin)
        if names := init_variables(origin):
            listed = ", ".join(names)
            reason = f"{origin.__name__} has InitVars ({listed}), which are not kept: make them fields"
            return Unsupported(annotation, reason)
        return class_with_fields(annotation, origin, arguments) or Unsupported(annotation)


def _is_unpacked(argument: Annotation) -> bool:
    origin: object = typing.get_origin(argument)
    return getattr(argument, "__unpacked__", False) or origin is typing.Unpack


def _bound(variable: typing.TypeVar) -> Annotation:
    if variable.__constraints__:
        return typing.Union[variable.__constraints__]  # noqa: UP007  # made of a tuple
    return Any if variable.__bound__ is None else variable.__bound__


def _is_filled_alias(annotation: Annotation) -> bool:
    origin: object = typing.get_origin(annotation)
    return type(origin).__name__ == "TypeAliasType"


def _alias_value(annotation: Annotation) -> Annotation:
    origin: Any = typing.get_origin(annotation)  # an alias, whose class is new in Python 3.12
    if origin is None:
        return alias_value(annotation)
    filled = dict(zip(origin.__type_params__, typing.get_args(annotation), strict=False))
    return substitute(alias_value(origin), filled)


def _settle(root: Shape) -> None:
    """Decide for each shape within reach whether msgspec carries it alone."""
    reached: dict[Shape, tuple[Shape, ...]] = {}
    waiting = [root]
    while waiting:
        shape = waiting.pop()
        if shape not in reached:
            reached[shape] = tuple(shape.children())
            waiting.extend(reached[shape])
    _spread(reached)
    for shape in reached:
        if shape.native and not _msgspec_takes(shape.annotation):
            shape.native = False
            _spread(reached)


def _spread(reached: dict[Shape, tuple[Shape, ...]]) -> None:
    changed = True
    while changed:
        changed = False
        for shape, inside in reached.items():
            if not all(child.native for child in inside) and shape.native:
                shape.native, changed = False, True


def _msgspec_takes(annotation: Annotation) -> bool:
    try:
        msgspec.json.Decoder(annotation)
    except Exception:  # a TypeError mostly, a NameError for a forward reference of a local class
        return False
    return True


def within_reach(root: Shape) -> Iterable[Shape]:
    """List the shapes that a value of `root` can contain."""
    reached: dict[Shape, None] = {}
    waiting = [root]
    while waiting:
        shape = waiting.pop()
        if shape not in reached:
            reached[shape] = None
            waiting.extend(shape.children())
    return reached
