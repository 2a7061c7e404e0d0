"""Run mypy and pyright over a file and compare what they refuse with the lines marked `# E`.

Both must agree with the mark, line by line: a user sees only one of them, and must be told by that one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"#\s*E$")
MYPY_LINE = re.compile(r"^(?P<path>.+?):(?P<line>\d+): error: (?P<text>.*)$")

Errors = dict[int, list[str]]
"""Line number to what a checker says about it."""


def run_mypy(path: Path) -> Errors:
    """Return what `mypy --strict` refuses in a file."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    # The file alone: other files of the project have their own check, and an error there is not this one's.
    command += ["--no-pretty", "--config-file", os.devnull, "--follow-imports=silent", str(path)]
    result = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    if result.returncode not in {0, 1}:
        raise RuntimeError(f"mypy did not run: {result.stdout}{result.stderr}")
    errors: Errors = {}
    for match in filter(None, map(MYPY_LINE.match, result.stdout.splitlines())):
        if Path(ROOT, match["path"]).resolve() == path.resolve():
            errors.setdefault(int(match["line"]), []).append(match["text"])
    if result.returncode and not errors:
        raise RuntimeError(f"mypy refuses something else: {result.stdout}{result.stderr}")
    return errors


def run_pyright(path: Path) -> Errors:
    """Return what pyright refuses in a file; `# pyright: strict` at its top makes it strict."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(path)]
    result = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    try:
        report = json.loads(result.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"pyright did not run: {result.stdout}{result.stderr}") from None
    if not report["summary"]["filesAnalyzed"]:
        raise RuntimeError(f"pyright did not read {path}")
    errors: Errors = {}
    for item in report["generalDiagnostics"]:
        if item["severity"] == "error":
            line = item["range"]["start"]["line"] + 1
            errors.setdefault(line, []).append(item["message"].splitlines()[0])
    return errors


def differences(path: Path, errors: Errors) -> list[str]:
    """Return where a checker and the marks disagree."""
    lines = path.read_text("utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if MARK.search(line)}
    missed = [f"{number}: accepted: {lines[number - 1].strip()}" for number in sorted(marked - set(errors))]
    extra = [
        f"{number}: refused: {lines[number - 1].strip()}: {'; '.join(errors[number])}"
        for number in sorted(set(errors) - marked)
    ]
    return missed + extra


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        "MYPYPATH": str(ROOT / "src"),
        "NO_COLOR": "1",
    }
