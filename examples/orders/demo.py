"""The demo: a year and a half of a music shop's orders, with workers killed and Postgres stopped on the way.

It starts a payment provider, two workers and a client as processes of their own, does them harm while they
work, waits until every order is through, and then proves from the tables that nothing was lost and nothing
happened twice. Everything lies in a temporary folder that is gone at the end. Exit code 0: all is right.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import proof
import shop
from orders import SAMPLE, SAMPLE_TOTALS, Order, read_orders
from processes import Processes, end_postgres, postgres_pid, stop_postgres
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perdure import PerdureError, sync

GIVE_UP_AFTER = 60.0  # seconds in which nothing happens
UNFINISHED = ("scheduled", "queued", "running", "waiting", "cancelling")


class Trouble(Exception):
    """The demo cannot go on."""


class Director:
    """Has the play played in a folder.

    Args:
        folder: where everything lies.
        console: where it is told.
        kills: how often a worker is killed.
    """

    def __init__(self, folder: Path, console: Console, kills: int) -> None:
        self.folder, self.console = folder, console
        self.processes = Processes(folder)
        self.harms = [self.kill_worker] * kills
        self.harms.insert((kills + 1) // 2, self.stop_postgres)
        self.lives = {"A": 0, "B": 0}
        self.began = time.monotonic()
        self.interrupted = False

    def play(self, file: Path, orders: list[Order], limit: int | None) -> bool:
        """Do everything; return whether all is right."""
        self.say(f"{len(orders):,} orders of {file.name}: Postgres, a payment provider and two workers start")
        with sync.Perdure(name="director", worker=False) as app:
            try:
                shop.create_tables()
                self.start_processes(file, limit)
                self.watch(app, len(orders))
                self.say("every run has ended; the proof:")
                right = self.prove(app, orders, SAMPLE_TOTALS if file == SAMPLE and limit is None else None)
            except BaseException:
                self.processes.end(at_once=True)
                raise
            self.processes.end(at_once=False)
        return right

    def start_processes(self, file: Path, limit: int | None) -> None:
        """Start the provider, the workers and the client."""
        provider = self.processes.start("provider", "provider.py", self.folder / "provider.db")
        assert provider.stdout is not None
        self.processes.environment["PROVIDER"] = provider.stdout.readline().strip()
        for letter in self.lives:
            self.start_worker(letter)
        self.processes.start("client", "client.py", file, *([] if limit is None else [limit]))

    def watch(self, app: sync.Perdure, count: int) -> None:
        """Show how far it is, and do harm on the way, until no run is left to wait for."""
        stages = len(self.harms) + 1
        rate = TextColumn("orders  {task.fields[rate]:.0f}/s ")
        columns = BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn()
        seen, since = (-1, -1), (began := time.monotonic())
        shown = self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=not shown) as progress:
            bar = progress.add_task("", total=count, rate=0)
            while True:
                client_is_done = self.processes.running["client"].poll() == 0
                done, left = proof.confirmed(), app.runs.count(status=UNFINISHED)
                progress.update(bar, completed=done, rate=done / (time.monotonic() - began))
                if client_is_done and left == 0:
                    return
                if (
                    self.harms
                    and done >= count * (stages - len(self.harms)) // stages
                    and self.harms[0](done)
                ):
                    del self.harms[0]
                if (done, left) != seen:
                    seen, since = (done, left), time.monotonic()
                if time.monotonic() - since > GIVE_UP_AFTER:
                    raise Trouble(f"nothing has happened for {GIVE_UP_AFTER:.0f} s; {left:,} runs are left")
                self.pause()

    # -- harm ----------------------------------------------------------------------------------------------

    def start_worker(self, letter: str) -> str:
        """Start a worker: A1, after its death A2, and so on."""
        self.lives[letter] += 1
        name = f"{letter}{self.lives[letter]}"
        self.processes.start(f"worker {letter}", "worker.py", name)
        return name

    def kill_worker(self, done: int) -> bool:
        """`kill -9` the worker that has most runs in hand, and start another in its place."""
        names = {f"{letter}{life}": letter for letter, life in self.lives.items()}
        count, name = max((count, name) for name, count in proof.in_hand(list(names)).items())
        if not count:
            return False
        pid = self.processes.kill(f"worker {names[name]}")
        heir = self.start_worker(names[name])
        self.say(
            f"{done:,} orders done: kill -9 {pid}, worker {name} with {count} runs in hand; {heir} starts"
        )
        return True

    def stop_postgres(self, done: int) -> bool:
        """Stop Postgres in the middle of everything; whichever process misses it first starts it again."""
        pid, stopped = stop_postgres(self.folder), time.monotonic()
        self.say(f"{done:,} orders done: kill -QUIT {pid}, Postgres: no checkpoint, no goodbye")
        while postgres_pid(self.folder) in (pid, None):
            self.pause()
            if time.monotonic() - stopped > GIVE_UP_AFTER:
                raise Trouble("nobody starts Postgres again")
        proof.confirmed()
        self.say(f"Postgres was started again, and answers after {time.monotonic() - stopped:.1f} s")
        return True

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            KeyboardInterrupt: the demo was told to stop.
            Trouble: a process has crashed that was not killed.
        """
        time.sleep(0.1)
        if self.interrupted:
            raise KeyboardInterrupt
        if crashed := self.processes.crashed():
            raise Trouble(f"crashed without our doing: {', '.join(crashed)}")

    # -- the end -------------------------------------------------------------------------------------------

    def prove(self, app: sync.Perdure, orders: list[Order], known: proof.Totals | None) -> bool:
        """Print the proof; return whether all is right."""
        runs = proof.all_runs(app)
        checks = proof.prove(runs, orders, self.folder / "provider.db", known)
        checks += [proof.Check("all harm was done", not self.harms, f"{len(self.harms)} left undone")]
        handed = proof.takeovers()
        count = sum(count for *_, count in handed)
        checks.append(proof.Check("runs taken over from dead workers", count > 0, f"{count:,}"))
        for check in checks:
            self.line(
                "[green]   ok[/]" if check.right else "[bold red]WRONG[/]", f"{check.what}: {check.found}"
            )
        for dead, heir, count in handed:
            self.line(
                "     ", f"  {count:,} from {dead} by {heir}{', in its next life' if dead == heir else ''}"
            )
        seconds = proof.duration(runs)
        self.line("     ", f"{len(orders):,} orders in {seconds:.1f} s: {len(orders) / seconds:.0f} orders/s")
        return all(check.right for check in checks)

    def line(self, mark: str, text: str) -> None:
        """Print a line of the proof."""
        self.console.print(f"{mark}  {escape(text)}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Tell what happens, and when."""
        self.console.print(
            f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {escape(text)}", highlight=False, soft_wrap=True
        )

    def interrupt(self, *_: object) -> None:
        """Stop at the next good moment: nothing is left half started."""
        self.interrupted = True


def main(arguments: list[str] | None = None) -> int:
    """Play the demo; return the exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    file, console = options.file.resolve(), Console()
    try:
        orders = read_orders(file, options.orders)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for setting in [setting for setting in os.environ if setting.startswith("PERDURE_")]:
        del os.environ[setting]  # another database, above all: the demo uses none but its own
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as name, contextlib.chdir(name):
        director = Director(Path(name), console, options.kills)
        for order in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(order, director.interrupt)
        logging.basicConfig(filename=Path(name, "director.log"))
        try:
            return 0 if director.play(file, orders, options.orders) else 1
        except (KeyboardInterrupt, Trouble, PerdureError) as error:
            if director.interrupted:
                console.print("stopped; nothing is left behind")
                return 130
            console.print(escape(director.processes.last_words()), highlight=False, soft_wrap=True)
            director.line("[bold red]WRONG[/]", str(error))
            return 1
        finally:
            end_postgres(Path(name))


def positive(text: str) -> int:
    """Read a number from 1 up."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def command_line() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "file", nargs="?", type=Path, default=SAMPLE, help="orders, in either form of the CDNOW set"
    )
    parser.add_argument(
        "--orders",
        type=positive,
        metavar="N",
        help="only the first N orders of the file; with less than some 200 there is no time for harm",
    )
    parser.add_argument(
        "--kills", type=positive, default=4, metavar="K", help="kill a worker so many times (default 4)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
