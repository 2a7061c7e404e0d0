"""perdure beside its peers and beside the limits, in one run on one Postgres.

Each contestant is a process of its own; all take turns, round after round, so that a disturbance meets all
alike, and the tables show medians. `README.md` beside this file says how to read them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

# As a script, this folder is first on the path, where our `profile.py` would hide the one Python has.
ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import psutil  # type: ignore[import-untyped]  # noqa: E402 - after the path is right
from rich.console import Console  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.contestants import registry  # noqa: E402
from benchmarks.contestants.registry import Contestant, Unavailable, interpreter  # noqa: E402
from benchmarks.measures import GROUPS  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from benchmarks.server import Server, running  # noqa: E402

PAGE: Final = ROOT / "benchmarks" / "RESULTS.md"
SAMPLES: Final = ROOT / "benchmarks" / "results.json"
ENVIRONMENT: Final = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONUNBUFFERED": ""}
"""Of each contestant: modules are compiled once, as where anybody works."""
FEWEST_ROUNDS: Final = 3
"""Of fewer the page is not written."""
LONGEST: Final = 900.0
"""Seconds that one contestant may take for one round."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="perdure, DBOS and the limits, some measures, below three minutes",
    )
    keys = [group.key for group in GROUPS]
    parser.add_argument("--only", action="append", choices=keys, help="these measures only; may be repeated")
    names = [contestant.module for contestant in registry.ALL]
    parser.add_argument(
        "--who", action="append", choices=names, help="these contestants only; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured (3; 2 if quick)")
    parser.add_argument("--seconds", type=float, help="for each figure in each round (2; 0.5 if quick)")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a server that is there, as a role that may create databases; default: a private one, started and removed",
    )
    parser.add_argument("--save", metavar="FILE", type=Path, help="write all samples to it as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for, print it; a run of everything also writes `RESULTS.md`."""
    options = parse()
    wanted = frozenset(options.only or [group.key for group in GROUPS if group.quick or not options.quick])
    rounds = options.rounds or (2 if options.quick else FEWEST_ROUNDS)
    seconds = options.seconds or (0.5 if options.quick else 2.0)
    modules = options.who or (["ours", "raw", "ceiling", "dbos"] if options.quick else None)
    console, results = Console(), Results()
    with running(options.database) as server, console.status("setting up") as status:
        ready = list(set_up([c for c in registry.ALL if not modules or c.module in modules], results))
        results.about = describe(server, rounds, seconds, ready)
        before, began = psutil.cpu_times(), time.monotonic()
        for number in range(rounds):
            for contestant, python in ready:
                if groups := wanted & contestant.groups:
                    status.update(f"round {number + 1} of {rounds}: {contestant.name}")
                    measure(server, contestant, python, groups, seconds, results)
        results.notes.append(weather(before, time.monotonic() - began))
    report.show(console, results)
    if options.save:
        results.save(options.save)
    if not (options.quick or options.only or options.who) and rounds >= FEWEST_ROUNDS:
        results.save(SAMPLES)
        chosen = f' ARGS="--seconds {seconds:g}"' if options.seconds else ""
        PAGE.write_text(report.markdown(results, f"make bench{chosen}"))


def set_up(contestants: list[Contestant], results: Results) -> Iterator[tuple[Contestant, Path]]:
    """Make the environments that are missing; who cannot have one is noted and left out."""
    for contestant in contestants:
        try:
            yield contestant, interpreter(contestant)
        except Unavailable as error:
            results.notes.append(f"{contestant.name} was left out: {error}")


def measure(
    server: Server,
    contestant: Contestant,
    python: Path,
    groups: frozenset[str],
    seconds: float,
    results: Results,
) -> None:
    """Have one contestant measure one round, in a database of its own."""
    folder = tempfile.mkdtemp(prefix="perdure-bench-")
    with server.database() as url:
        job = {"url": url, "wanted": sorted(groups), "seconds": seconds, "folder": folder}
        job["servers"] = [server.pid] if server.pid else []
        command = [str(python), "-m", f"benchmarks.contestants.{contestant.module}", json.dumps(job)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
            said, wrong = done.stdout, done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            said, wrong = _text(late.stdout), f"not done after {LONGEST:g} s"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    for line in said.splitlines():
        if line.startswith("{"):
            results.add(contestant.name, json.loads(line))
    if wrong:
        results.add(contestant.name, {"note": f"failed: {wrong}"})


def _text(output: Any) -> str:
    return output.decode() if isinstance(output, bytes) else output or ""


def describe(
    server: Server, rounds: int, seconds: float, ready: list[tuple[Contestant, Path]]
) -> dict[str, str]:
    """What the figures are figures of."""
    memory = psutil.virtual_memory().total / 2**30
    versions = [requirement for contestant, _ in ready for requirement in contestant.requirements[:1]]
    about = {
        "machine": f"{os.cpu_count()} cores of {processor()}, {memory:.0f} GiB; {platform.system()}, Python "
        f"{platform.python_version()}; load before: {os.getloadavg()[0]:.2f}",
        "server": server.describe(),
        "how": f"Medians of {rounds} rounds in turns, {seconds:g} s for each figure in each.",
    }
    return about | ({"peers": f"Peers: {', '.join(versions)}"} if versions else {})


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def weather(before: psutil._common.scputimes, seconds: float) -> str:
    """How busy the machine was: the first thing to look at where figures differ."""
    after = psutil.cpu_times()

    def spent(name: str) -> float:
        return float(getattr(after, name, 0.0) - getattr(before, name, 0.0))

    busy = sum(after) - sum(before) - spent("idle") - spent("iowait")
    return f"Whole machine, in {seconds:.0f} s: {busy / seconds:.2f} cores busy, {spent('steal') / seconds:.2f} stolen."


if __name__ == "__main__":
    main()
