"""The shape of the source: short files and functions, words everywhere, SQL only in its place.

These rules are what lets a stranger read the code from the surface down to the SQL. They are looked up in
the syntax tree, and each has a test of its own on a piece of code that breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from perdure import sql

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "perdure"

Methods = dict[str, tuple[list[str], set[str]]]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

EMPTY_WORDS = re.compile(
    r"(^|_)(util|utils|utility|utilities|helper|helpers|manager|managers|misc|common)(_|$)"
)

# What reads or changes rows or tables. Not in the list, because they are the frame around statements and
# not statements about our tables: begin, commit, rollback, savepoint, set [local], show, listen, unlisten.
# `lock table` is left out as well: its tables are the user's, and are put together by psycopg.sql.
SQL = re.compile(
    r"""(?:^|[;(])\s*(?:
        select\s | insert\s+into\s | update\s+(?:only\s+)?\S+\s+(?:as\s+\S+\s+)?set\s | delete\s+from\s |
        merge\s+into\s | truncate\s | with\s+(?:recursive\s+)?\w+(?:\s*\([^)]*\))?\s+as\s | values\s*\( |
        (?:create|alter|drop)\s+(?:or\s+replace\s+)?(?:unique\s+|temp\s+|temporary\s+|unlogged\s+)*
            (?:table|index|schema|sequence|function|procedure|trigger|view|type|role|user|database|extension)\s |
        copy\s+\S+\s+(?:from|to)\s | grant\s+\w+\s+on\s | revoke\s+\w+\s+on\s | notify\s+\w+
    )""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def own_files() -> list[Path]:
    folders = (PACKAGE, ROOT / "tests", ROOT / "tools", ROOT / "benchmarks", ROOT / "examples")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


module = pytest.mark.parametrize("path", modules(), ids=name)


@module
def test_a_module_is_short(path: Path) -> None:
    """A file has at most 400 lines."""
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_FILE_LINES


@module
def test_functions_fit_a_screen(path: Path) -> None:
    """A function has at most 70 lines, its docstring aside."""
    assert list(long_functions(tree_of(path))) == []


@module
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """The module and every public class, function and method has a docstring."""
    assert list(undocumented(tree_of(path), documented_methods())) == []


@module
def test_there_is_no_sql_in_python(path: Path) -> None:
    """Statements about tables stand in sql/, where they have a name and a sentence."""
    assert list(sql_texts(tree_of(path))) == []


def test_the_core_knows_no_database_and_no_clock() -> None:
    """What durable means is decided without a driver, a statement or the time of this machine."""
    imports = [
        f"{name(path)}: {word}"
        for path in modules()
        if path.is_relative_to(PACKAGE / "core")
        for word in imported(tree_of(path))
        if word.partition(".")[0] in {"psycopg", "psycopg_pool", "time"} or word.startswith("perdure.sql")
    ]
    assert imports == []


def test_file_names_are_nouns() -> None:
    """No file is named after nothing in particular: utils, helpers, managers, misc."""
    parts = {part: path for path in own_files() for part in (*path.relative_to(ROOT).parts[:-1], path.stem)}
    assert [name(path) for part, path in parts.items() if EMPTY_WORDS.search(part)] == []


def test_every_statement_is_used() -> None:
    """A named statement that no Python speaks of is dead, and goes."""
    spoken = {word for path in modules() for word in spoken_names(tree_of(path))}
    assert [
        f"{section.file}: {section.name}" for section in sql.sections() if section.name not in spoken
    ] == []


def test_every_used_statement_exists() -> None:
    """Where Python asks for a statement by name, there is one of that name."""
    named = {section.name for section in sql.sections()}
    missing = [
        f"{name(path)}:{line}: {word}"
        for path in modules()
        for line, word in asked_names(tree_of(path))
        if word not in named
    ]
    assert missing == []


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def long_functions(tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if ast.get_docstring(function, clean=False) is not None:
            text = function.body[0]
            lines -= (text.end_lineno or text.lineno) - text.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            yield f"{function.name} has {lines} lines"


@cache
def documented_methods() -> Methods:
    found: Methods = {}
    for path in modules():
        found |= methods_of(tree_of(path))
    return found


def methods_of(tree: ast.Module) -> Methods:
    """Return, for each class, its bases and the methods that it documents."""
    found: Methods = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases]
            defined = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            found[node.name] = (bases, {item.name for item in defined if ast.get_docstring(item) is not None})
    return found


def inherited(class_name: str, method: str, methods: Methods) -> bool:
    """Say whether a base of the class, near or far, documents the method."""
    bases, _ = methods.get(class_name, ([], set()))
    return any(
        method in methods.get(base, ([], set()))[1] or inherited(base, method, methods)
        for base in bases
        if base != class_name
    )


def undocumented(tree: ast.Module, methods: Methods) -> Iterator[str]:
    if ast.get_docstring(tree) is None:
        yield "the module"
    yield from undocumented_in(tree, methods)


def undocumented_in(scope: ast.Module | ast.ClassDef, methods: Methods) -> Iterator[str]:
    owner = scope.name if isinstance(scope, ast.ClassDef) else ""
    for node in scope.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or decorated_with(node, {"overload", "override", "setter"}):
            continue  # an overload is documented where it is implemented
        if ast.get_docstring(node) is None and not (owner and inherited(owner, node.name, methods)):
            yield f"{owner}.{node.name}" if owner else node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented_in(node, methods)


def decorated_with(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, names: set[str]) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] in names for decorator in node.decorator_list)


def sql_texts(tree: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in parts:
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        else:
            continue
        if id(node) not in docstrings and SQL.search(text):
            yield f"line {node.lineno}: {' '.join(text.split())[:60]}"


def spoken_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr


def asked_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of `sql["name"]` and `sql.plain("name")`, however the mapping is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            mapping, key = node.value, node.slice
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "plain"
        ):
            mapping, key = node.func.value, node.args[0] if node.args else node.func
        else:
            continue
        last = ast.unparse(mapping).rpartition(".")[2].lstrip("_")
        if last in {"sql", "statements"} and isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield node.lineno, key.value


def test_the_rules_find_long_functions() -> None:
    """71 lines are found, and a long docstring is not counted."""
    code = "def f():\n" + "    x = 1\n" * 70
    assert list(long_functions(ast.parse(code))) == ["f has 71 lines"]
    text = 'def f():\n    """' + "word\n" * 80 + '"""\n' + "    x = 1\n" * 69
    assert list(long_functions(ast.parse(text))) == []


def test_the_rules_find_what_is_undocumented() -> None:
    """Modules, classes, functions and methods; not private ones, overloads and overrides."""
    code = """
class Public(Generic[T]):
    def method(self): ...
    def documented(self): 'Says what it does.'
    @override
    def marked(self): ...
    def __len__(self): ...
class Heir(module.Public[int]):
    'Inherits.'
    def method(self): ...
    def documented(self): ...
class _Private:
    def method(self): ...
@typing.overload
def shaped(x: int): ...
async def function(): ...
"""
    tree = ast.parse(code)
    assert list(undocumented(tree, methods_of(tree))) == [
        "the module",
        "Public",
        "Public.method",
        "Heir.method",
        "function",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "  SELECT * FROM runs",
        "insert into runs values (1)",
        "update runs set x = 1",
        "UPDATE runs AS r SET x = 1",
        "delete from runs",
        "create table x (y int)",
        "create unique index on runs (id)",
        "begin; delete from runs",
        "with due as (select 1) select * from due",
        "begin;\n    drop schema x cascade",
        "truncate runs",
        "notify channel",
    ],
)
def test_the_rules_find_sql(text: str) -> None:
    """Statements about tables are found in strings, bytes and f-strings, but not in docstrings."""
    assert len(list(sql_texts(ast.parse(f"run({text!r})")))) == 1
    assert len(list(sql_texts(ast.parse(f"run({text.encode()!r})")))) == 1
    assert len(list(sql_texts(ast.parse(f"run(f{text + ' {x}'!r})")))) == 1
    assert list(sql_texts(ast.parse(f"def f():\n    {text!r}"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "begin isolation level repeatable read",
        "commit",
        "rollback to savepoint a",
        "set local lock_timeout = 100",
        "listen x",
        "select",
        "cannot delete from a run that ended",
        "update the row and go on",
        "create a run first",
        "with_retry as before",
    ],
)
def test_the_rules_leave_words_alone(text: str) -> None:
    """Transaction control and ordinary sentences are no statements."""
    assert list(sql_texts(ast.parse(f"run({text!r})"))) == []


def test_the_rules_find_imports_everywhere() -> None:
    """An import inside a function, and a submodule taken from its package, are imports."""
    code = "import time as t\ndef f():\n    from perdure import sql\n    import psycopg.rows"
    assert sorted(imported(ast.parse(code))) == ["perdure.sql", "psycopg.rows", "time"]


def test_the_rules_find_names_asked_for() -> None:
    """`statements["a"]`, `self._sql["b"]` and `sql.plain("c")` are uses; other subscripts are not."""
    code = 'x = statements["a"], self._sql["b"], store.sql.plain("c"), row["d"], options["e"]'
    assert sorted(word for _, word in asked_names(ast.parse(code))) == ["a", "b", "c"]


@pytest.mark.parametrize("stem", ["utils", "string_helpers", "manager", "misc", "run_manager"])
def test_the_rules_find_empty_names(stem: str) -> None:
    """An empty word is found alone and as a part of a name."""
    assert EMPTY_WORDS.search(stem)


@pytest.mark.parametrize("stem", ["utilisation", "management", "commonwealth", "miscount"])
def test_the_rules_leave_other_names_alone(stem: str) -> None:
    """A word that only begins like an empty one is a word."""
    assert not EMPTY_WORDS.search(stem)
