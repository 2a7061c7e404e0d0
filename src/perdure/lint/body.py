"""A body: the walk through the code of one function, which notes what to mend and what it calls.

All of the code counts, with the functions and lambdas inside of it: where they are called cannot be seen, and a
body that defines one does so to call it. Only a function that is made a step there is left out.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from types import FunctionType
from typing import Final

from perdure.lint.calls import any_durable, bare_coroutines, gives_coroutine, inside
from perdure.lint.expressions import is_set, meaning_of
from perdure.lint.factories import factories_of
from perdure.lint.findings import Code
from perdure.lint.objects import Meaning, Target, definition_of, functions_in, is_a, is_exception
from perdure.lint.rules import SETTING, UNSAFE_ORDER, WORDS, rule_of
from perdure.lint.scopes import Comprehension, Function, Scope
from perdure.lint.state import changed_outside, changes_outside, setting_of

_DECORATORS: Final = {"perdure.step", "perdure.transaction", "perdure.workflow"}
_TAKES_STEPS: Final = {
    f"{module}.{name}"
    for module in ("perdure", "perdure.sync")
    for name in ("run_step", "map_steps", "start")
}
_CHANGED: Final = "outlives the run, and every replay changes it again: keep it in a variable of the workflow, or write it in a step"
_ORDER: Final = "a set is in another order in every process, and durable calls must be made in the same one: sort it first"


@dataclass(frozen=True, slots=True)
class Noted:
    """A place to mend: the node, what kind of thing it is, and what to say of it."""

    node: ast.expr | ast.stmt
    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A function that the body calls or hands over, and where."""

    target: Target
    node: ast.expr


class Body(ast.NodeVisitor):
    """The walk through a function.

    Args:
        target: the function, with its module and closure, in which names are looked for.
        node: its code.
        is_async: whether the workflow is `async def`, from which follows what to use instead.

    Attributes:
        noted: what was found.
        called: where to go on.
    """

    def __init__(self, target: Target, node: Function, *, is_async: bool) -> None:
        function, owner = target
        self.noted: list[Noted] = []
        self.called: list[Called] = []
        self._words = WORDS[is_async]
        self._scope = Scope(function, is_async=isinstance(node, ast.AsyncFunctionDef))
        self._scope.bind_function(node, owner)
        self._walk(node.body if isinstance(node.body, list) else [node.body])

    def visit_Call(self, node: ast.Call) -> None:
        """What is called, and what is handed over to be called."""
        meaning = meaning_of(node.func, self._scope)
        noted = meaning is not None and self._check(node, meaning, node)
        if changes_outside(node, self._scope):
            self._note(node, "global", f"what {ast.unparse(node.func)} changes {_CHANGED}")
        if meaning is not None and not noted:
            self._follow(meaning, node)
            self._make(meaning, node)
        if not noted and definition_of(meaning) is None and _TAKES_STEPS.isdisjoint(_names(meaning)):
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                self._hand_over(argument)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """A setting of this process, by a name of its own."""
        if isinstance(node.ctx, ast.Load):
            self._look(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A setting of this process, a property, or a change of what was there before."""
        if isinstance(node.ctx, ast.Load):
            self._look(node)
        else:
            self._change(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """A change of what was there before."""
        if not isinstance(node.ctx, ast.Load):
            self._change(node)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value only: annotations of variables are not run."""
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_Global(self, node: ast.Global) -> None:
        """A variable of the module."""
        self._note(node, "global", f"{', '.join(node.names)} {_CHANGED}")

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """A variable of a function around, if that is around the workflow too."""
        names = [name for name in node.names if self._scope.holder(name) is None]
        if names:
            self._note(node, "global", f"{', '.join(names)} {_CHANGED}")

    def visit_Expr(self, node: ast.Expr) -> None:
        """A coroutine that is made and dropped."""
        if self._scope.is_async and isinstance(node.value, ast.Call):
            meaning = meaning_of(node.value.func, self._scope)
            if gives_coroutine(meaning) and rule_of(_names(meaning)) is None:
                name = ast.unparse(node.value.func)
                self._note(
                    node, "await", f"{name}(...) does nothing before it is awaited: write await {name}(...)"
                )
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        """A loop whose order decides that of durable calls."""
        if is_set(node.iter, self._scope) and any_durable(node.body, self._scope):
            self._note(node.iter, "order", _ORDER)
        self.generic_visit(node)

    def visit_ListComp(self, node: Comprehension) -> None:
        """A loop whose order decides that of durable calls, in a scope of its own."""
        outer, self._scope = self._scope, inside(node, self._scope)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        conditions = [condition for generator in node.generators for condition in generator.ifs]
        for generator in node.generators:
            if is_set(generator.iter, self._scope) and any_durable([*parts, *conditions], self._scope):
                self._note(generator.iter, "order", _ORDER)
        self.generic_visit(node)
        self._scope = outer

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815 - the names are ast's

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A function of the body; a step of the body is none of it."""
        self._walk([*node.decorator_list, *_defaults(node)])
        made = [part.func if isinstance(part, ast.Call) else part for part in node.decorator_list]
        if _DECORATORS.isdisjoint(name for part in made for name in _names(meaning_of(part, self._scope))):
            self._enter(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the name is ast's

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """A function of the body."""
        self._walk(_defaults(node))
        self._enter(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class of the body, with names of its own."""
        self._walk([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        outer, self._scope = self._scope, Scope(self._scope.function, self._scope)
        self._scope.bind_body(node.body)
        self._walk(node.body)
        self._scope = outer

    def _enter(self, node: Function) -> None:
        outer = self._scope
        self._scope = Scope(outer.function, outer, is_async=isinstance(node, ast.AsyncFunctionDef))
        self._scope.bind_function(node)
        self._walk(node.body if isinstance(node.body, list) else [node.body])
        self._scope = outer

    def _walk(self, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def _note(self, node: ast.expr | ast.stmt, code: Code, text: str) -> None:
        self.noted.append(Noted(node, code, text))

    def _check(self, call: ast.Call, meaning: Meaning, node: ast.expr, place: str = "") -> bool:
        """Note a call, if there is a rule against it; say whether there was."""
        if meaning.instance or is_exception(meaning):
            return False
        if (
            "asyncio.as_completed" in meaning.names
            and call.args
            and bare_coroutines(call.args[0], self._scope)
        ):
            self._note(node, "asyncio", f"asyncio.as_completed {UNSAFE_ORDER}")
            return True
        found = rule_of(meaning.names)
        if found is None or not found[1].applies(call):
            return False
        name, rule = found
        self._note(node, rule.code, f"{place}{name} {rule.text.format(**self._words)}")
        return True

    def _hand_over(self, argument: ast.expr) -> None:
        """Treat a function that is handed over as called, without arguments: nothing else is known of that."""
        if not isinstance(argument, ast.Name | ast.Attribute):
            return
        meaning = meaning_of(argument, self._scope)
        if meaning is None or is_a(meaning.value, type) or is_a(meaning.value, property):
            return
        if not self._check(_bare_call(argument), meaning, argument):
            self._follow(meaning, argument)

    def _make(self, meaning: Meaning, call: ast.Call) -> None:
        """Treat the factories of fields that a call leaves out as called."""
        for field, factory in factories_of(meaning, call):
            if not self._check(_bare_call(call.func), factory, call, f"the default of {field}, "):
                self._follow(factory, call)

    def _follow(self, meaning: Meaning, node: ast.expr) -> None:
        if definition_of(meaning) is None:
            self.called += [Called(target, node) for target in functions_in(meaning)]

    def _look(self, node: ast.Name | ast.Attribute) -> None:
        meaning = meaning_of(node, self._scope)
        setting = setting_of(meaning)
        if setting is not None:
            self._note(node, SETTING.code, f"{setting} {SETTING.text}")
        elif meaning is not None and meaning.owner is not None and not is_a(meaning.value, FunctionType):
            self._follow(meaning, node)

    def _change(self, node: ast.Attribute | ast.Subscript) -> None:
        if changed_outside(node, self._scope) and setting_of(meaning_of(node.value, self._scope)) is None:
            self._note(node, "global", f"{ast.unparse(node)} {_CHANGED}")


def _names(meaning: Meaning | None) -> tuple[str, ...]:
    return meaning.names if meaning is not None else ()


def _bare_call(function: ast.expr) -> ast.Call:
    return ast.Call(func=function, args=[], keywords=[])


def _defaults(node: Function) -> list[ast.expr]:
    return [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
