"""`perdure check`: find in the code of workflows what a replay would not see again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from perdure.cli.exits import Exit, Failure
from perdure.cli.loading import App, load
from perdure.cli.options import output_option
from perdure.cli.writing import Form, safe, write_json
from perdure.core.registry import workflows
from perdure.lint import Finding, findings_of


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@output_option
def check(target: str, form: Form) -> None:
    """Find clocks, chance, I/O, threads and the like in the code of workflows.

    MODULE is imported from the working folder, and nothing of it is run: no database is needed. Looked at are all
    workflows that are known then, and the functions of yours that they call, but for steps.

    A line is excused by a comment: `# perdure: allow`, or `# perdure: allow[clock, io]`.

    Ends with 0 if nothing is found, 1 if something is, and 2 if the module cannot be imported.
    """
    import_workflows(target)
    if not workflows:
        raise Failure(
            Exit.USAGE,
            f"no workflow is known after importing {target!r}: name a module that has them, or imports them",
        )
    findings = findings_of(workflows.values())
    _write(findings, form)
    if form is not Form.JSON:
        told = {0: "nothing found", 1: "1 finding"}.get(len(findings), f"{len(findings)} findings")
        click.echo(f"perdure: workflows looked at: {len(workflows)}; {told}", err=True)
    if findings:
        raise click.exceptions.Exit(Exit.FAILED)


def import_workflows(target: str) -> App | None:
    """Import a module, so that its workflows are known; return its app, if it has one.

    Raises:
        Failure: it is not there, it cannot be imported, or it has no such app.
    """
    try:
        return load(target)
    except Failure as failure:
        if target in sys.modules:
            return None  # a module without an app, or with several: its workflows are known all the same
        raise Failure(Exit.USAGE, str(failure)) from None  # a script must be able to tell it from findings


def _write(findings: Sequence[Finding], form: Form) -> None:
    if form is Form.JSON:
        write_json([_document(finding) for finding in findings])
        return
    for finding in findings:
        place = f"{_shown(finding.file)}:{finding.line}:{finding.column}"
        click.echo(safe(f"{place}: {finding.code}: {finding.message} (in workflow {finding.workflow})"))


def _document(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"file": _shown(finding.file)}


def _shown(file: str) -> str:
    """The file as people here would name it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
