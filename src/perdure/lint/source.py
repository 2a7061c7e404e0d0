"""Sources: the code of functions, whose code it is, and which lines of it are excused.

Code is looked for by file, name and first line, as the interpreter keeps them of a function; where that does
not fit the file any more, there is no code to look at.
"""

from __future__ import annotations

import ast
import io
import linecache
import re
import sysconfig
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Final

from perdure.lint.findings import Code
from perdure.lint.scopes import Function

_ALLOWED: Final = re.compile(r"#\s*perdure:\s*allow(?:\s*\[(?P<codes>[\w\s,]*)\])?(?!\w|\s*\[)")
_INSTALLED: Final = {"site-packages", "dist-packages"}
_PERDURE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Source:
    """A file.

    Attributes:
        lines: its text.
        functions: by name and first line; None if there are several.
        allowed: by line, what a comment there excuses; nothing named means everything.
    """

    lines: list[str]
    functions: Mapping[tuple[str, int], Function | None]
    allowed: Mapping[int, frozenset[str]]

    def excuses(self, node: ast.expr | ast.stmt, code: Code | None = None) -> bool:
        """Whether a comment behind the node excuses a finding of this code, or everything if there is no code."""
        for line in {node.lineno, node.end_lineno or node.lineno}:
            codes = self.allowed.get(line)
            if codes is not None and (not codes or code in codes):
                return True
        return False

    def column(self, node: ast.expr | ast.stmt) -> int:
        """Where in its line the node begins, in characters from 1 on."""
        return len(self.lines[node.lineno - 1].encode()[: node.col_offset].decode()) + 1


class Owner(Enum):
    """Whose a file is."""

    USER = "user"
    LIBRARY = "library"
    PYTHON = "python"
    """Python's, perdure's, or no file at all: nothing of it is looked at."""


class Sources:
    """The files that were read so far."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        self._standard = [Path(paths[name]).resolve() for name in ("stdlib", "platstdlib")]
        self._read: dict[str, Source | None] = {}
        self._owners: dict[str, Owner] = {}

    def of(self, function: FunctionType) -> tuple[Source, Function] | None:
        """The file of a function and its code in it, or None if there is none to be read."""
        code = function.__code__
        if code.co_filename not in self._read:
            linecache.checkcache(code.co_filename)
            lines = linecache.getlines(code.co_filename, function.__globals__)
            self._read[code.co_filename] = _source_of(lines)
        source = self._read[code.co_filename]
        node = source.functions.get((code.co_name, code.co_firstlineno)) if source is not None else None
        return None if source is None or node is None else (source, node)

    def is_users(self, function: FunctionType, package: str) -> bool:
        """Whether it is the user's own: of no library, unless that is the package of the workflow."""
        file = function.__code__.co_filename
        if file not in self._owners:
            self._owners[file] = self._owner(file)
        match self._owners[file]:
            case Owner.USER:
                return True
            case Owner.LIBRARY:
                return bool(package) and str(function.__module__).partition(".")[0] == package
            case Owner.PYTHON:
                return False

    def _owner(self, file: str) -> Owner:
        path = Path(file).resolve()
        if file.startswith("<") or path.is_relative_to(_PERDURE):
            return Owner.PYTHON
        if not _INSTALLED.isdisjoint(path.parts):
            return Owner.LIBRARY
        return Owner.PYTHON if any(path.is_relative_to(folder) for folder in self._standard) else Owner.USER


def _source_of(lines: list[str]) -> Source | None:
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return None
    functions: dict[tuple[str, int], Function | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            key = (node.name, min([node.lineno, *(part.lineno for part in node.decorator_list)]))
        elif isinstance(node, ast.Lambda):
            key = ("<lambda>", node.lineno)
        else:
            continue
        functions[key] = None if key in functions else node
    return Source(lines, functions, _allowed(lines)) if lines else None


def _allowed(lines: list[str]) -> dict[int, frozenset[str]]:
    """What comments excuse; a text that looks like one is none."""
    found: dict[int, frozenset[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO("".join(lines)).readline):
        comment = _ALLOWED.search(token.string) if token.type == tokenize.COMMENT else None
        if comment is not None:
            codes = (comment["codes"] or "").split(",")
            found[token.start[0]] = frozenset(code.strip() for code in codes if code.strip())
    return found
