"""The limit with group commit: a writer without features that commits whatever has gathered, and 200 callers.

One thread with one connection takes every record that waits, writes them with one multi-row statement for
each kind in one transaction, and wakes their callers when it is committed; meanwhile the next ones gather. No
fence, no replay, no types, no recovery: a run is three integers. It is what Python, psycopg and Postgres
allow for the commits that are needed (the start; each step before the next begins; the last with the end), so
what a library reaches of it is what its features cost.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import psycopg

from benchmarks.contestants.raw import INPUT, TABLES, connect
from benchmarks.protocol import Job, at_once, at_once_async

STARTS: Final = "insert into bare_runs select t.id, 'chain', %s from unnest(%s::bigint[]) t (id)"
STEPS: Final = """insert into bare_steps
    select t.id, t.position, t.value from unnest(%s::bigint[], %s::integer[], %s::bytea[]) t (id, position, value)"""
ENDS: Final = (
    "insert into bare_ends select t.id, t.value from unnest(%s::bigint[], %s::bytea[]) t (id, value)"
)

Wake = Callable[[], None]


class Writer:
    """Commits what has gathered, again and again, in a thread.

    Args:
        url: of the database.
        wake: given the wakers of all that a commit contained, calls them.
    """

    def __init__(self, url: str, wake: Callable[[list[Wake]], object]) -> None:
        self._connection, self._wake_all = connect(url), wake
        self._gathered = threading.Condition()
        self._starts: list[int] = []
        self._steps: list[tuple[int, int, bytes]] = []
        self._ends: list[tuple[int, bytes]] = []
        self._wakers: list[Wake] = []
        self._open = True
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(
        self,
        wake: Wake,
        start: int | None = None,
        step: tuple[int, int, bytes] | None = None,
        end: tuple[int, bytes] | None = None,
    ) -> None:
        """Have a record written, and be woken when it is committed."""
        with self._gathered:
            if start is not None:
                self._starts.append(start)
            if step is not None:
                self._steps.append(step)
            if end is not None:
                self._ends.append(end)
            self._wakers.append(wake)
            if len(self._wakers) == 1:
                self._gathered.notify()

    def close(self) -> None:
        """End the thread."""
        with self._gathered:
            self._open = False
            self._gathered.notify()
        self._thread.join()
        self._connection.close()

    def _write(self) -> None:
        while True:
            with self._gathered:
                while not self._wakers and self._open:
                    self._gathered.wait()
                if not self._wakers:
                    return
                starts, steps, ends, wakers = self._starts, self._steps, self._ends, self._wakers
                self._starts, self._steps, self._ends, self._wakers = [], [], [], []
            with self._connection.pipeline(), self._connection.transaction():
                if starts:
                    self._connection.execute(STARTS, (INPUT, starts))
                if steps:
                    self._connection.execute(
                        STEPS, tuple(list(column) for column in zip(*steps, strict=True))
                    )
                if ends:
                    self._connection.execute(ENDS, tuple(list(column) for column in zip(*ends, strict=True)))
            self._wake_all(wakers)


_ids = itertools.count(time.time_ns())


def call_all(wakers: list[Wake]) -> None:
    """Wake everybody whose record a commit contained."""
    for wake in wakers:
        wake()


async def on_loop(job: Job) -> None:
    """200 tasks; a commit wakes all of its tasks by one call of the loop's."""
    loop = asyncio.get_running_loop()
    writer = Writer(job.url, lambda wakers: loop.call_soon_threadsafe(call_all, wakers))

    def put(**record: Any) -> asyncio.Future[None]:
        future = loop.create_future()
        writer.put(lambda: future.set_result(None), **record)
        return future

    async def run(steps: int) -> None:
        id = next(_ids)
        await put(start=id)
        for position in range(1, steps):
            await put(step=(id, position, b"1"))
        await put(step=(id, steps, b"1"), end=(id, b"1"))

    for steps in (1, 3):
        await at_once_async(job, f"many-{steps}", lambda steps=steps: run(steps))  # type: ignore[misc]
    writer.close()


def in_threads(job: Job) -> None:
    """200 threads."""
    writer = Writer(job.url, call_all)

    def put(**record: Any) -> None:
        future: Future[None] = Future()
        writer.put(lambda: future.set_result(None), **record)
        future.result()

    def run(steps: int) -> None:
        id = next(_ids)
        put(start=id)
        for position in range(1, steps):
            put(step=(id, position, b"1"))
        put(step=(id, steps, b"1"), end=(id, b"1"))

    for steps in (1, 3):
        at_once(job, f"many-{steps}", lambda steps=steps: run(steps))  # type: ignore[misc]
    writer.close()


def main() -> None:
    """Measure what is wanted."""
    job = Job.read()
    with psycopg.connect(job.url, autocommit=True) as connection:
        connection.execute(TABLES)
    if "many" in job.wanted:
        asyncio.run(on_loop(job))
        in_threads(job)


if __name__ == "__main__":
    main()
