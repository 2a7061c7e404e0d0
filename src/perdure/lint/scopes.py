"""Scopes: which names the code of a function binds, and to what, as Python decides it.

A name that is bound anywhere in a function is the function's own, everywhere in it, so a body may call its
argument `time` or `open` without being told of clocks and files.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from perdure.lint.objects import UNKNOWN, Meaning, known

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Bound:
    """One place that binds a name.

    Attributes:
        value: what it is bound to.
        unpacked: whether it is bound to a part of the value.
        annotation: of the name, where there is no value.
        imported: the module, and the attribute of it if there is one, of an import.
        meaning: what is known from elsewhere.
    """

    value: ast.expr | None = None
    unpacked: bool = False
    annotation: ast.expr | None = None
    imported: tuple[str, str] | None = None
    meaning: Meaning | None = None


class Scope:
    """Names of a function, a comprehension or a class body, inside of another scope or of a module.

    Args:
        function: the function in whose module and closure names are looked for.
        outer: the scope around.
        is_async: whether the code in it can await.
    """

    def __init__(self, function: FunctionType, outer: Scope | None = None, *, is_async: bool = False) -> None:
        self.function = function
        self.outer = outer
        self.is_async = is_async
        self.bound: dict[str, list[Bound]] = defaultdict(list)
        self.meanings: dict[str, Meaning | None] = {}
        self.outside: set[str] = set()
        """Names that are declared `global` or `nonlocal`."""

    def bind_function(self, node: Function, owner: type | None = None) -> None:
        """Take in the arguments of a function, and what its body binds."""
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            self.bound[argument.arg].append(Bound(annotation=argument.annotation))
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                self.bound[rest.arg].append(Bound())
        first = (*arguments.posonlyargs, *arguments.args)[:1]
        if owner is not None and first and first[0].arg in {"self", "cls"}:
            itself = Meaning((), owner, instance=True) if first[0].arg == "self" else known(owner)
            self.bound[first[0].arg] = [Bound(meaning=itself)]
        self.bind_body(node.body if isinstance(node.body, list) else [node.body])

    def bind_body(self, body: Iterable[ast.AST]) -> None:
        """Take in what statements bind."""
        collector = _Collector(self)
        for statement in body:
            collector.visit(statement)

    def bind_comprehension(self, node: Comprehension) -> None:
        """Take in the variables of a comprehension."""
        for generator in node.generators:
            _Collector(self).visit(generator.target)

    def holder(self, name: str) -> Scope | None:
        """The scope whose own the name is; None if it is the module's, a closure's or a builtin."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound and name not in scope.outside:
                return scope
            scope = scope.outer
        return None

    def from_outside(self, name: str) -> Any:  # any object of the user's program
        """What a name stands for that no scope binds, or UNKNOWN."""
        code = self.function.__code__
        for free, cell in zip(code.co_freevars, self.function.__closure__ or (), strict=True):
            if free == name:
                try:
                    return cell.cell_contents
                except ValueError:  # not bound yet
                    return UNKNOWN
        return self.function.__globals__.get(name, UNKNOWN)


class _Collector(ast.NodeVisitor):
    """Finds what is bound in one scope, and stays out of those inside."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def _bind(self, name: str | None, bound: Bound) -> None:
        if name is not None:
            self._scope.bound[name].append(bound)

    def _bind_target(self, target: ast.expr, value: ast.expr | None, *, unpacked: bool = False) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, Bound(value=value, unpacked=unpacked))
        elif isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) and not unpacked else []
            if len(values) == len(target.elts) and not any(isinstance(part, ast.Starred) for part in values):
                for part, of_part in zip(target.elts, values, strict=True):
                    self._bind_target(part, of_part)
            else:
                for part in target.elts:
                    self._bind_target(part, value, unpacked=True)
        else:
            self.visit(target)

    def visit_Name(self, node: ast.Name) -> None:
        """An own name, of which nothing else is known; deleting does not tell what it was."""
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, Bound())

    def visit_Assign(self, node: ast.Assign) -> None:
        """A value for each target."""
        for target in node.targets:
            self._bind_target(target, node.value)
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """The same kind of thing as before, so nothing is learned of the name."""
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """A value, or what the annotation says."""
        if isinstance(node.target, ast.Name):
            self._bind(node.target.id, Bound(value=node.value, annotation=node.annotation))
        if node.value is not None:
            self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """A value inside an expression."""
        self._bind_target(node.target, node.value)
        self.visit(node.value)

    def visit_withitem(self, node: ast.withitem) -> None:
        """What is opened mostly gives itself."""
        if node.optional_vars is not None:
            self._bind_target(node.optional_vars, node.context_expr)
        self.visit(node.context_expr)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """The error."""
        self._bind(node.name, Bound())
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        """A part of what is matched."""
        self._bind(node.name, Bound())
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        """The rest of a sequence."""
        self._bind(node.name, Bound())

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        """The rest of a mapping."""
        self._bind(node.rest, Bound())
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """A module, or the package that it lies in."""
        for alias in node.names:
            module = alias.name if alias.asname else alias.name.partition(".")[0]
            self._bind(alias.asname or module, Bound(imported=(module, "")))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """An attribute of a module."""
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            self._bind(alias.asname or alias.name, Bound(imported=(module, alias.name)))

    def visit_Global(self, node: ast.Global) -> None:
        """Names of the module, although they are bound here."""
        self._scope.outside.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """Names of a scope around, although they are bound here."""
        self._scope.outside.update(node.names)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A function of the body."""
        self._bind(node.name, Bound(meaning=Meaning(node=node)))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the name is ast's

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class of the body."""
        self._bind(node.name, Bound())

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Binds nothing around it."""

    def visit_ListComp(self, node: Comprehension) -> None:
        """Binds nothing around it, except by `:=`."""
        for part in ast.walk(node):
            if isinstance(part, ast.NamedExpr):
                self._bind_target(part.target, part.value)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815 - the names are ast's
