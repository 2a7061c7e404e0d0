"""One embedded server, many processes: who starts it, who keeps it, who stops it, whoever is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from perdure.store.embedded import EmbeddedPostgres
from tests.embedded_users import NOBODY, Project, one, project, python_of_nobody, run

STARTED = "select pg_postmaster_start_time()::text"


@pytest.fixture(params=["as the tests", "as nobody"])
def shop(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project of the tests' own user (root, mostly), and one of an ordinary user."""
    as_nobody = request.param == "as nobody"
    if as_nobody and not python_of_nobody():
        pytest.skip("needs root, and a Python that nobody can run")
    with project(NOBODY if as_nobody else None) as made:
        yield made


@pytest.fixture
def own() -> Iterator[Project]:
    with project() as made:
        yield made


def test_second_process_joins_the_running_server(shop: Project) -> None:
    """What one process wrote, another one reads, on the same server."""
    first, second = shop.user().ask("start"), shop.user().ask("start")
    run(first, "create table seen (what text)")
    assert one(second, "select count(*) from seen") == 0
    assert one(first, STARTED) == one(second, STARTED)


def test_four_at_once_get_one_server(shop: Project) -> None:
    """Processes that race to make the server all connect to the same one."""
    users = [shop.user() for _ in range(4)]
    for user in users:
        user.tell("start")
    assert len({one(user.answer(), STARTED) for user in users}) == 1


def test_only_the_last_user_stops_the_server(shop: Project) -> None:
    """The server outlives every user but the last."""
    first, second = shop.user(), shop.user()
    url = first.ask("start")
    second.ask("start")
    assert first.ask("stop") == "done"
    assert one(url, "select 1") == 1
    assert second.ask("stop") == "done"
    assert shop.server().wait_until_gone(0)


def test_killed_user_takes_nobody_along(shop: Project) -> None:
    """`kill -9` of the process that started the server leaves the others theirs."""
    first, second = shop.user(), shop.user()
    first.ask("start")
    url = second.ask("start")
    with psycopg.connect(url) as connection:
        first.kill()
        assert connection.execute("select 1").fetchone() == (1,)
    assert one(url, "select 1") == 1


def test_killed_user_is_not_counted(shop: Project) -> None:
    """A user that was killed does not keep the server from being stopped by the last one."""
    first, second = shop.user(), shop.user()
    first.ask("start")
    second.ask("start")
    first.kill()
    second.ask("stop")
    assert shop.server().wait_until_gone(0)


def test_server_whose_users_were_all_killed_is_joined(shop: Project) -> None:
    """A server left alone runs on, is joined by the next user, and stopped by it."""
    first = shop.user()
    started = one(first.ask("start"), STARTED)
    first.kill()
    second = shop.user()
    assert one(second.ask("start"), STARTED) == started
    second.ask("stop")
    assert shop.server().wait_until_gone(0)


def test_killed_server_comes_back_with_its_rows(shop: Project) -> None:
    """After `kill -9` of the server, ensure brings back what was committed, for all its users."""
    first, second = shop.user(), shop.user()
    url = first.ask("start")
    second.ask("start")
    run(url, "create table kept as select 7 as value")
    os.kill(shop.server().pid() or 0, signal.SIGKILL)
    assert second.ask("ensure") == "done"
    assert first.ask("ensure") == "done"
    assert one(url, "select value from kept") == 7


def test_server_killed_again_and_again_comes_back(own: Project) -> None:
    """Ten kills in a row, each followed at once by a restart."""
    server = own.server()
    url = server.start()
    run(url, "create table kept (value int)")
    for value in range(10):
        run(url, f"insert into kept values ({value})")
        os.kill(server.pid() or 0, signal.SIGKILL)
        server.ensure()
    assert one(url, "select count(*) from kept") == 10
    server.stop()


def test_restart_waits_for_orphans(own: Project) -> None:
    """A backend too busy to notice the death of its server has ended before the next server starts."""
    server = own.server()
    url = server.start()
    busy = psycopg.connect(url, autocommit=True)
    orphan = busy.info.backend_pid
    busy.pgconn.send_query(
        b"do $$ declare began timestamptz := clock_timestamp();"
        b" begin raise notice 'busy'; while clock_timestamp() < began + interval '2 s' loop end loop; end $$"
    )
    busy.pgconn.flush()
    while one(url, f"select state from pg_stat_activity where pid = {orphan}") != "active":
        pass
    os.kill(server.pid() or 0, signal.SIGKILL)
    server.ensure()
    assert not _runs(orphan)
    busy.close()
    server.stop()


@pytest.mark.parametrize("key", [signal.SIGINT, signal.SIGQUIT])
def test_keys_of_the_terminal_spare_the_server(shop: Project, key: signal.Signals) -> None:
    r"""Ctrl-C and Ctrl-\ reach the user's whole foreground group, and the server is not in it."""
    user = shop.user()
    url = user.ask("start")
    user.kill(key)
    assert one(url, "select 1") == 1


def test_newcomer_wins_the_race_with_the_last_to_leave(own: Project) -> None:
    """Whoever starts while the last user stops ends with a running server."""
    leaving = own.server()
    leaving.start()
    for _ in range(20):
        coming = own.server()
        starting = threading.Thread(target=coming.start)
        starting.start()
        leaving.stop()
        starting.join()
        assert one(coming.url, "select 1") == 1
        leaving = coming
    leaving.stop()
    assert leaving.wait_until_gone(0)


def test_forked_child_does_not_stop_its_parents_server(shop: Project) -> None:
    """A child that says stop and ends neither stops the server nor gives up its parent's share."""
    parent, other = shop.user(), shop.user()
    url = parent.ask("start")
    other.ask("start")
    assert parent.ask("fork") == "done"
    other.ask("stop")
    assert one(url, "select 1") == 1


def test_ensure_after_stop_starts_nothing(own: Project) -> None:
    """A loop that still reconnects does not bring back a server that was stopped."""
    server = own.server()
    server.start()
    server.stop()
    server.ensure()
    assert server.wait_until_gone(0)


def test_stop_twice_is_fine(own: Project) -> None:
    """Stopping again gives up nobody else's share."""
    first, second = own.server(), own.server()
    first.start()
    second.start()
    first.stop()
    first.stop()
    assert one(second.url, "select 1") == 1
    second.stop()


def test_threads_may_start_the_same_server(own: Project) -> None:
    """Eight threads that start one object hold one share: one stop ends the server."""
    server = own.server()
    threads = [threading.Thread(target=server.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one(server.url, "select 1") == 1
    server.stop()
    assert server.wait_until_gone(0)


def test_moved_folder_is_found_again(own: Project) -> None:
    """A folder that is moved under its running server is joined and stopped at its new place."""
    old = own.server()
    started = one(old.start(), STARTED)
    own.folder.rename(own.root / "moved")
    new = EmbeddedPostgres(own.root / "moved")
    assert one(new.start(), STARTED) == started
    old._leave()  # what the end of its process does
    new.stop()
    assert new.wait_until_gone(0)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
