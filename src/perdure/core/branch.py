"""A branch: one strand of a run's code; and which branch, and which step, the code is that is running now."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from perdure.models import Info

if TYPE_CHECKING:
    from perdure.core.run import Run


class GoOnAsNew(BaseException):
    """Ends this life of a run, whose code begins anew with other arguments; raised by `continue_as_new`."""

    def __init__(self, input: bytes) -> None:
        super().__init__()
        self.input = input


class Unwind(BaseException):
    """Takes the code of a run off the stack; what it returns or raises afterwards is ignored."""


class Branch:
    """One strand of a run's code: it numbers its own calls, and seeds its own randomness."""

    __slots__ = ("_random", "children", "count", "path", "run")

    def __init__(self, run: Run, path: str) -> None:
        self.run, self.path = run, path
        self.count = self.children = 0
        self._random: random.Random | None = None

    def next_position(self) -> str:
        """The identity of the next call."""
        self.count += 1
        return f"{self.path}{self.count}"

    def fork(self) -> Branch:
        """A new branch, numbered in the order of creation."""
        self.children += 1
        return Branch(self.run, f"{self.path}{self.children}/")

    @property
    def random(self) -> random.Random:
        """Randomness that is the same on every replay."""
        if self._random is None:
            seed = self.run.seed or f"{self.run.runtime.realm}/{self.run.key}"
            self._random = random.Random(f"{seed}/{self.path}")
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A random UUID that is the same on every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)


current: ContextVar[Branch | None] = ContextVar("perdure_branch", default=None)
"""The branch whose code is running; None outside, and inside the body of a step."""

step_info: ContextVar[Callable[[], Info] | None] = ContextVar("perdure_step", default=None)
"""What the step whose body is running can know of itself; made when it asks."""
