"""Check that the documents hold: their Python compiles, their links lead somewhere.

A reader pastes the code and follows the links, so both are tried on every change. Code is compiled, with
`await` allowed at the top as in an asyncio shell, and every name taken from perdure must be one it gives.
Links to other sites are not followed: a check must not depend on the network.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)(?P<rest>.*)$")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
PICTURE = re.compile(r"!\[[^\]]*\]\((?P<target>[^)\s]+)\)")
DEFINITION = re.compile(r"^\[[^\]]+\]:\s+(?P<target>\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"(?P<name>[^\"]+)\"")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class Block(NamedTuple):
    """One fenced block: the line its code begins on, its language, its code."""

    line: int
    language: str
    code: str


def main() -> int:
    """Print what is wrong in the project's documents; return 1 if anything is."""
    root = Path(__file__).resolve().parent.parent
    found = [problem for path in documents(root) for problem in check(path, root)]
    for problem in found:
        print(problem)
    print(f"{len(found)} problems" if found else f"{len(documents(root))} documents hold")
    return 1 if found else 0


def documents(root: Path) -> list[Path]:
    """Return the documents at the root and every one under docs/ and examples/."""
    nested = [path for folder in ("docs", "examples") for path in (root / folder).rglob("*.md")]
    return sorted([*root.glob("*.md"), *nested])


def check(path: Path, root: Path) -> list[str]:
    """Return what is wrong in one document, each as `file:line: what`."""
    text = path.read_text("utf-8")
    problems = [
        *code_problems(text, public_names(root / "src" / "perdure")),
        *link_problems(text, path, root),
    ]
    return [f"{path.relative_to(root)}:{line}: {what}" for line, what in sorted(problems)]


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document, also those indented in a list."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    start, code = 0, [""]
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if opened is None:
            if match is not None:
                opened, start, code = match, number + 1, []
        elif match and match["fence"].startswith(opened["fence"]) and not match["language"]:
            found.append(Block(start, opened["language"].lower(), textwrap.dedent("\n".join(code)) + "\n"))
            opened = None
        else:
            code.append(line)
    if opened is not None:
        found.append(Block(start, "unclosed", ""))
    return found


def code_problems(text: str, names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """Yield the Python blocks that do not compile, and the names that perdure does not have."""
    for block in blocks(text):
        if block.language == "unclosed":
            yield block.line, "a fenced block that is never closed"
        if block.language not in {"python", "py"}:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", SyntaxWarning)
                compile(block.code, "<document>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
                tree = ast.parse(block.code)
        except SyntaxError as error:
            yield block.line + (error.lineno or 1) - 1, f"does not compile: {error.msg}"
            continue
        for line, module, name in used_names(tree):
            if module in names and name not in names[module]:
                yield block.line + line - 1, f"{module} has no {name}"


def used_names(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) for what is taken from perdure and perdure.sync."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"perdure", "perdure.sync"} and not node.level:
            for alias in node.names:
                yield node.lineno, node.module, alias.name
        elif isinstance(node, ast.Attribute):
            module = ast.unparse(node.value)
            if module in {"perdure", "perdure.sync"}:
                yield node.lineno, module, node.attr


def public_names(package: Path) -> dict[str, set[str]]:
    """Return what `perdure` and `perdure.sync` give by `__all__`; a module without it is not judged."""
    found: dict[str, set[str]] = {}
    for module, path in (
        ("perdure", package / "__init__.py"),
        ("perdure.sync", package / "sync.py"),
        ("perdure.sync", package / "sync" / "__init__.py"),
    ):
        if path.is_file():
            names = _all(ast.parse(path.read_text("utf-8")))
            if names:
                found[module] = names
    if "perdure" in found:
        found["perdure"] |= {path.stem for path in package.iterdir() if not path.stem.startswith("_")}
    return found


def _all(tree: ast.Module) -> set[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return set(ast.literal_eval(node.value))
    return set()


def link_problems(text: str, path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield the links, pictures and anchors that lead nowhere, or out of the project."""
    prose = _without_code(text)
    for pattern in (LINK, PICTURE, DEFINITION):
        for match in pattern.finditer(prose):
            what = _link_problem(match["target"], path, root)
            if what is not None:
                yield prose.count("\n", 0, match.start()) + 1, what


def _link_problem(target: str, path: Path, root: Path) -> str | None:
    if ELSEWHERE.match(target):
        return None
    name, _, anchor = target.partition("#")
    file = (path.parent / name).resolve() if name else path
    if name.startswith("/") or not file.is_relative_to(root):
        return f"{target} leads out of the project"
    if not file.exists():
        return f"{target} does not exist"
    if anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
        return f"{target}: no such heading"
    return None


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, named as code hosts name them, and its own."""
    found: set[str] = set()
    prose = _without_code(text, spans=False)
    for match in HEADING.finditer(prose):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["title"])
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        name, count = slug, 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found | {match["name"] for match in ANCHOR.finditer(prose)}


def _without_code(text: str, *, spans: bool = True) -> str:
    lines = text.splitlines()
    for block in blocks(text):
        for number in range(block.line - 1, block.line - 1 + block.code.count("\n")):
            if number < len(lines):
                lines[number] = ""
    prose = "\n".join(lines)
    return re.sub(r"`[^`\n]+`", lambda match: " " * len(match[0]), prose) if spans else prose


if __name__ == "__main__":
    sys.exit(main())
