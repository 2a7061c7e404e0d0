"""The shapes of classes with named fields: dataclass, attrs, `Struct`, `TypedDict`, `NamedTuple`.

They are written as JSON objects. msgspec does that alone for most; the rest (a tagged union in a field, a
field that `__init__` does not take, a name with a leading underscore, which msgspec leaves out) is read field
by field, as msgspec reads a class: without `__init__`, then the class's own after-init hook. A `NamedTuple`
is an object too, not an array, so that a field can be added or moved without breaking stored runs.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from perdure.serial.hints import class_hints
from perdure.serial.shapes import ARRAY, OBJECT, Annotation, Misfit, Shape

_MISSING: Final = object()


@dataclasses.dataclass(slots=True)
class Field:
    """One field of a record.

    Attributes:
        name: the attribute, or the key of a TypedDict.
        key: its key in JSON.
        annotation: its type.
        make: returns the default; None if the field is required.
        optional: it may be absent altogether (a TypedDict's `NotRequired`).
        init: the class's own `__init__` takes it.
    """

    name: str
    key: str
    annotation: Annotation
    make: Callable[[], object] | None = None
    optional: bool = False
    init: bool = True
    shape: Shape = dataclasses.field(init=False)


class ClassWithFields(Shape):
    """A class with named fields; what differs between kinds of classes is `fields` and `build`."""

    kinds = frozenset((OBJECT,))
    inline = True

    def __init__(self, annotation: Annotation, cls: type, arguments: tuple[Annotation, ...]) -> None:
        super().__init__(annotation)
        self.type = cls
        self.types = (cls,)
        self.arguments = arguments
        self.fields: tuple[Field, ...] = ()

    def list_fields(self) -> Iterable[Field]:
        """Read the fields off the class."""
        raise NotImplementedError

    def build(self, values: dict[str, object]) -> object:
        """Make an instance of attribute values."""
        raise NotImplementedError

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        self.fields = tuple(self.list_fields())
        for field in self.fields:
            field.shape = compile(field.annotation)
        self._checks = tuple((field.name, field.shape) for field in self.fields)
        self._keys = frozenset(field.key for field in self.fields)
        self._required = frozenset(f.key for f in self.fields if f.make is None and not f.optional and f.init)

    def children(self) -> Iterable[Shape]:
        return [field.shape for field in self.fields]

    def accepts(self, plain: dict[str, object]) -> bool:
        return self._required <= plain.keys() <= self._keys

    def check(self, value: object) -> None:
        if type(value) is not self.type:
            raise self.misfit(value)
        name = ""
        try:
            for name, shape in self._checks:
                shape.check(getattr(value, name))
        except Misfit as misfit:
            raise misfit.inside(f".{name}") from None
        except AttributeError:
            raise Misfit(f"{self.name} has no value for its field {name}") from None

    def write(self, value: object) -> object:
        if self.native:
            return value
        return {field.key: field.shape.write(getattr(value, field.name)) for field in self.fields}

    def lift(self, plain: object) -> object:
        if not isinstance(plain, dict):
            raise Misfit(f"expected {self.name} as an object")
        values: dict[str, object] = {}
        for field in self.fields:
            item = plain.get(field.key, _MISSING)
            if item is not _MISSING:
                try:
                    values[field.name] = field.shape.read(item)
                except Misfit as misfit:
                    raise misfit.inside(f".{field.name}") from None
            elif field.make is not None:
                values[field.name] = field.make()
            elif field.init and not field.optional:
                raise Misfit(f"{self.name} lacks its field {field.key}")
        return self.build(values)


class _Instance(ClassWithFields):
    """A class whose instances are filled attribute by attribute, then finished by a hook of their own."""

    hook = ""

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        super().link(compile)
        self.verify = hasattr(self.type, self.hook)
        self.native = all(field.init and not field.name.startswith("_") for field in self.fields)

    def build(self, values: dict[str, object]) -> object:
        instance: object = object.__new__(self.type)
        for name, value in values.items():
            object.__setattr__(instance, name, value)
        if self.verify:
            getattr(instance, self.hook)()
            for field in self.fields:
                if not field.init and field.name in values:
                    # The hook made it anew; what was stored is what the code had.
                    object.__setattr__(instance, field.name, values[field.name])
        return instance


class Dataclass(_Instance):
    """A dataclass without `InitVar`s, frozen, slotted or plain."""

    hook = "__post_init__"

    def list_fields(self) -> Iterable[Field]:
        hints = class_hints(self.type, self.arguments)
        for field in dataclasses.fields(self.type):
            make: Callable[[], object] | None = None
            if field.default_factory is not dataclasses.MISSING:
                make = field.default_factory
            elif field.default is not dataclasses.MISSING:
                make = _constant(field.default)
            yield Field(field.name, field.name, hints.get(field.name, Any), make, init=field.init)


class Attrs(_Instance):
    """An attrs class, validated after it is read."""

    hook = "__attrs_post_init__"

    def list_fields(self) -> Iterable[Field]:
        attr: Any = sys.modules["attr"]  # optional, but imported by now: the class at hand is made with it
        hints = class_hints(self.type, self.arguments)
        for field in attr.fields(self.type):
            make = None if field.default is attr.NOTHING else _attrs_default(field.default)
            yield Field(field.name, field.name, hints.get(field.name, Any), make, init=field.init)

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        super().link(compile)
        # A default made of the instance itself is beyond msgspec.
        self.native = self.native and not any(field.make is _unknown_default for field in self.fields)

    def build(self, values: dict[str, object]) -> object:
        instance = super().build(values)
        sys.modules["attr"].validate(instance)
        return instance


class Structure(ClassWithFields):
    """A `msgspec.Struct`."""

    def list_fields(self) -> Iterable[Field]:
        hints = class_hints(self.type, self.arguments)
        for field in msgspec.structs.fields(self.type):
            make: Callable[[], object] | None = None
            if field.default_factory is not msgspec.NODEFAULT:
                make = field.default_factory
            elif field.default is not msgspec.NODEFAULT:
                make = _constant(field.default)
            yield Field(field.name, field.encode_name, hints.get(field.name, Any), make)

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        super().link(compile)
        self.verify = hasattr(self.type, "__post_init__")
        config = getattr(self.type, "__struct_config__")  # noqa: B009  # msgspec.Struct's own, unknown to `type`
        self.tag = None if config.tag is None else (config.tag_field, config.tag)
        if config.array_like:
            # msgspec writes an array; read field by field, it is an object like all others.
            self.kinds, self.inline = frozenset((ARRAY, OBJECT)), False

    def accepts(self, plain: dict[str, object]) -> bool:
        if self.tag is not None and self.tag[0] in plain:
            return bool(plain[self.tag[0]] == self.tag[1])
        return super().accepts(plain)

    def write(self, value: object) -> object:
        plain = super().write(value)
        if self.tag is not None and isinstance(plain, dict):
            return {self.tag[0]: self.tag[1], **plain}
        return plain

    def build(self, values: dict[str, object]) -> object:
        return self.type(**values)


class TypedDictionary(ClassWithFields):
    """A `TypedDict`: a dict that must have no other keys, as they would not come back."""

    def __init__(self, annotation: Annotation, cls: type, arguments: tuple[Annotation, ...]) -> None:
        super().__init__(annotation, cls, arguments)
        self.types = (dict,)

    def list_fields(self) -> Iterable[Field]:
        required: frozenset[str] = getattr(self.type, "__required_keys__")  # noqa: B009  # a TypedDict's own
        for name, annotation in class_hints(self.type, self.arguments).items():
            # Where annotations are text, Python has not seen `NotRequired` in them, and nor has msgspec.
            word = getattr(typing.get_origin(annotation), "_name", "")
            optional = word == "NotRequired" or (word != "Required" and name not in required)
            if optional is (name in required):
                self.native = False
            yield Field(name, name, annotation, optional=optional)

    def check(self, value: object) -> None:
        if type(value) is not dict:
            raise self.misfit(value)
        if not self._required <= value.keys():
            raise Misfit(f"{self.name} lacks {_listed(self._required - value.keys())}")
        if not value.keys() <= self._keys:
            raise Misfit(f"{self.name} has no {_listed(value.keys() - self._keys)}, which would be lost")
        for name, shape in self._checks:
            if name in value:
                try:
                    shape.check(value[name])
                except Misfit as misfit:
                    raise misfit.inside(f"[{name!r}]") from None

    def write(self, value: object) -> object:
        if self.native:
            return value
        given = typing.cast("dict[str, object]", value)
        return {f.key: f.shape.write(given[f.name]) for f in self.fields if f.name in given}

    def build(self, values: dict[str, object]) -> object:
        return values


class NamedFields(ClassWithFields):
    """A `NamedTuple`; an array, as other writers may make of it, is read as well."""

    native = False

    def list_fields(self) -> Iterable[Field]:
        cls: Any = self.type  # NamedTuple has no class of its own to check against
        hints = class_hints(self.type, self.arguments)
        for name in cls._fields:
            default = cls._field_defaults.get(name, _MISSING)
            make = None if default is _MISSING else _constant(default)
            yield Field(name, name, hints.get(name, Any), make)

    def lift(self, plain: object) -> object:
        if isinstance(plain, list):
            plain = {field.key: item for field, item in zip(self.fields, plain, strict=False)}
        return super().lift(plain)

    def build(self, values: dict[str, object]) -> object:
        return self.type(**values)


def class_with_fields(
    annotation: Annotation, cls: type, arguments: tuple[Annotation, ...]
) -> ClassWithFields | None:
    """Make the shape of a class with named fields; None if it is no such class."""
    kind: type[ClassWithFields] | None = None
    if issubclass(cls, msgspec.Struct):
        kind = Structure
    elif dataclasses.is_dataclass(cls):
        kind = Dataclass
    elif "__attrs_attrs__" in vars(cls):
        kind = Attrs
    elif typing.is_typeddict(cls) or _is_foreign_typeddict(cls):
        kind = TypedDictionary
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        kind = NamedFields
    return None if kind is None else kind(annotation, cls, arguments)


def init_variables(cls: type) -> list[str]:
    """List the `InitVar`s of a dataclass."""
    pseudo = getattr(cls, "__dataclass_fields__", {})
    real = {field.name for field in dataclasses.fields(cls)} if pseudo else set()
    return [name for name, field in pseudo.items() if name not in real and "InitVar" in str(field.type)]


def _is_foreign_typeddict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _constant(value: object) -> Callable[[], object]:
    return lambda: value


def _attrs_default(default: object) -> Callable[[], object]:
    factory = getattr(default, "factory", None)
    if factory is None:
        return _constant(default)
    if getattr(default, "takes_self", False):
        return _unknown_default
    return typing.cast("Callable[[], object]", factory)


def _unknown_default() -> object:
    raise Misfit("a field is missing whose default is made of the instance itself")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names)))
