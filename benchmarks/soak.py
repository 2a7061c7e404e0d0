"""A long mixed load while a snapshot is held open: does it slow down, and what does it leave behind?

Two workers run a mixture of workflows (`soaking.py`) from a queue that is never empty, and prune what has ended a minute
ago. A transaction with a snapshot is open all the time, as by a backup or a forgotten session, so that Postgres can remove no
row version that has died since: the worst that can happen to tables that serve as a queue. Every few seconds it notes how
much was done, dead rows, WAL and sizes; at the end it stops feeding, waits until all runs have ended, counts that every
order was written once, and compares the last sixth of the time with the first. More than a third slower is a failure.

    python benchmarks/soak.py --minutes 60 --save soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import perdure  # noqa: E402
from benchmarks import soaking  # noqa: E402
from benchmarks.server import running  # noqa: E402
from perdure import Perdure  # noqa: E402

WORKERS: Final = 2
BACKLOG: Final = 6000
"""Runs that wait or run; more are started when there are fewer."""
AT_ONCE: Final = 250
KEYS: Final = 20
TABLES: Final = ("live", "runs", "steps", "ends", "waits")

COUNTS: Final = """
    select relname, n_tup_ins, n_dead_tup, pg_total_relation_size(relid)
    from pg_stat_user_tables where schemaname = 'perdure' and relname = any(%s)
"""
WAL: Final = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"


@dataclass
class Sample:
    """What was so at one moment.

    Attributes:
        at: seconds since the load began.
        ended: runs that have ended so far.
        steps: steps recorded so far.
        wal: bytes of WAL so far.
        dead: dead rows by table.
        size: bytes of each table, with its indexes.
    """

    at: float
    ended: int
    steps: int
    wal: int
    dead: dict[str, int]
    size: dict[str, int]


@dataclass
class Load:
    """Feeds the queue, and counts."""

    url: str
    app: Perdure
    started: int = 0
    samples: list[Sample] = field(default_factory=list)

    async def feed(self, until: float) -> None:
        """Keep the backlog full until then."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            while time.monotonic() < until:
                counts = {
                    name: inserted for name, inserted, _, _ in connection.execute(COUNTS, [list(TABLES)])
                }
                if counts["runs"] - counts["ends"] < BACKLOG:
                    await self._start()
                else:
                    await asyncio.sleep(0.05)

    async def _start(self) -> None:
        numbers = range(self.started, self.started + AT_ONCE)
        self.started += AT_ONCE
        kinds: list[Any] = [soaking.nap, soaking.listen, soaking.family, soaking.hurried]
        calls = []
        for number in numbers:
            kind = kinds[number % 10] if number % 10 < len(kinds) else soaking.order
            hurried = kind is soaking.hurried
            options = (
                {"queue": soaking.LIMITED.name, "timeout": 600.0} if hurried else {"queue": soaking.QUEUE}
            )
            calls.append(kind.options(key=f"tenant-{random.randrange(KEYS)}", **options).bind(number))
        handles = await self.app.start_many(calls)
        listeners = [handle.id for number, handle in zip(numbers, handles, strict=True) if number % 10 == 1]
        await perdure.send_many([(id, "news", "hello") for id in listeners])

    async def watch(self, began: float, every: float) -> None:
        """Note how things are, again and again."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            while True:
                await asyncio.sleep(every)
                rows = connection.execute(COUNTS, [list(TABLES)]).fetchall()
                (wal,) = connection.execute(WAL).fetchone() or (0,)
                inserted = {name: number for name, number, _, _ in rows}
                self.samples.append(
                    Sample(
                        round(time.monotonic() - began, 1),
                        inserted["ends"],
                        inserted["steps"],
                        int(wal),
                        {name: dead for name, _, dead, _ in rows},
                        {name: size for name, _, _, size in rows},
                    )
                )
                self._say()

    def _say(self) -> None:
        if len(self.samples) < 2:
            return
        before, now = self.samples[-2:]
        print(
            f"{now.at:6.0f} s  {(now.ended - before.ended) / (now.at - before.at):7,.0f} runs/s"
            f"  {(now.wal - before.wal) / max(1, now.steps - before.steps):6,.0f} B WAL a step"
            f"  dead in live {now.dead['live']:11,}  all tables {sum(now.size.values()) / 1e6:8,.0f} MB",
            flush=True,
        )


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker until the block ends."""
    command = [sys.executable, "-m", "benchmarks.soaking", url]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError("a worker ended before it was ready")
            yield child
        finally:
            child.terminate()
            child.wait(60)


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Hold a snapshot open, as a backup does."""
    with psycopg.connect(url) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select count(*) from perdure.live")
        yield


async def soak(url: str, minutes: float, every: float, *, held: bool) -> Load:
    """The load, from beginning to end; raises if a run got lost, or an order was not written once."""
    async with soaking.app(url, worker=False) as app:
        load = Load(url, app)
        with psycopg.connect(url, autocommit=True) as connection, ExitStack() as stack:
            connection.execute(soaking.TABLE.encode())
            for _ in range(WORKERS):
                stack.enter_context(worker(url))
            if held:
                stack.enter_context(snapshot(url))
            began = time.monotonic()
            watching = asyncio.create_task(load.watch(began, every))
            await load.feed(began + minutes * 60)
            watching.cancel()
            print(f"{load.started:,} runs were started; waiting for the last ones", flush=True)
            await app.schedules.pause("soak.tick")
            while connection.execute("select 1 from perdure.live limit 1").fetchone():  # noqa: ASYNC110 - rows tell
                await asyncio.sleep(0.2)
            (orders,) = connection.execute("select count(*) from orders").fetchone() or (0,)
            failed = await app.runs.count(status=["failed", "parked", "cancelled"])
    if (orders, failed) != (load.started, 0):
        raise SystemExit(f"{orders:,} orders of {load.started:,} are there, {failed} runs did not succeed")
    return load


def rates(samples: list[Sample]) -> list[float]:
    """Runs that ended a second, between each two samples."""
    return [(b.ended - a.ended) / (b.at - a.at) for a, b in itertools.pairwise(samples)]


def report(load: Load) -> float:
    """Print how it began and how it ended; return the share of the throughput that is left."""
    samples = load.samples
    sixth = max(1, len(samples) // 6)
    table = Table("", "first sixth", "last sixth")
    speed = rates(samples)
    first, last = statistics.median(speed[:sixth]), statistics.median(speed[-sixth:])
    table.add_row("runs/s", f"{first:,.0f}", f"{last:,.0f}")
    wal = [
        (part[-1].wal - part[0].wal) / max(1, part[-1].steps - part[0].steps)
        for part in (samples[: sixth + 1], samples[-sixth - 1 :])
    ]
    table.add_row("bytes of WAL a step", f"{wal[0]:,.0f}", f"{wal[1]:,.0f}")
    for name in TABLES:
        pair = (samples[min(sixth, len(samples) - 1)], samples[-1])
        table.add_row(f"{name}: dead rows", *(f"{sample.dead.get(name, 0):,}" for sample in pair))
        table.add_row(f"{name}: MB", *(f"{sample.size.get(name, 0) / 1e6:,.0f}" for sample in pair))
    Console().print(table)
    return last / first


def main() -> None:
    """Read the command line, soak, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--no-snapshot", action="store_true", help="for comparison: hold none")
    parser.add_argument("--database", metavar="URL", help="a server that is there; default: a private one")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write all samples to it as JSON")
    options = parser.parse_args()
    with running(options.database) as server, server.database() as url:
        print(server.describe())
        load = asyncio.run(soak(url, options.minutes, options.every, held=not options.no_snapshot))
    if options.save:
        options.save.write_text(json.dumps([asdict(sample) for sample in load.samples]))
    left = report(load)
    print(f"The last sixth of the time had {left:.0%} of the throughput of the first.")
    if left < 2 / 3:
        raise SystemExit("It slows down by more than a third.")


if __name__ == "__main__":
    main()
