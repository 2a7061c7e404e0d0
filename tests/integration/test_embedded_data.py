"""What the embedded server does with the data it finds: keeps it, redoes it, or refuses, and says why."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from perdure.errors import DatabaseUnavailable
from perdure.store import embedded
from perdure.store.embedded import EmbeddedPostgres
from tests.embedded_users import NOBODY, Project, one, project, python_of_nobody, run
from tests.servers import binaries_of

POSTGRES_15 = binaries_of(15)
needs_15 = pytest.mark.skipif(POSTGRES_15 is None, reason="needs binaries of Postgres 15")


@pytest.fixture
def own() -> Iterator[Project]:
    with project() as made:
        yield made


def test_rows_survive_an_orderly_stop(own: Project) -> None:
    """Stopped and started again, the server has what it had."""
    server = own.server()
    run(server.start(), "create table kept as select 7 as value")
    server.stop()
    assert one(server.start(), "select value from kept") == 7
    server.stop()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_durability_cannot_be_turned_off(own: Project, setting: str) -> None:
    """Neither the settings file nor an argument turns off what commits rest on."""
    server = EmbeddedPostgres(own.folder, settings={setting: "off"})
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"{setting} = off\n")
    assert one(server.start(), f"show {setting}") == "on"
    server.stop()


def test_commits_wait_for_the_disk(own: Project) -> None:
    """A commit is answered only once it is on disk."""
    server = own.server()
    assert one(server.start(), "show synchronous_commit") == "on"
    server.stop()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("server_encoding", "UTF8"), ("lc_collate", "C"), ("timezone", "UTC"), ("listen_addresses", "")],
)
def test_server_is_the_same_on_every_machine(
    own: Project, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    """Encoding, order, time zone and addresses do not come from the environment."""
    for name, foreign in {
        "LANG": "de_DE.ISO-8859-1",
        "TZ": "Asia/Tokyo",
        "PGTZ": "Asia/Tokyo",
        "PGPORT": "1",
    }.items():
        monkeypatch.setenv(name, foreign)
    server = own.server()
    url = server.start()
    monkeypatch.undo()
    if setting == "lc_collate":
        assert one(url, "select datcollate from pg_database where datname = 'postgres'") == value
    else:
        assert one(url, f"show {setting}") == value
    server.stop()


def test_half_made_data_is_redone(own: Project) -> None:
    """What an initdb left that was killed midway is thrown away."""
    left = own.folder / "postgres" / "new"
    left.mkdir(mode=0o700, parents=True)
    (own.folder / "postgres").chmod(0o700)
    (left / "PG_VERSION").write_text("18\n")
    (left / "base").mkdir()
    server = own.server()
    assert one(server.start(), "select 1") == 1
    assert not left.exists()
    server.stop()


def test_starter_killed_during_initdb_leaves_no_trace(tmp_path: Path) -> None:
    """`kill -9` of the process that makes the data lets the next one make it."""
    if python_of_nobody() is None:
        pytest.skip("needs root, and a Python that nobody can run")
    real = binaries_of(18) or POSTGRES_15
    assert real
    with project(NOBODY) as shop:
        programs = shop.root / "bin"
        programs.mkdir()
        (programs / "postgres").symlink_to(real / "postgres")
        (programs / "initdb").write_text('#!/bin/sh\necho 18 > "$2/PG_VERSION"\nkill -9 $PPID\n')
        (programs / "initdb").chmod(0o755)
        shop.root.chmod(0o755)
        first, second = shop.user(binaries=programs), shop.user(binaries=real)
        assert first.ask("start") == ""  # killed by the initdb that it started
        assert one(second.ask("start"), "select 1") == 1


def test_server_killed_while_it_starts_is_started_again(own: Project) -> None:
    """A server that ended without giving a reason gets another try."""
    real = binaries_of(18) or POSTGRES_15
    assert real
    programs = own.root / "bin"
    programs.mkdir()
    programs.chmod(0o777)
    own.root.chmod(0o755)
    (programs / "initdb").symlink_to(real / "initdb")
    (programs / "postgres").write_text(
        f'#!/bin/sh\n[ "$1" = -D ] && [ ! -e {programs}/tried ] && touch {programs}/tried && kill -9 $$\n'
        f'exec {real}/postgres "$@"\n'
    )
    (programs / "postgres").chmod(0o755)
    server = EmbeddedPostgres(own.folder, binaries=programs)
    assert one(server.start(), "select 1") == 1
    assert (programs / "tried").exists()
    server.stop()


def test_failing_initdb_is_reported_in_one_line(own: Project, tmp_path: Path) -> None:
    """What initdb said is in the error, without line breaks."""
    real = binaries_of(18) or POSTGRES_15
    assert real
    programs = own.root / "bin"
    programs.mkdir()
    (programs / "postgres").symlink_to(real / "postgres")
    (programs / "initdb").write_text("#!/bin/sh\necho no space >&2\necho on this disk >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    own.root.chmod(0o755)
    with pytest.raises(DatabaseUnavailable, match=r"initdb .* failed: no space on this disk$"):
        EmbeddedPostgres(own.folder, binaries=programs).start()


@needs_15
def test_data_of_another_major_is_refused_with_the_way_out(own: Project) -> None:
    """A newer Postgres does not touch the folder of an older one, and one line says what to do."""
    old = EmbeddedPostgres(own.folder, binaries=POSTGRES_15)
    run(old.start(), "create table kept as select 7 as value")
    old.stop()
    new = EmbeddedPostgres(own.folder, binaries=binaries_of(18))
    with pytest.raises(DatabaseUnavailable, match=r"holds data of Postgres 15, but .* pg_dump") as refused:
        new.start()
    assert "\n" not in str(refused.value)
    assert one(old.start(), "select value from kept") == 7
    old.stop()


@needs_15
def test_machines_own_postgres_is_used_without_the_wheel(own: Project) -> None:
    """Where the wheel is missing, the binaries of the machine serve."""
    url = own.user(without_wheel=True).ask("start")
    assert str(one(url, "show server_version")).startswith("15.")


@needs_15
def test_killed_server_of_the_oldest_tested_major_comes_back(own: Project) -> None:
    """`kill -9` and restart on Postgres 15 too."""
    server = EmbeddedPostgres(own.folder, binaries=POSTGRES_15)
    run(server.start(), "create table kept as select 7 as value")
    os.kill(server.pid() or 0, signal.SIGKILL)
    server.ensure()
    assert one(server.url, "select value from kept") == 7
    server.stop()


def test_folder_of_something_else_is_left_alone(own: Project) -> None:
    """Files that are no data of Postgres are neither used nor removed."""
    data = own.folder / "postgres" / "data"
    data.mkdir(parents=True)
    (own.folder / "postgres").chmod(0o700)
    (data / "diary").write_text("mine")
    with pytest.raises(DatabaseUnavailable, match="is no data folder of Postgres"):
        own.server().start()
    assert (data / "diary").read_text() == "mine"


@pytest.fixture
def crashed(own: Project) -> EmbeddedPostgres:
    """A server that was killed, and whose pid file still lies there."""
    server = own.server()
    server.start()
    os.kill(server.pid() or 0, signal.SIGKILL)
    assert server.wait_until_gone()
    server.stop()
    assert (server.data / "postmaster.pid").exists()
    return server


def _rewrite_pid(server: EmbeddedPostgres, pid: int) -> None:
    file = server.data / "postmaster.pid"
    file.write_text("\n".join([str(pid), *file.read_text().split("\n")[1:]]))


def test_reused_pid_is_not_taken_for_the_server(crashed: EmbeddedPostgres) -> None:
    """A process that got the old server's number neither keeps the new one from starting nor is harmed."""
    as_server = {"user": NOBODY} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd="/", **as_server) as stranger:  # type: ignore[call-overload]
        _rewrite_pid(crashed, stranger.pid)
        assert one(crashed.start(), "select 1") == 1
        crashed.stop()
        assert stranger.poll() is None


def test_stop_of_a_dead_server_harms_no_stranger(own: Project) -> None:
    """The number in a dead server's pid file is not sent a signal when its last user leaves."""
    server = own.server()
    server.start()
    os.kill(server.pid() or 0, signal.SIGKILL)
    assert server.wait_until_gone()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        _rewrite_pid(server, stranger.pid)
        server.stop()
        assert stranger.poll() is None


def test_pid_reused_by_another_embedded_server_is_not_taken_for_ours(crashed: EmbeddedPostgres) -> None:
    """Not even another folder's server with that number is believed, or stopped."""
    with project() as other:
        neighbour = other.server()
        neighbour.start()
        _rewrite_pid(crashed, neighbour.pid() or 0)
        assert one(crashed.start(), "select 1") == 1
        crashed.stop()
        assert one(neighbour.url, "select 1") == 1
        neighbour.stop()


def test_zombie_is_not_taken_for_the_server(crashed: EmbeddedPostgres) -> None:
    """A dead process that nobody reaped, as in a container without an init, does not block the start."""
    as_server = {"user": NOBODY} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/true"], cwd="/", **as_server) as zombie:  # type: ignore[call-overload]
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # dead, and still there
        _rewrite_pid(crashed, zombie.pid)
        assert one(crashed.start(), "select 1") == 1
        crashed.stop()


@pytest.mark.parametrize("text", ["", "\n", "12", "not a number\n"])
def test_broken_pid_file_does_not_block_the_start(crashed: EmbeddedPostgres, text: str) -> None:
    """A pid file that was half written when the machine went down is no obstacle."""
    (crashed.data / "postmaster.pid").write_text(text)
    assert one(crashed.start(), "select 1") == 1
    crashed.stop()


def test_server_started_by_hand_is_not_disturbed(own: Project) -> None:
    """Data that a hand-started server has open is not opened a second time."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    server = own.server()
    url = server.start()
    server.stop()
    own.root.chmod(0o755)
    own.folder.chmod(0o755)
    (own.folder / "postgres").chmod(0o711)
    programs = binaries_of(18) or POSTGRES_15
    assert programs
    by_hand = subprocess.Popen(
        [programs / "postgres", "-D", server.data, "-k", own.folder / "postgres" / "run", "-p", "7777",
         "-c", "listen_addresses="],
        user=NOBODY, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert by_hand.stderr
    while "ready to accept" not in by_hand.stderr.readline():
        assert by_hand.poll() is None
    (own.folder / "postgres").chmod(0o700)
    try:
        with pytest.raises(DatabaseUnavailable, match="did not start"):
            server.start()
        assert (server.data / "postmaster.pid").exists()
        assert one(url.replace("5432", "7777"), "select 1") == 1
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.communicate()


def test_server_that_cannot_start_says_why_in_one_line(own: Project) -> None:
    """The reason is taken from the log, at once, not after a minute of tries."""
    server = own.server()
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as configuration:
        configuration.write("nonsense = 1\n")
    with pytest.raises(DatabaseUnavailable, match=r"did not start: .*configuration file.*errors") as failed:
        server.start()
    assert "\n" not in str(failed.value)


def test_full_server_is_alive(own: Project) -> None:
    """A server without a free connection is joined, not started again."""
    server = EmbeddedPostgres(
        own.folder,
        settings={"max_connections": "2", "superuser_reserved_connections": "0", "max_wal_senders": "0",
                  "autovacuum": "off"} | ({"reserved_connections": "0"} if binaries_of(18) else {}),
    )  # fmt: skip
    url = server.start()
    held = [psycopg.connect(url), psycopg.connect(url)]
    with pytest.raises(psycopg.OperationalError, match=r"too many|remaining"):
        psycopg.connect(url)
    joined = own.server()
    joined.start()
    for connection in held:
        connection.close()
    server.stop()
    joined.stop()


def test_log_is_set_aside_once_large(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two generations of the log are kept, so it cannot grow for ever."""
    monkeypatch.setattr(embedded, "LOG_LIMIT", 10)
    server = own.server()
    for _ in range(3):
        server.start()
        server.stop()
    assert sorted(path.name for path in server.log.parent.glob("log*")) == ["log", "log.1"]
    assert server.log.read_text().count("starting PostgreSQL") == 1


def test_removed_folder_is_made_anew(own: Project) -> None:
    """Whoever deletes the folder under a running server gets a new one, which the process holds as its user."""
    server = own.server()
    server.start()
    old = server.pid() or 0
    own.folder.rename(own.root / "gone")
    server.ensure()
    other = own.server()
    other.start()
    other.stop()
    assert one(server.url, "select 1") == 1
    server.stop()
    os.kill(old, signal.SIGINT)
