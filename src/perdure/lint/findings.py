"""Findings: one place in the code of a workflow that a replay would not see again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal["clock", "random", "io", "thread", "asyncio", "await", "order", "hash", "global", "source"]
"""What kind of thing was found, as a comment `# perdure: allow[...]` names it."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place to mend.

    Attributes:
        file: of the code, as Python knows it.
        line: from 1 on.
        column: from 1 on.
        code: what kind of thing it is.
        workflow: stored name of the workflow whose code it is; of several that reach it, one of the nearest.
        message: what is wrong, and what to use instead.
    """

    file: str
    line: int
    column: int
    code: Code
    workflow: str
    message: str
