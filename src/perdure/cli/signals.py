"""How a worker process is stopped: in order at the first signal, at once at the second.

A handler in Python runs only when the main thread gets to its next instruction: not while it waits in the
kernel, if the signal came just before it went there, and then between any two instructions of whatever holds
whatever lock. So the number of the signal goes by Python's wake-up descriptor to a thread that holds nothing and
decides. That thread also bounds what nobody can: a user's thread that does not end must not keep a process
whose runs have been handed over.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, Protocol

logger = logging.getLogger("perdure.cli")

LEAVE_WITHIN: Final = 5.0
"""Seconds within which the process is gone after the second signal, or after its app was closed."""

_CLOSED: Final = 0
_ASKED: Final = 255
HEARD: Final = (signal.SIGTERM, signal.SIGINT)


class Closing(Protocol):
    """An app that is being closed."""

    def hurry(self) -> None:
        """Wait for no run any longer."""


class Stopper:
    """Hears SIGTERM and SIGINT, and whoever else wants the worker to stop.

    Args:
        app: what is to be closed.
        begin: called once, from a thread, when it is to stop; it must see to it that the app is closed.
    """

    def __init__(self, app: Closing, begin: Callable[[], object]) -> None:
        self.code = 0
        """What the process is to exit with."""
        self.stopping = threading.Event()
        """Set once it is to stop."""
        self._app, self._begin = app, begin
        self._asked = ("", 0)
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="perdure-signals", daemon=True)

    def start(self) -> None:
        """Hear signals from now on; in the main thread."""
        self._thread.start()
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, self._heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)  # a parent may have held them back until now
        _keep_from_children()

    def stop(self, why: str, code: int = 0) -> None:
        """Stop in order, as at the first signal; a signal is then the first all the same.

        Args:
            why: for the log.
            code: what the process is to exit with, unless it is told to stop by a signal too.
        """
        self._asked = (why, code)
        self._mouth.send(bytes([_ASKED]))

    def closed(self) -> None:
        """The app is closed: what is left of the process has some seconds to end."""
        self._mouth.send(bytes([_CLOSED]))

    def _heard(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on if the wake-up descriptor has become somebody else's, such as an event loop's."""
        descriptor = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        if descriptor != self._mouth.fileno():
            signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
            self._mouth.send(bytes([number]))

    def _watch(self) -> None:
        signals = 0
        while signals < 2 and (heard := self._next()) != _CLOSED:
            if heard == _ASKED and not self.stopping.is_set():
                why, self.code = self._asked
                logger.info("%s: stopping in order", why)
            elif heard != _ASKED:
                signals += 1
                self._signalled(heard, signals)
            if not self.stopping.is_set():
                self.stopping.set()
                self._begin()
        self._ear.settimeout(LEAVE_WITHIN)
        with suppress(TimeoutError):
            while self._next() == _ASKED:
                pass
        logging.shutdown()
        os._exit(self.code)

    def _signalled(self, number: int, count: int) -> None:
        if count == 1:
            self.code = 0
            logger.info("%s: stopping in order; once more to stop at once", _name(number))
        else:
            self.code = 128 + number
            logger.warning("%s again: stopping at once", _name(number))
            self._app.hurry()

    def _next(self) -> int:
        """Wait for the next signal, or for the end; other signals of the process are not ours."""
        while True:
            number = self._ear.recv(1)[0]
            if number in (_CLOSED, _ASKED) or number in HEARD:
                return number


def _keep_from_children() -> None:
    """See to it that a signal for a forked child is not heard here, though it inherits handlers and descriptor.

    The signals wait, in the thread that forks, until the child has forgotten both.
    """
    masks = threading.local()

    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=forget)


def _name(number: int) -> str:
    return signal.Signals(number).name
