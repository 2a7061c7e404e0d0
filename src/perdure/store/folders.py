"""The embedded server's folders: private, safe from others in /tmp, and reachable by who runs the server.

Postgres refuses to run as root, so root runs it as `nobody`. That account cannot pass a private folder such
as root's home, and opening one to everybody is not ours to do. So root opens the folder itself and hands the
descriptor down: on Linux `/proc/self/fd/<n>` leads straight to it, past every parent, for the program and
all its children (tried with `initdb` and `postgres` of 15 and 18).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from perdure.store.account import Account

LONGEST_SOCKET = 103  # bytes that macOS leaves for a socket's path; Linux has four more


def make_private(folder: Path) -> None:
    """Make a folder that only this process's user may enter, or accept one that is so already.

    Raises:
        PermissionError: it is something else, or somebody else's, or open to others.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that is private (0700) to uid {os.geteuid()}")


def make_folder_of(account: Account | None, folder: Path) -> None:
    """Make a private folder of the account, below one that is private to this process's user."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if account and folder.lstat().st_uid != account.user:
        os.chown(folder, account.user, account.group, follow_symlinks=False)


@contextlib.contextmanager
def reached(account: Account | None, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (a path by which the account reaches the folder, the descriptors it must inherit for that)."""
    if account is None:
        yield str(folder), ()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def fits_socket(folder: Path, port: str) -> bool:
    """Tell whether clients can name a socket in `folder`: short, and without what libpq splits at."""
    path = os.fsencode(folder / f".s.PGSQL.{port}")
    return len(path) <= LONGEST_SOCKET and not any(sign in path for sign in b',"\n')


def sync(folder: Path) -> None:
    """Make the names in a folder durable, where it may be read."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a parent that we may pass and write, but not read
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
