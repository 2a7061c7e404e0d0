"""As whom the embedded server's programs run.

Postgres refuses to run as root, so root runs it as `nobody`, the one account that every system has and that
owns nothing; making an account of our own would change the machine. Everybody else runs it as themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.errors import DatabaseUnavailable

if sys.platform != "win32":
    import pwd


@dataclass(frozen=True)
class Account:
    """The operating-system account that the server runs as when root starts it."""

    user: int
    group: int


def server_account() -> Account | None:
    """Return the account to run the server as, or None for the one that this process has.

    Raises:
        DatabaseUnavailable: no server can be embedded on this platform, or by root on this machine.
    """
    if sys.platform == "win32" or (os.geteuid() == 0 and not Path("/proc/self/fd").exists()):
        raise DatabaseUnavailable(
            "the embedded Postgres needs Linux, or macOS without root: set PERDURE_DATABASE_URL"
        )
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")  # a bare number would not do: initdb asks for the name
    except KeyError:
        raise DatabaseUnavailable(
            "Postgres cannot run as root, and there is no account `nobody` to run it as: "
            "run as another user, or set PERDURE_DATABASE_URL"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def run_options(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess.run` (so Any) with which a program of Postgres runs as it should.

    Postgres takes settings from PG* variables, and a user's are meant for other servers.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    options: dict[str, Any] = {"cwd": "/", "umask": 0o077, "env": environment | {"LC_ALL": "C"}}
    if account:
        options |= {"user": account.user, "group": account.group, "extra_groups": []}
    return options


def command_of(pid: int) -> str:
    """Return the command line of a process; empty for a zombie and where there is none."""
    if not Path("/proc/self").exists():
        listed = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        return listed.stdout
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
