"""PgBouncer in transaction mode, in front of a test server: what stands there with many users, and forgets sessions."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.servers import TestServer, free_port

SETTINGS = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
max_db_connections = {size}
server_idle_timeout = 60
log_connections = 0
log_disconnections = 0
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


def program() -> str | None:
    """Where the program is, if this machine has it."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A PgBouncer of its own for one test server.

    Arguments:
        server: a running server.
        size: connections to the server for each database; more clients than that take turns.

    Raises:
        LookupError: this machine has no PgBouncer.
    """

    def __init__(self, server: TestServer, size: int = 10) -> None:
        found = program()
        if found is None:
            raise LookupError("no pgbouncer on this machine (Debian: apt install pgbouncer)")
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-pooler-"))
        self.port = free_port()
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            SETTINGS.format(
                host=server.host, port=server.port, listen=self.port, folder=self._folder, size=size
            )
        )
        command = [found, str(settings)]
        if os.geteuid() == 0:  # it refuses to work as root
            command[1:1] = ["-u", "nobody"]
            os.chown(self._folder, pwd.getpwnam("nobody").pw_uid, -1)
            settings.chmod(0o644)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await()

    def url(self, url: str) -> str:
        """The URL of the same database, through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{conninfo_to_dict(url)['dbname']}"

    def close(self) -> None:
        """End it, and remove its folder."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        shutil.rmtree(self._folder)

    def _await(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("dbname=postgres")).close()
            except psycopg.OperationalError:
                log = self._folder / "pgbouncer.log"
                assert self._process.poll() is None, log.read_text() if log.exists() else "it does not start"
                assert time.monotonic() < until, "it does not let us in"
                time.sleep(0.02)  # there is nothing to wait on: it says nothing when it is ready
            else:
                return
