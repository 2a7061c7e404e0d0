"""perdure itself, in one process: on an event loop and in threads."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import psycopg

import perdure
from benchmarks import programs
from benchmarks.measures import AT_ONCE, MANY, ONE, TRANSACTION, Sizes, timed
from benchmarks.results import Results
from benchmarks.server import Server


def on_loop(
    server: Server,
    url: str,
    sizes: Sizes,
    results: Results,
    column: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    wanted: set[str],
) -> None:
    """One round of the async measures, on a fresh event loop and a fresh app."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_on_loop(server, url, sizes, results, column, wanted))


async def _on_loop(
    server: Server, url: str, sizes: Sizes, results: Results, column: str, wanted: set[str]
) -> None:
    _make_table(url)
    async with perdure.Perdure(url):
        await many_on_loop(5 * AT_ONCE, 1)
        if "one" in wanted:
            for steps, count in sizes.one.items():
                await one_by_one(20, steps)
                with timed(server, results, ONE[steps], column, count):
                    await one_by_one(count, steps)
        if "many" in wanted:
            for steps, count in sizes.many.items():
                await many_on_loop(2 * AT_ONCE, steps)
                with timed(server, results, MANY[steps], column, count):
                    await many_on_loop(count, steps)
        if "transaction" in wanted:
            await programs.inserts(30)
            results.add(TRANSACTION, column, await programs.inserts(sizes.transactions) * 1000)


async def one_by_one(count: int, steps: int) -> None:
    """So many runs, each after the last has ended."""
    for number in range(count):
        await programs.chain(number, steps)


async def many_on_loop(count: int, steps: int) -> None:
    """So many runs, `AT_ONCE` of them at any time."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await programs.chain(number, steps)

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))


def in_threads(server: Server, url: str, sizes: Sizes, results: Results, wanted: set[str]) -> None:
    """One round of the blocking measures, in a fresh app."""
    _make_table(url)
    with perdure.sync.Perdure(url):
        many_in_threads(5 * AT_ONCE, 1)
        if "one" in wanted:
            for steps, count in sizes.one.items():
                for number in range(20):
                    programs.chain_blocking(number, steps)
                with timed(server, results, ONE[steps], "sync", count):
                    for number in range(count):
                        programs.chain_blocking(number, steps)
        if "many" in wanted:
            for steps, count in sizes.many.items():
                many_in_threads(2 * AT_ONCE, steps)

                def begin(steps: int = steps, count: int = count) -> Any:
                    return timed(server, results, MANY[steps], "sync", count)

                many_in_threads(count, steps, begin)
        if "transaction" in wanted:
            programs.inserts_blocking(30)
            results.add(TRANSACTION, "sync", programs.inserts_blocking(sizes.transactions) * 1000)


def many_in_threads(count: int, steps: int, begin: Callable[[], Any] | None = None) -> None:
    """So many runs in `AT_ONCE` threads that call the workflow directly; `begin` times them without their start."""
    numbers = itertools.count()
    start = threading.Barrier(AT_ONCE + 1)

    def lane() -> None:
        start.wait()
        while (number := next(numbers)) < count:
            programs.chain_blocking(number, steps)

    threads = [threading.Thread(target=lane, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    start.wait()
    if begin is None:
        for thread in threads:
            thread.join()
        return
    with begin():
        for thread in threads:
            thread.join()


def _make_table(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(programs.TABLE)
