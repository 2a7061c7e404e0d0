"""The shapes of single values: how None, numbers, text, dates and enum members are checked and written.

Every annotation is compiled once into a tree of shapes. A shape says three things about a value: whether
it fits the annotation exactly (`check`), what stands for it in JSON (`write`), and how to read it back
(`read`). msgspec writes and reads whatever it knows natively; a shape that is `native` only checks, which
msgspec itself does not do while encoding: it writes NaN as null and a subclass as if it were its base.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from perdure.serial.carried import can_be_carried

Annotation: TypeAlias = Any  # typing has no type for "whatever may stand after a colon"

NULL: Final = "null"
BOOL: Final = "bool"
INT: Final = "int"
FLOAT: Final = "float"
STRING: Final = "string"
ARRAY: Final = "array"
OBJECT: Final = "object"
EVERY_KIND: Final = frozenset((NULL, BOOL, INT, FLOAT, STRING, ARRAY, OBJECT))


class Misfit(Exception):
    """A value does not fit its shape; the path to it is collected while the error travels outwards."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path: list[str] = []

    def inside(self, part: str) -> Misfit:
        """Note that the value was found at `part` (`.name` or `[3]`) of the one around it."""
        self.path.insert(0, part)
        return self


def describe(annotation: Annotation, *, full: bool = False) -> str:
    """Name an annotation as its author wrote it, classes without their modules unless `full`."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    arguments = typing.get_args(annotation)
    origin: object = typing.get_origin(annotation)
    if isinstance(annotation, type) and not arguments:
        return f"{annotation.__module__}.{annotation.__qualname__}" if full else annotation.__name__
    if not arguments:
        name = getattr(annotation, "__name__", None)
        return name if isinstance(name, str) else str(annotation)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if hasattr(annotation, "__metadata__"):
        return describe(arguments[0], full=full)
    inner = [describe(argument, full=full) for argument in arguments]
    if is_union(origin):
        return " | ".join(inner)
    return f"{describe(origin, full=full)}[{', '.join(inner)}]"


def is_union(origin: object) -> bool:
    """Tell whether an annotation's origin is `Union`, in either spelling."""
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


class Shape:
    """How the values of one annotation are checked, written and read.

    Attributes:
        annotation: what was compiled, as msgspec is given it when the shape is native.
        native: msgspec alone writes and reads it, with everything inside it.
        kinds: the JSON kinds that its values are written as.
        also: JSON kinds it can read besides, if no neighbour in a union claims them.
        types: the exact classes of the values that it accepts; empty if that is not known.
        passes: classes whose values come back unchanged, so that decoding them can be skipped.
        inline: in a union its tag is put among its own keys, as it is written as an object with fields.
        verify: user code runs while it is read, so what comes back is compared with what was given.
    """

    native: bool = True
    kinds: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    types: tuple[type, ...] = ()
    passes: frozenset[type] = frozenset()
    inline: bool = False
    verify: bool = False

    def __init__(self, annotation: Annotation) -> None:
        self.annotation = annotation
        self.name = describe(annotation)

    def link(self, compile: Callable[[Annotation], Shape]) -> None:
        """Compile what is inside; separate from `__init__`, as a class may contain itself."""

    def children(self) -> Iterable[Shape]:
        """Yield the shapes inside this one."""
        return ()

    def check(self, value: object) -> None:
        """Raise `Misfit` unless the value fits exactly."""
        raise NotImplementedError

    def write(self, value: object) -> object:
        """Return what msgspec shall encode for a value that fits."""
        return value

    def read(self, plain: object) -> object:
        """Return the value that stands behind decoded JSON; raise `Misfit` if none does."""
        if not self.native:
            return self.lift(plain)
        try:
            return msgspec.convert(plain, self.annotation, str_keys=True)
        except msgspec.ValidationError as error:
            raise Misfit(str(error)) from error

    def lift(self, plain: object) -> object:
        """Do what `read` says for a shape that msgspec does not know."""
        raise NotImplementedError

    def accepts(self, plain: dict[str, object]) -> bool:
        """Tell whether an object that has no tag could be one of its values, by its keys."""
        return True

    def misfit(self, value: object) -> Misfit:
        """Explain that a value has the wrong class."""
        given, wanted = type(value), next(iter(self.types), None)
        text = f"expected {self.name}, got {given.__name__}"
        if wanted is not None and issubclass(given, wanted):
            mend = f"annotate `{self.name} | {given.__name__}`"
            if wanted.__module__ == "builtins" and given.__module__ != "builtins":
                mend = f"annotate {given.__name__} itself, or pass `{wanted.__name__}(...)` of it"
            text = f"expected {self.name}, got its subclass {given.__name__}, which would be lost: {mend}"
        return Misfit(text)


class Scalar(Shape):
    """A class whose values are one JSON scalar and are known to msgspec."""

    def __init__(
        self, annotation: type, kind: str, *, passes: bool = True, also: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(annotation)
        self.type = annotation
        self.types = (annotation,)
        self.kinds = frozenset((kind,))
        self.also = also
        self.passes = frozenset((annotation,)) if passes else frozenset()

    def check(self, value: object) -> None:
        if type(value) is not self.type:
            raise self.misfit(value)


class Real(Scalar):
    """`float`: finite, and also an `int` that a float holds exactly (it comes back as a float)."""

    def check(self, value: object) -> None:
        if type(value) is float:
            if not math.isfinite(value):
                raise Misfit(f"{value} has no form in JSON")
        elif type(value) is int:
            try:
                exact = float(value) == value
            except OverflowError:
                exact = False
            if not exact:
                raise Misfit("expected float, got an int that no float holds exactly")
        else:
            raise self.misfit(value)

    def write(self, value: object) -> object:
        return float(typing.cast(float, value))


class ExactDecimal(Scalar):
    """`Decimal`: finite ones, written as text so that no digit is lost."""

    def check(self, value: object) -> None:
        if type(value) is not Decimal:
            raise self.misfit(value)
        if not value.is_finite():
            raise Misfit(f"Decimal {value} is refused, as NaN and infinities are everywhere")


class Unique(Scalar):
    """`UUID`, and its subclasses too: database drivers have their own, and they carry nothing more."""

    def check(self, value: object) -> None:
        if not isinstance(value, UUID):
            raise self.misfit(value)


class Moment(Scalar):
    """`datetime` and `time`: offsets from UTC must be whole minutes, as ISO 8601 has no finer ones.

    A named zone comes back as its offset at that moment; `fold` of a naive value is not kept.
    """

    def check(self, value: object) -> None:
        if type(value) is not self.type:
            raise self.misfit(value)
        assert isinstance(value, datetime | time)
        if value.tzinfo is None or value.tzinfo is UTC:
            return
        offset = value.utcoffset()
        if offset is None:
            raise Misfit(f"this {self.name} has a zone without a fixed offset")
        if offset % timedelta(minutes=1):
            raise Misfit(f"this {self.name} has an offset from UTC with seconds")


class Untyped(Shape):
    """No annotation, `Any` or `object`: only what JSON itself tells apart."""

    kinds = EVERY_KIND
    passes = frozenset((type(None), bool, int, float, str))

    def check(self, value: object) -> None:
        kind = type(value)
        if kind is str or kind is int or value is None or kind is bool:
            return
        if kind is float:
            if not math.isfinite(value):  # type: ignore[arg-type]  # its type was just compared
                raise Misfit(f"{value} has no form in JSON")
        elif kind is list:
            for index, item in enumerate(typing.cast("list[object]", value)):
                try:
                    self.check(item)
                except Misfit as misfit:
                    raise misfit.inside(f"[{index}]") from None
        elif kind is dict:
            for key, item in typing.cast("dict[object, object]", value).items():
                if type(key) is not str:
                    raise Misfit(
                        f"a dict without annotation must have str keys, got {type(key).__name__}:"
                        f" annotate it, for example `dict[{type(key).__name__}, ...]`"
                    )
                try:
                    self.check(item)
                except Misfit as misfit:
                    raise misfit.inside(f"[{key!r}]") from None
        else:
            if not can_be_carried(kind):
                raise Misfit(f"{kind.__name__} has no form in JSON, with an annotation neither")
            raise Misfit(
                f"{kind.__name__} has no form in JSON without an annotation:"
                f" annotate it, for example with `{kind.__name__}`, so that it comes back as one"
            )

    def read(self, plain: object) -> object:
        return plain


class Unsupported(Shape):
    """An annotation that cannot be carried: it fails when a value comes, not when it is declared.

    A parameter with such an annotation may never be given a value, or belong to code that is never stored.
    """

    native = False

    def __init__(self, annotation: Annotation, reason: str = "") -> None:
        super().__init__(annotation)
        self.types = (annotation,) if isinstance(annotation, type) else ()
        self.reason = reason or (
            f"{self.name} is no type that perdure can store:"
            " use a dataclass, a pydantic or attrs class, a msgspec.Struct, or plain values"
        )

    def check(self, value: object) -> None:
        raise Misfit(self.reason)

    def lift(self, plain: object) -> object:
        raise Misfit(self.reason)


class Member(Shape):
    """An `Enum`: by value if all are text or all are numbers, else by name."""

    def __init__(self, annotation: type[enum.Enum]) -> None:
        super().__init__(annotation)
        self.type = annotation
        self.types = (annotation,)
        values = {type(member.value) for member in annotation}
        self.native = values in ({str}, {int})
        self.kinds = frozenset((INT if values == {int} else STRING,))
        if not issubclass(annotation, enum.Flag):
            self.passes = frozenset((annotation,))

    def check(self, value: object) -> None:
        if type(value) is not self.type:
            raise self.misfit(value)

    def write(self, value: object) -> object:
        return value if self.native else typing.cast(enum.Enum, value).name

    def lift(self, plain: object) -> object:
        if isinstance(plain, str) and plain in self.type.__members__:
            return self.type.__members__[plain]
        raise Misfit(f"expected the name of a member of {self.name}")


class Choice(Shape):
    """`Literal`: plain values as they are, enum members as their enum writes them."""

    def __init__(self, annotation: Annotation) -> None:
        super().__init__(annotation)
        values = literal_values(annotation)
        self.native = all(type(value) in (str, int, bool, type(None)) for value in values)
        self.passes = self.classes = frozenset(map(type, values))
        self.types = tuple(self.classes)
        self._plain = {(type(value), value): _plain(value) for value in values}
        self._written = {(type(plain), plain): value for (_, value), plain in self._plain.items()}
        self.kinds = frozenset(_KINDS[kind] for kind, _ in self._written)

    def check(self, value: object) -> None:
        if type(value) not in self.classes or (type(value), value) not in self._plain:
            raise Misfit(f"expected {self.name}, got another {type(value).__name__}")

    def write(self, value: object) -> object:
        return value if self.native else self._plain[type(value), value]

    def lift(self, plain: object) -> object:
        try:
            return self._written[type(plain), plain]
        except (KeyError, TypeError):
            raise Misfit(f"expected {self.name}") from None


def literal_values(annotation: Annotation) -> list[object]:
    """List the values of a `Literal`, nested ones too."""
    values: list[object] = []
    for argument in typing.get_args(annotation):
        nested = typing.get_origin(argument) is typing.Literal
        values.extend(literal_values(argument) if nested else [argument])
    return values


def is_distinct(annotation: Annotation) -> bool:
    """Tell whether JSON tells all values of a `Literal` apart."""
    values = literal_values(annotation)
    written = {(type(plain), plain) for plain in map(_plain, values)}
    return len(written) == len(values) and not any(type(value) is bytes for value in values)


def _plain(value: object) -> object:
    if not isinstance(value, enum.Enum):
        return value
    return value.value if Member(type(value)).native else value.name


def kind_of(plain: object) -> str:
    """Name the JSON kind of decoded JSON."""
    return _KINDS[type(plain)]


_KINDS: Final[dict[type, str]] = {
    type(None): NULL,
    bool: BOOL,
    int: INT,
    float: FLOAT,
    str: STRING,
    list: ARRAY,
    dict: OBJECT,
}


def scalars() -> dict[type, Shape]:
    """Make the shapes of the scalar classes, by class."""
    numbers = frozenset((INT, FLOAT))
    found: list[Scalar] = [
        Scalar(type(None), NULL),
        Scalar(bool, BOOL),
        Scalar(int, INT),
        Real(float, FLOAT, also=frozenset((INT,))),
        Scalar(str, STRING),
        Scalar(bytes, STRING),
        Scalar(bytearray, STRING, passes=False),
        Moment(datetime, STRING, passes=False),
        Scalar(date, STRING),
        Moment(time, STRING, passes=False),
        Scalar(timedelta, STRING),
        ExactDecimal(Decimal, STRING, also=numbers),
        Unique(UUID, STRING),
    ]
    return {shape.type: shape for shape in found}
