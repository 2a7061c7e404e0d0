"""The first benchmark: what a durable run costs, beside what its commits alone cost.

Everything is measured in rounds that take turns, so that a disturbance meets all alike; the table shows
medians. `README.md` beside this file says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

# As a script, this folder is first on the path, where our `profile.py` would hide the one Python has.
ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import psutil  # type: ignore[import-untyped]  # noqa: E402 - after the path is right
from rich.console import Console  # noqa: E402

from benchmarks import bare, between, durable  # noqa: E402
from benchmarks.measures import FULL, MANY, NAIVE, ONE, QUICK, TRANSACTION, Sizes  # noqa: E402
from benchmarks.results import Results, show, show_cpu  # noqa: E402
from benchmarks.server import Server, running  # noqa: E402

NAMES: Final = ("one", "many", "transaction", "queue", "idle", "recovery")
LOCAL: Final = {"one", "many", "transaction"}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three short rounds, below 90 s in all")
    parser.add_argument("--only", action="append", choices=NAMES, help="this measure only; may be repeated")
    parser.add_argument("--rounds", type=int, help="another number of rounds")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a server that is there, as a role that may create "
        "databases; default: a private one, started and removed",
    )
    parser.add_argument("--save", metavar="FILE", type=Path, help="write all samples to it as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for, and print it."""
    arguments = parse()
    wanted = set(arguments.only or NAMES)
    sizes = QUICK if arguments.quick else FULL
    rounds = arguments.rounds or sizes.rounds
    console, results = Console(), Results()
    with running(arguments.database) as server, console.status("starting") as status:
        about = describe(server, rounds)
        before, began = psutil.cpu_times(), time.monotonic()
        measure(server, sizes, rounds, wanted, results, status.update)
        results.notes.append(_weather(before, time.monotonic() - began))
    console.print("\n".join(about.values()), highlight=False)
    show(console, "One process", [*ONE.values(), *MANY.values(), NAIVE, TRANSACTION], results)
    show_cpu(console, [*ONE.values(), *MANY.values()], results)
    between_rows = [*between.QUEUE.values(), between.IDLE, between.IDLE_CPU, between.LAST_END, between.TAKEN]
    show(console, "Between processes", between_rows, results)
    for note in results.notes:
        console.print(note, style="dim", highlight=False)
    if arguments.save:
        results.save(arguments.save, about)


def measure(
    server: Server, sizes: Sizes, rounds: int, wanted: set[str], results: Results, say: Callable[[str], None]
) -> None:
    """All rounds of what takes turns, then once what takes long."""
    turns: dict[str, Callable[[str], None]] = {}
    if wanted & LOCAL:
        turns["psycopg"] = lambda url: bare.measure(server, url, sizes, results, wanted)
        for column, factory in loops().items():
            turns[column] = lambda url, column=column, factory=factory: durable.on_loop(  # type: ignore[misc]
                server, url, sizes, results, column, factory, wanted
            )
        turns["sync"] = lambda url: durable.in_threads(server, url, sizes, results, wanted)
    if turns:
        with server.database() as url:
            for number in range(rounds):
                for name, turn in turns.items():
                    say(f"round {number + 1} of {rounds}: {name}")
                    turn(url)
    if "queue" in wanted:
        with server.database() as url, between.process("serve", url, "15"):
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}: through the queue")
                between.bare_queue(url, sizes.pings, results)
                asyncio.run(between.queue(url, sizes.pings, results))
    if "idle" in wanted:
        say(f"an idle worker, {sizes.idle:g} s")
        between.idle(server, sizes, results)
    if "recovery" in wanted:
        say("recovery")
        between.recovery(server, sizes, results)


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    """The event loops to measure on."""
    found: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {"asyncio": None}
    try:
        import uvloop
    except ImportError:
        return found
    return found | {"uvloop": uvloop.new_event_loop}


def describe(server: Server, rounds: int) -> dict[str, str]:
    """What the figures are figures of."""
    return {
        "python": f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; "
        f"load before: {os.getloadavg()[0]:.2f}; medians of {rounds} rounds",
        "server": server.describe(),
    }


def _weather(before: psutil._common.scputimes, seconds: float) -> str:
    """How busy the machine was: the first thing to look at where figures differ."""
    after = psutil.cpu_times()
    busy = (
        sum(after)
        - sum(before)
        - (after.idle - before.idle)
        - (getattr(after, "iowait", 0) - getattr(before, "iowait", 0))
    )
    stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    return (
        f"Whole machine, in {seconds:.0f} s: {busy / seconds:.2f} cores busy, {stolen / seconds:.2f} stolen."
    )


if __name__ == "__main__":
    main()
