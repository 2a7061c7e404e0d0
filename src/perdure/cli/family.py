"""`perdure worker --processes N`: a parent that starts workers as processes of their own, and again when one dies.

The parent opens no app and imports nothing of the user's: what it does must go on whatever their code does. Children are
new interpreters, not forks, in sessions of their own, so that an interrupt typed at the terminal reaches the parent
alone, which passes it on once. Each has the read end of a pipe as its standard input, and stops in order when that ends: the
parent is gone then, however it went.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from perdure.cli.exits import Exit

logger = logging.getLogger("perdure.cli")

FIRST_PAUSE: Final = 1.0
"""Seconds before a child that died is started again; twice as long each time that it dies soon."""
LONGEST_PAUSE: Final = 30.0
LIVED_LONG: Final = 60.0
"""After so many seconds a death has nothing to do with the one before."""
FINAL: Final = frozenset((Exit.USAGE, Exit.SCHEMA, Exit.DENIED))
"""Exit codes that another try would not change."""
_HEARD: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Child:
    """One place among the processes, and who has it now.

    Attributes:
        place: its number, from 0.
        process: the process, if one runs.
        began: when that was started.
        pause: seconds before the next is started, if this one dies.
        due: when the next one is to be started; None if none is.
    """

    place: int
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = FIRST_PAUSE
    due: float | None = 0.0


@dataclass
class Family:
    """The processes of one `perdure worker`.

    Args:
        count: how many.
        command: the command line and the variables for the child at a place.
        until_idle: whether a child that ends well has nothing to do any more; else another one comes in its place.
    """

    count: int
    command: Callable[[int], tuple[list[str], dict[str, str]]]
    until_idle: bool = False
    code: int = 0
    _children: list[Child] = field(default_factory=list)
    _signals: int = 0

    def work(self) -> int:
        """Start them, keep them going until told to stop, and return what to exit with."""
        ear, mouth = socket.socketpair()
        for end in (ear, mouth):
            end.setblocking(False)
        signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        for heard in (*_HEARD, signal.SIGCHLD):
            signal.signal(heard, lambda _number, _frame: None)
        self._children = [Child(place) for place in range(self.count)]
        while any(child.process is not None or child.due is not None for child in self._children):
            self._start_due()
            select.select([ear], [], [], self._patience())
            for number in _drained(ear):
                if number in _HEARD:
                    self._stop(number)
            for child in self._children:
                if child.process is not None and child.process.poll() is not None:
                    self._ended(child, child.process)
        logger.info("all processes have ended")
        return self.code

    def _start_due(self) -> None:
        for child in self._children:
            if child.due is not None and child.due <= time.monotonic():
                command, environment = self.command(child.place)
                child.process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, start_new_session=True
                )
                child.began, child.due = time.monotonic(), None
                logger.info("process %d started pid=%d", child.place, child.process.pid)

    def _patience(self) -> float | None:
        due = [child.due for child in self._children if child.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _stop(self, number: int) -> None:
        """Pass a signal on, and start nobody any more."""
        self._signals += 1
        if self._signals > 1:
            self.code = 128 + number
        living = [child.process for child in self._children if child.process is not None]
        logger.info("%s: passing it on to %d processes", signal.Signals(number).name, len(living))
        for child in self._children:
            child.due = None
        for process in living:
            process.send_signal(signal.SIGTERM)

    def _ended(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        """A child has ended: decide whether another one comes in its place, and when."""
        child.process, code = None, process.returncode
        if process.stdin is not None:
            process.stdin.close()
        lived = time.monotonic() - child.began
        child.pause = FIRST_PAUSE if lived >= LIVED_LONG else child.pause
        if self._signals:
            logger.info("process %d ended pid=%d %s", child.place, process.pid, _how(code))
            self.code = self.code or (max(0, code) if code != Exit.RECYCLED else 0)
        elif code == Exit.DONE and self.until_idle:
            logger.info("process %d is done pid=%d", child.place, process.pid)
        elif code == Exit.RECYCLED:
            logger.info("process %d is recycled pid=%d", child.place, process.pid)
            child.due = 0.0
        elif code in FINAL:
            logger.error(
                "process %d cannot work pid=%d %s: stopping all", child.place, process.pid, _how(code)
            )
            self.code = code
            self._stop(signal.SIGTERM)
        else:
            child.due, child.pause = time.monotonic() + child.pause, min(2 * child.pause, LONGEST_PAUSE)
            logger.warning(
                "process %d died pid=%d %s after %.0f s; another one in %.3g s",
                child.place, process.pid, _how(code), lived, child.due - time.monotonic(),
            )  # fmt: skip


def _drained(ear: socket.socket) -> bytes:
    try:
        return ear.recv(4096)
    except BlockingIOError:
        return b""


def _how(code: int) -> str:
    return f"code={code}" if code >= 0 else f"signal={signal.Signals(-code).name}"


def environment_of(place: int) -> dict[str, str]:
    """The variables of a child: this process's, with a name of its own if there is one for all."""
    variables = dict(os.environ)
    if name := variables.get("PERDURE_NAME"):
        variables["PERDURE_NAME"] = f"{name}-{place}"
    return variables
