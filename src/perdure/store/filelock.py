"""Locks on files that the kernel frees however their holder ends: the shared memory of processes that never met.

These are `flock` locks. They belong to an open file, not to a process: a child that inherits the descriptor
holds the lock too, until the last copy is closed. The embedded server is built on exactly that, and it is why
`fcntl` record locks would not do.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PAUSE = 0.01  # seconds between tries: `flock` cannot wait with a limit


def hold(path: Path, *, shared: bool = False, seconds: float) -> int:
    """Return a descriptor that holds the lock on `path`, which is made if missing.

    Arguments:
        path: a file in a private folder.
        shared: let others hold it too, if they also share. Default: exclusively.
        seconds: how long to try; 0 tries once.

    Raises:
        TimeoutError: others still hold it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + seconds
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"others hold {path}") from None
            else:
                return descriptor
            time.sleep(_PAUSE)
    except BaseException:
        os.close(descriptor)
        raise


def release(descriptor: int) -> None:
    """Unlock and close: also for a child that was forked meanwhile and has a copy of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
