"""Expressions: what a piece of code stands for, found from the names in it and never by running it."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import sys
from pathlib import PurePath
from typing import Final

from perdure.lint.objects import UNKNOWN, Meaning, attribute, definition_of, is_a, known
from perdure.lint.rules import rule_of
from perdure.lint.scopes import Bound, Scope

_LOOP: Final = Meaning(("asyncio.AbstractEventLoop",), instance=True)
_SET: Final = Meaning(("builtins.set",), set, instance=True)

_LOOPS: Final = {"asyncio.get_running_loop", "asyncio.get_event_loop", "asyncio.new_event_loop"}
_SET_METHODS: Final = {"union", "intersection", "difference", "symmetric_difference", "copy"}


def meaning_of(node: ast.expr, scope: Scope) -> Meaning | None:
    """Return what an expression stands for in a scope, or None if that cannot be known."""
    match node:
        case ast.Name(id=name):
            return _named(name, scope)
        case ast.Attribute(value=base, attr=name):
            return _hanging_on(meaning_of(base, scope), name)
        case ast.Call(func=function):
            return _made_by(function, scope)
        case ast.NamedExpr(value=value):
            return meaning_of(value, scope)
        case ast.Set() | ast.SetComp():
            return _SET
        case ast.BinOp(left=left, op=ast.Div()):
            of_left = meaning_of(left, scope)
            return of_left if of_left is not None and is_path(of_left) else None
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return _SET if is_set(left, scope) or is_set(right, scope) else None
        case _:
            return None


def is_path(meaning: Meaning) -> bool:
    """Whether it is an object of a class of pathlib."""
    return meaning.cls is not None and issubclass(meaning.cls, PurePath)


def is_set(node: ast.expr, scope: Scope) -> bool:
    """Whether an expression is a set, or is in the order of one."""
    meaning = meaning_of(node, scope)
    if meaning is not None and meaning.cls is not None and issubclass(meaning.cls, set | frozenset):
        return True
    match node:
        case ast.Call(func=function, args=[first, *_]):
            of_function = meaning_of(function, scope)
            names = of_function.names if of_function is not None else ()
            ordered = {"builtins.list", "builtins.tuple", "builtins.enumerate", "builtins.iter"}
            return not ordered.isdisjoint(names) and is_set(first, scope)
        case _:
            return False


def _hanging_on(base: Meaning | None, name: str) -> Meaning | None:
    if base is None or (name == "parent" and is_path(base)):
        return base
    return attribute(base, name)


def _named(name: str, scope: Scope) -> Meaning | None:
    holder = scope.holder(name)
    if holder is not None:
        return _agreed(name, holder)
    found = scope.from_outside(name)
    if found is not UNKNOWN:
        return known(found)
    return known(vars(builtins)[name], f"builtins.{name}") if name in vars(builtins) else None


def _agreed(name: str, scope: Scope) -> Meaning | None:
    """What all places that bind the name agree on."""
    if name not in scope.meanings:
        scope.meanings[name] = None  # while it is being found: a name that is made from itself says nothing
        found = [_of_bound(bound, scope) for bound in scope.bound[name]]
        first = found[0]
        if first is not None and all(other is not None and first.same(other) for other in found):
            scope.meanings[name] = first
    return scope.meanings[name]


def _of_bound(bound: Bound, scope: Scope) -> Meaning | None:
    if bound.meaning is not None:
        return bound.meaning
    if bound.imported is not None:
        return _imported(*bound.imported, scope)
    if bound.unpacked:
        return _part_of(bound.value, scope)
    found = meaning_of(bound.value, scope) if bound.value is not None else None
    if found is None and bound.annotation is not None:
        return _annotated(bound.annotation, scope)
    return found


def _imported(module: str, name: str, scope: Scope) -> Meaning | None:
    """What an import gives, without importing anything."""
    if module.startswith("."):
        try:
            module = importlib.util.resolve_name(module, scope.function.__globals__.get("__package__") or "")
        except ImportError:
            return None
    loaded = sys.modules.get(module)
    of_module = Meaning((module,)) if loaded is None else known(loaded)
    return attribute(of_module, name) if name else of_module


def _part_of(value: ast.expr | None, scope: Scope) -> Meaning | None:
    """What a name is that takes a part: `done, pending = await asyncio.wait(...)` gives sets."""
    if isinstance(value, ast.Await) and isinstance(value.value, ast.Call):
        function = meaning_of(value.value.func, scope)
        if function is not None and "asyncio.wait" in function.names:
            return _SET
    return None


def _annotated(annotation: ast.expr, scope: Scope) -> Meaning | None:
    """What an argument is, by its annotation: an object of that class, or None beside it."""
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return _annotated(ast.parse(text, mode="eval").body, scope)
            except SyntaxError:
                return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _annotated(left, scope)
        case ast.Subscript(value=generic):
            return _annotated(generic, scope)
        case ast.Name() | ast.Attribute():
            found = meaning_of(annotation, scope)
            if found is None or not is_a(found.value, type) or found.instance:
                return None
            return Meaning(found.names, found.value, instance=True)
        case _:
            return None


def _made_by(function: ast.expr, scope: Scope) -> Meaning | None:
    """What a call gives: an object of the class that is called, or nothing that is known."""
    if isinstance(function, ast.Attribute):
        base = meaning_of(function.value, scope)
        made = _made_of(base, function.attr)
        if made is not None:
            return made
        called = _hanging_on(base, function.attr)
    else:
        called = meaning_of(function, scope)
    if called is None or called.instance or rule_of(called.names) is not None:
        return None  # what may not be made is found where it is made, once
    if not _LOOPS.isdisjoint(called.names):
        return _LOOP
    if is_a(called.value, type):
        return Meaning(called.names, called.value, instance=True)
    last = called.names[0].rpartition(".")[2] if called.names else ""
    if called.value is UNKNOWN and last[:1].isupper():  # of a module that is not loaded, a class by its name
        return Meaning(called.names, instance=True)
    return None


def _made_of(base: Meaning | None, name: str) -> Meaning | None:
    """What a method gives that gives the like of what it hangs on."""
    if base is None:
        return None
    if name == "options" and definition_of(base) is not None:
        return base
    if name in _SET_METHODS and base.cls in {set, frozenset}:
        return _SET
    return base if name == "joinpath" and is_path(base) else None
