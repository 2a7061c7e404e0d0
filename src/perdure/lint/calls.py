"""Calls: which of them are durable, or give something to await.

What matters of a durable call is its place: a run knows its calls by their number in their branch, so they must
be made in the same order every time.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from types import FunctionType
from typing import Final

from perdure.lint.expressions import meaning_of
from perdure.lint.objects import Meaning, definition_of, is_a
from perdure.lint.scopes import Comprehension, Scope

_COROUTINES: Final = ("Coroutine", "Awaitable")


def gives_coroutine(meaning: Meaning | None) -> bool:
    """Whether a call of this does nothing before it is awaited."""
    if meaning is None or meaning.instance:
        return False
    if isinstance(meaning.node, ast.AsyncFunctionDef):
        return True
    definition = definition_of(meaning)
    if definition is not None:
        return definition.is_async
    if not is_a(meaning.value, FunctionType):
        return False
    returned = str(meaning.value.__annotations__.get("return", ""))
    ours = meaning.value.__module__.startswith("perdure.") and returned.startswith(_COROUTINES)
    return ours or inspect.iscoroutinefunction(meaning.value)


def is_durable(node: ast.AST, scope: Scope) -> bool:
    """Whether an expression or statement itself awaits, or makes a durable call or a coroutine that may."""
    match node:
        case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return True
        case ast.Call(func=function):
            meaning = meaning_of(function, scope)
            if gives_coroutine(meaning) or definition_of(meaning) is not None:
                return True
            names = meaning.names if meaning is not None else ()
            return any(name.startswith("perdure.") for name in names)
        case _:
            return False


def any_durable(nodes: Iterable[ast.AST], scope: Scope) -> bool:
    """Whether there is one among these or inside of them."""
    return any(is_durable(part, scope) for node in nodes for part in ast.walk(node))


def bare_coroutines(node: ast.expr, scope: Scope) -> bool:
    """Whether an expression is a collection that is seen to hold coroutines, not tasks."""
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any(_is_coroutine(part, scope) for part in parts)
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            return _is_coroutine(node.elt, inside(node, scope))
        case ast.Name(id=name):
            holder = scope.holder(name)
            values = [bound.value for bound in holder.bound[name]] if holder is not None else []
            return holder is not None and any(
                value is not None and not isinstance(value, ast.Name) and bare_coroutines(value, holder)
                for value in values
            )
        case _:
            return False


def inside(node: Comprehension, scope: Scope) -> Scope:
    """The scope of a comprehension."""
    inner = Scope(scope.function, scope, is_async=scope.is_async)
    inner.bind_comprehension(node)
    return inner


def _is_coroutine(node: ast.expr, scope: Scope) -> bool:
    return isinstance(node, ast.Call) and gives_coroutine(meaning_of(node.func, scope))
