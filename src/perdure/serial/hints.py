"""Annotations as types: names in text resolved one by one, type variables filled in.

`typing.get_type_hints` fails as a whole if one name is unknown, and an import under `TYPE_CHECKING` for a
parameter that is never stored is common. So each annotation is resolved alone, and one that cannot be becomes
an `Unresolved`, which fails only when a value has to be written as it.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

from perdure.serial.shapes import Annotation


class Unresolved:
    """Stands for an annotation whose text names something that is not there."""

    def __init__(self, text: str, reason: str) -> None:
        self.__name__ = text
        self.reason = (
            f"the annotation {text!r} cannot be resolved ({reason}): import the name at module level,"
            " outside `if TYPE_CHECKING`"
        )


def function_hints(function: Callable[..., object]) -> dict[str, Annotation]:
    """Resolve the annotations of a function, `return` among them."""
    function = inspect.unwrap(function)
    namespace = dict(getattr(function, "__globals__", {}))
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is not None and cells:
        for name, cell in zip(code.co_freevars, cells, strict=True):
            try:
                namespace.setdefault(name, cell.cell_contents)
            except ValueError:  # not assigned yet
                continue
    parameters = getattr(function, "__type_params__", ())
    raw = inspect.get_annotations(function)
    return {name: _resolve(text, namespace, {}, parameters) for name, text in raw.items()}


def class_hints(cls: type, arguments: tuple[Annotation, ...]) -> dict[str, Annotation]:
    """Resolve the annotations of a class and its bases, `cls[arguments]` filled in."""
    if typing.is_typeddict(cls) or issubclass(cls, tuple):
        return _plain_hints(cls, arguments)
    found: dict[str, Annotation] = {}
    filled = _fill_bases(cls, arguments)
    for base in reversed(cls.__mro__):
        raw = inspect.get_annotations(base) if base.__module__ != "builtins" else {}
        if not raw:
            continue
        module = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        # The class body comes second, as in `typing`: `date: date = None` means the module's `date`.
        body = {**vars(base), base.__name__: base}
        parameters = getattr(base, "__type_params__", ())
        for name, text in raw.items():
            hint = _resolve(text, body, module, parameters)
            found[name] = substitute(hint, filled.get(base, {}))
    return found


def alias_value(alias: Any) -> Annotation:  # a TypeAliasType, whose class is new in Python 3.12
    """Return what a type alias stands for; in Python 3.11 it may hold names as text."""
    module = sys.modules.get(alias.__module__ or "")
    return _resolve(alias.__value__, {} if module is None else vars(module), {}, alias.__type_params__)


def _plain_hints(cls: type, arguments: tuple[Annotation, ...]) -> dict[str, Annotation]:
    filled = _fill_bases(cls, arguments).get(cls, {})
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        hints = {name: Unresolved(str(text), str(error)) for name, text in cls.__annotations__.items()}
    return {name: substitute(hint, filled) for name, hint in hints.items()}


def _resolve(
    text: Annotation, outer: Mapping[str, Any], inner: Mapping[str, Any], parameters: tuple[Any, ...]
) -> Annotation:
    # A class, as `Final` and `ClassVar` are not allowed elsewhere.
    holder = type("Holder", (), {"__annotations__": {"it": text}})
    names = {parameter.__name__: parameter for parameter in parameters}
    try:
        return typing.get_type_hints(holder, dict(outer), {**inner, **names}, include_extras=True)["it"]
    except Exception as error:  # an annotation in text can be any expression
        return Unresolved(text if isinstance(text, str) else str(text), f"{type(error).__name__}: {error}")


def _fill_bases(cls: type, arguments: tuple[Annotation, ...]) -> dict[type, dict[Any, Annotation]]:
    found: dict[type, dict[Any, Annotation]] = {}

    def visit(base: type, given: tuple[Annotation, ...]) -> None:
        mapping = dict(zip(getattr(base, "__parameters__", ()), given, strict=False))
        found.setdefault(base, mapping)
        for above in getattr(base, "__orig_bases__", ()):
            origin = typing.get_origin(above)
            if isinstance(origin, type) and origin is not typing.Generic:
                visit(origin, tuple(substitute(argument, mapping) for argument in typing.get_args(above)))
        for above in base.__bases__:
            if above not in found and above is not object:
                visit(above, ())

    visit(cls, arguments)
    return found


def substitute(annotation: Annotation, mapping: Mapping[Any, Annotation]) -> Annotation:
    """Put types for the type variables of an annotation, as far as `mapping` has them."""
    if isinstance(annotation, typing.TypeVar):
        return mapping.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not mapping or not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(mapping.get(parameter, parameter) for parameter in parameters)]
