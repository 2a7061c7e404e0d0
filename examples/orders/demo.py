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
from processes import Processes, end_postgres, postgres_pid
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perdure import sync

GIVE_UP_AFTER = 60.0  # seconds in which nothing happens
UNFINISHED = ("scheduled", "queued", "running", "waiting", "cancelling")


class Trouble(Exception):
    """The demo cannot go on."""


class Interrupted(BaseException):
    """The demo was told to stop."""


class Director:
    """Has the play played in a folder.

    Args:
        folder: where everything lies.
        console: where it is told.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self.processes = Processes(folder)
        self.lives = {"A": 0, "B": 0}
        self.began = time.monotonic()
        self.interrupted = False

    def play(self, arguments: argparse.Namespace, orders: list[Order]) -> bool:
        """Do everything; return whether all is right."""
        self.say(f"{len(orders):,} orders of {arguments.file.name}: Postgres, a provider and two workers start")
        harms = ["worker"] * arguments.kills
        harms.insert(arguments.kills // 2 + arguments.kills % 2, "postgres")
        whole_sample = arguments.file == SAMPLE and arguments.orders is None
        with sync.Perdure(name="director", worker=False) as app:
            try:
                shop.create_tables()
                self.start(arguments)
                self.watch(app, len(orders), harms)
                right = self.prove(app, orders, SAMPLE_TOTALS if whole_sample else None)
            except BaseException:
                self.processes.end(at_once=True)
                raise
            self.processes.end(at_once=False)
        return right and self.no_harm_missing(arguments.kills)

    def start(self, arguments: argparse.Namespace) -> None:
        """Start the provider, the workers and the client."""
        provider = self.processes.start("provider", "provider.py", self.folder / "provider.db")
        assert provider.stdout is not None
        self.processes.environment["PROVIDER"] = provider.stdout.readline().strip()
        for letter in self.lives:
            self.start_worker(letter)
        limit = [] if arguments.orders is None else [arguments.orders]
        self.processes.start("client", "client.py", arguments.file, *limit)

    def start_worker(self, letter: str) -> None:
        """Start a worker: A1, after its death A2, and so on."""
        self.lives[letter] += 1
        self.processes.start(f"worker {letter}", "worker.py", f"{letter}{self.lives[letter]}")

    def watch(self, app: sync.Perdure, count: int, harms: list[str]) -> None:
        """Show how far it is, and do harm on the way, until no run is left to wait for."""
        script = {count * number // (len(harms) + 1): harm for number, harm in enumerate(harms, 1)}
        columns = TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        seen, since = (-1, -1), time.monotonic()
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task("orders", total=count)
            while True:
                done, left = proof.confirmed(), app.runs.count(status=UNFINISHED)
                progress.update(bar, completed=done)
                for threshold in [number for number in sorted(script) if number <= done][:1]:
                    self.harm(script.pop(threshold), done)
                if left == 0 and self.processes.running["client"].poll() == 0:
                    return
                if (done, left) != seen:
                    seen, since = (done, left), time.monotonic()
                if time.monotonic() - since > GIVE_UP_AFTER:
                    raise Trouble(f"nothing has happened for {GIVE_UP_AFTER:.0f} s; {left:,} runs are left")
                self.pause()
