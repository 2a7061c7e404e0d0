"""The survey: from each workflow on to the functions that it calls, each of which is looked at once.

It goes nearest first, so that what several workflows reach is told of one that is near. Steps and transactions
end it, since they may do what they like; so do the libraries of others, of which nobody could mend anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Final

from perdure.core.registry import WorkflowDefinition
from perdure.lint.body import Body, Called
from perdure.lint.findings import Code, Finding
from perdure.lint.objects import Target
from perdure.lint.source import Source, Sources

DEEPEST: Final = 30
"""Calls from a workflow down to a function that is still looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class _Visit:
    target: Target
    definition: WorkflowDefinition
    depth: int = 0


class _Survey:
    def __init__(self) -> None:
        self.findings: dict[tuple[str, int, int, Code], Finding] = {}
        self._sources = Sources()
        self._waiting: deque[_Visit] = deque()
        self._seen: set[tuple[int, int]] = set()

    def add(self, visit: _Visit) -> None:
        function, owner = visit.target
        key = (id(function), id(owner))
        if key not in self._seen:
            self._seen.add(key)
            self._waiting.append(visit)

    def run(self) -> None:
        while self._waiting:
            self._look_at(self._waiting.popleft())

    def _look_at(self, visit: _Visit) -> None:
        found = self._sources.of(visit.target[0])
        if found is None:
            if visit.depth == 0:
                self._unseen(visit, "cannot be read")
            return
        source, node = found
        try:
            body = Body(visit.target, node, is_async=visit.definition.is_async)
        except RecursionError:  # generated code, with an expression of some hundred links
            self._unseen(visit, "is too deeply nested")
            return
        for noted in body.noted:
            if not source.excuses(noted.node, noted.code):
                place = noted.node.lineno, source.column(noted.node)
                self._find(visit, *place, noted.code, noted.text)
        if visit.depth < DEEPEST:
            for called in body.called:
                self._go_on(visit, source, called)

    def _go_on(self, visit: _Visit, source: Source, called: Called) -> None:
        package = str(visit.definition.function.__module__).partition(".")[0]
        if self._sources.is_users(called.target[0], package) and not source.excuses(called.node):
            self.add(_Visit(called.target, visit.definition, visit.depth + 1))

    def _unseen(self, visit: _Visit, why: str) -> None:
        function, _ = visit.target
        text = f"the source of {function.__qualname__} {why}, so that nothing of it was looked at"
        self._find(visit, function.__code__.co_firstlineno, 1, "source", text)

    def _find(self, visit: _Visit, line: int, column: int, code: Code, text: str) -> None:
        file = visit.target[0].__code__.co_filename
        finding = Finding(file, line, column, code, visit.definition.name, text)
        self.findings.setdefault((file, line, column, code), finding)


def findings_of(workflows: Iterable[WorkflowDefinition]) -> list[Finding]:
    """Look at the code of workflows, and at the user's functions that it calls.

    Args:
        workflows: their definitions, as the registry has them.

    Returns:
        What to mend, by file and line; each place once, also if several workflows reach it.
    """
    survey = _Survey()
    for definition in sorted(workflows, key=lambda definition: definition.name):
        function = definition.function
        if isinstance(function, FunctionType):
            survey.add(_Visit((function, None), definition))
    survey.run()
    return sorted(survey.findings.values())
