"""Measures between processes: through the queue, an idle worker, and runs of a killed one."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import psycopg

import perdure
from benchmarks import programs
from benchmarks.measures import Sizes
from benchmarks.results import RAW, Results, Row
from benchmarks.server import Server

ROOT: Final = Path(__file__).resolve().parent.parent
LEASE: Final = 1.0
"""Seconds, of the worker that is killed: most of a recovery is waiting for it to run out."""

QUEUE: Final = {
    "start 50": Row("queue-start-50", "enqueue to start, p50", "ms"),
    "start 95": Row("queue-start-95", "enqueue to start, p95", "ms"),
    "result 50": Row("queue-result-50", "start to result, p50", "ms"),
    "result 95": Row("queue-result-95", "start to result, p95", "ms"),
}
IDLE: Final = Row("idle", "idle worker", "statements/s")
IDLE_CPU: Final = Row("idle-cpu", "idle worker, CPU", "cores")
LAST_END: Final = Row("recovery-all", "kill -9 to all ended", "s")
TAKEN: Final = Row("recovery-taken", "takeover to all ended", "s")

QUEUE_TABLE: Final = """
    create table if not exists bare_jobs (id integer primary key, taken boolean not null default false, at float8);
    create table if not exists bare_results (id integer primary key, at float8 not null);
"""


# -- through the queue -----------------------------------------------------------------------------------


@contextmanager
def process(*arguments: str, stuck: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run `worker.py` until the block ends; it is ready when the block begins."""
    environment = {**os.environ, **({programs.STUCK: "1"} if stuck else {})}
    command = [sys.executable, "-m", "benchmarks.worker", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{' '.join(arguments)} ended before it was ready")
            yield child
        finally:
            child.terminate()
            child.wait(60)


async def queue(url: str, pings: int, results: Results) -> None:
    """One round through the queue: this process is a client, the worker is another; a pause before each."""
    starts, ends = [], []
    async with perdure.Perdure(url, worker=False):
        for number in range(pings + 5):
            await asyncio.sleep(random.uniform(0.02, 0.06))
            began = time.monotonic()
            handle = await programs.echo.start()
            started = await handle.result(timeout=30)
            ended = time.monotonic()
            if number >= 5:
                starts.append((started - began) * 1000)
                ends.append((ended - began) * 1000)
    _add(results, "asyncio", starts, ends)


def bare_queue(url: str, pings: int, results: Results) -> None:
    """The same with psycopg alone: INSERT and NOTIFY, a listener that claims, INSERT and NOTIFY back."""
    starts, ends = [], []
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(QUEUE_TABLE, prepare=False)
        connection.execute("truncate bare_jobs, bare_results")
        ready = threading.Event()
        thread = threading.Thread(target=_serve_bare_queue, args=(url, pings + 5, ready), daemon=True)
        thread.start()
        ready.wait(30)
        connection.execute("listen bare_results")
        for number in range(pings + 5):
            time.sleep(random.uniform(0.02, 0.06))
            began = time.monotonic()
            connection.execute(
                "with job as (insert into bare_jobs (id) values (%s)) select pg_notify('bare_jobs', '')",
                (number,),
            )
            for _ in connection.notifies(timeout=10, stop_after=1):
                pass
            row = connection.execute("select at from bare_results where id = %s", (number,)).fetchone()
            assert row is not None
            if number >= 5:
                starts.append((row[0] - began) * 1000)
                ends.append((time.monotonic() - began) * 1000)
        thread.join(10)
    _add(results, RAW, starts, ends)


def _serve_bare_queue(url: str, count: int, ready: threading.Event) -> None:
    claim = """update bare_jobs set taken = true where id = (
                   select id from bare_jobs where not taken limit 1 for update skip locked) returning id"""
    done = """with result as (insert into bare_results (id, at) values (%s, %s))
              select pg_notify('bare_results', '')"""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("listen bare_jobs")
        ready.set()
        while True:
            for _ in connection.notifies(timeout=120, stop_after=1):
                pass
            row = connection.execute(claim).fetchone()
            if row is None:
                return  # nobody asks any more
            connection.execute(done, (row[0], time.monotonic()))
            if row[0] == count - 1:
                return


def _add(results: Results, column: str, starts: list[float], ends: list[float]) -> None:
    for name, samples in (("start", starts), ("result", ends)):
        centiles = statistics.quantiles(samples, n=20)
        results.add(QUEUE[f"{name} 50"], column, centiles[9])
        results.add(QUEUE[f"{name} 95"], column, centiles[18])


# -- an idle worker --------------------------------------------------------------------------------------


def idle(server: Server, sizes: Sizes, results: Results) -> None:
    """Count what a worker sends that has nothing to do."""
    with server.database(count_statements=True) as url, process("serve", url, "15") as child:
        _, what = server.statements(url)
        # The run that it warmed up with must not be counted; a backend may report transactions 10 s late.
        time.sleep(2.0 if what == "statements" else 12.0)
        worker = psutil.Process(child.pid)
        before, _ = server.statements(url)
        cpu, began = sum(worker.cpu_times()[:2]), time.monotonic()
        time.sleep(sizes.idle)
        after, _ = server.statements(url)
        seconds = time.monotonic() - began
        results.add(IDLE, "asyncio", (after - before) / seconds)
        results.add(IDLE_CPU, "asyncio", (sum(worker.cpu_times()[:2]) - cpu) / seconds)
        if what != "statements":
            results.notes.append(
                "pg_stat_statements is not loaded: of the idle worker, transactions were counted."
            )


# -- recovery --------------------------------------------------------------------------------------------


def recovery(server: Server, sizes: Sizes, results: Results) -> None:
    """Kill a process with runs in the middle, and see another go on with them."""
    with server.database() as url, process("serve", url, str(LEASE)):
        with process("victim", url, str(LEASE), str(sizes.killed), stuck=True) as victim:
            victim.kill()
            victim.wait()
        with psycopg.connect(url, autocommit=True) as connection:
            killed = _value(connection, "select clock_timestamp()")
            while _value(connection, "select count(*) from perdure.live"):
                time.sleep(0.05)
            first = _value(connection, "select min(taken) from perdure.takeovers")
            taken = _value(connection, "select count(*) from perdure.takeovers")
            last = _value(connection, "select max(finished) from perdure.ends")
    if taken != sizes.killed:
        raise RuntimeError(f"{sizes.killed} runs were killed, {taken} were taken over")
    results.add(LAST_END, "asyncio", (last - killed).total_seconds())
    results.add(TAKEN, "asyncio", (last - first).total_seconds())
    results.notes.append(
        f"Recovery: {sizes.killed} killed runs, each with one step recorded and one left; lease {LEASE:g} s."
    )


def _value(connection: psycopg.Connection[Any], query: Any) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
