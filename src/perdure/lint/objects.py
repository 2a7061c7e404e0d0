"""Objects: by which names something that exists in the program is known, and what hangs on it.

The program is there, imported, so names need not be guessed: `from time import time as t` gives the function
that is called `time.time`, however the user calls it. But nothing of the user's is run to find out: attributes
are looked up statically, and no object is asked what it is, since a proxy (a lazy setting, a request) would go
and get what it stands for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeGuard, TypeVar

from perdure.core.registry import Definition

T = TypeVar("T")

Target = tuple[FunctionType, type | None]
"""A function that a call runs, and the class whose method it is."""

UNKNOWN: Final = object()
"""In place of an object that is not there, or not known."""

_ALIASES: Final = {
    "posix": "os",
    "nt": "os",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "genericpath": "os.path",
}

_HARMLESS: Final = {"random.Random", "numpy.random.Generator", "numpy.random.RandomState"}
"""Made in the body with a seed, or handed to it (by `perdure.random()`), these are the same on every replay."""


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What an expression stands for, as far as that can be known without running it.

    Attributes:
        names: dotted, by which rules may know it; public ones first.
        value: the object, or its class if it is an `instance`, or UNKNOWN.
        instance: whether it is some object of the class, made in the code or handed to it.
        owner: the class whose method it is.
        node: the function of the body that it is.
    """

    names: tuple[str, ...] = ()
    value: Any = UNKNOWN  # any object of the user's program
    instance: bool = False
    owner: type | None = None
    node: ast.FunctionDef | ast.AsyncFunctionDef | None = None

    def same(self, other: Meaning) -> bool:
        """Whether both stand for the same, without asking the objects."""
        return (
            self.names == other.names
            and self.value is other.value
            and self.instance == other.instance
            and self.node is other.node
        )

    @property
    def cls(self) -> type | None:
        """The class, if it is an object of a known one."""
        if self.instance:
            return self.value if is_a(self.value, type) else None
        return None if self.value is UNKNOWN else type(self.value)


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """Like isinstance, but without asking the object, which may be a proxy."""
    return issubclass(type(value), kind)


def known(value: Any, path: str = "") -> Meaning:
    """The meaning of an object, which was found under this path."""
    if is_a(value, MethodType):
        bound = value.__self__
        owner = bound if is_a(bound, type) else type(bound)
        return Meaning(_names(value, path), value.__func__, owner=owner)
    return Meaning(_names(value, path), value)


def attribute(base: Meaning, name: str) -> Meaning | None:
    """The meaning of an attribute, or None if nothing can be known of it."""
    if base.value is UNKNOWN:
        return Meaning(tuple(f"{prefix}.{name}" for prefix in base.names)) if base.names else None
    if base.instance:
        return _of_class(base.value, name, handed=True)
    if is_a(base.value, ModuleType):
        path = f"{_module_name(base.value.__name__)}.{name}"
        # A module that makes its attributes when asked is not asked: the name says enough.
        found = vars(base.value).get(name, sys.modules.get(f"{base.value.__name__}.{name}", UNKNOWN))
        return Meaning((path,)) if found is UNKNOWN else known(found, path)
    if is_a(base.value, type):
        return _of_class(base.value, name)
    own = inspect.getattr_static(base.value, name, UNKNOWN)
    inherited = inspect.getattr_static(type(base.value), name, UNKNOWN)
    return _of_class(type(base.value), name) if own is inherited else known(own)


def _of_class(cls: type, name: str, *, handed: bool = False) -> Meaning | None:
    if handed and not _HARMLESS.isdisjoint(_names(cls)):
        return None
    names = _names_in(cls, name)
    raw = inspect.getattr_static(cls, name, UNKNOWN)
    if is_a(raw, staticmethod) or is_a(raw, classmethod):
        return Meaning(names, raw.__func__, owner=cls)
    if is_a(raw, FunctionType) or is_a(raw, property) or is_a(raw, cached_property):
        return Meaning(names, raw, owner=cls)
    if raw is UNKNOWN or hasattr(type(raw), "__get__"):
        return Meaning(names)
    return known(raw)


def definition_of(meaning: Meaning | None) -> Definition | None:
    """The definition of a decorated function, which has it as its attribute `definition`."""
    if meaning is None or meaning.instance or not _is_ours(meaning.value):
        return None
    found = getattr(meaning.value, "definition", None)
    return found if isinstance(found, Definition) else None


def _is_ours(value: object) -> bool:
    return str(type(value).__module__).startswith("perdure.")


def functions_in(meaning: Meaning) -> Iterator[Target]:
    """Yield the Python functions that a call of this runs, as far as they can be seen."""
    value, owner = meaning.value, meaning.owner
    if meaning.instance or value is UNKNOWN:
        return
    if is_a(value, property):
        value = value.fget
    if is_a(value, cached_property):
        value = value.func
    if is_a(value, type):
        for name in ("__new__", "__init__", "__post_init__"):
            made = inspect.getattr_static(value, name, None)
            if is_a(made, FunctionType):
                yield made, value
        return
    for _ in range(20):  # a wrapper may wrap itself
        if is_a(value, FunctionType):
            yield value, owner
        inner = value.func if is_a(value, partial) else inspect.getattr_static(value, "__wrapped__", None)
        if inner is None:
            break
        value = inner.__func__ if is_a(inner, MethodType) else inner
    called = inspect.getattr_static(type(value), "__call__", None)
    if is_a(called, FunctionType):
        yield called, type(value)


def is_exception(meaning: Meaning) -> bool:
    """Whether it is a class of exceptions: making one does nothing."""
    return is_a(meaning.value, type) and issubclass(meaning.value, BaseException)


def _names(value: Any, path: str = "") -> tuple[str, ...]:
    found = [path] if path else []
    if is_a(value, partial):
        found += _names(value.func)
    elif is_a(value, ModuleType):
        found.append(_module_name(value.__name__))
    elif is_a(value, BuiltinMethodType) or is_a(value, MethodType):
        bound = value.__self__
        if is_a(bound, ModuleType) or bound is None:
            found += _declared(value)
        else:
            found += _names_in(bound if is_a(bound, type) else type(bound), getattr(value, "__name__", ""))
    elif is_a(value, type) or is_a(value, FunctionType):
        found += _declared(value)
    return tuple(dict.fromkeys(found))


def _declared(value: Any) -> list[str]:
    """The names of a function or class: where it was made, and before that the packages that show it."""
    module, name = _module_name(str(value.__module__)), value.__qualname__
    found, parent = [f"{module}.{name}"], module
    while "." in parent:
        parent = parent.rpartition(".")[0]
        package = sys.modules.get(parent)
        if package is not None and vars(package).get(name) is value:
            found.insert(0, f"{parent}.{name}")
    return found


def _names_in(cls: type, name: str) -> tuple[str, ...]:
    """The names of what hangs on a class: of the class down to the base that has it."""
    found: list[str] = []
    for base in cls.__mro__:
        found += [f"{of_base}.{name}" for of_base in _names(base)]
        if name in vars(base):
            break
    return tuple(found)


def _module_name(name: str) -> str:
    if name in sys.stdlib_module_names:
        name = name.lstrip("_")  # `_io` and the like are the same modules, written in C
    return _ALIASES.get(name, name)
