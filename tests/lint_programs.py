"""Workflows that the lint is tried on: what code may not learn but from the record, and how it may wait.

What must be found is marked by a comment such as `finds: clock`, where it stands. What is found on a line without
one is a false alarm.
"""
# ruff: noqa: ASYNC100, ASYNC210, ASYNC221, ASYNC230, ASYNC240, ASYNC250, ASYNC251, B015, B018, DTZ001, DTZ002, DTZ003, DTZ005, DTZ011, PTH110, PTH118, PTH123, PTH208
# mypy: disable-error-code="unused-coroutine, import-not-found, import-untyped, no-untyped-call, var-annotated"

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import datetime as dt
import functools
import multiprocessing
import os
import os.path
import pathlib
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from os import environ, getenv
from pathlib import Path
from random import choice
from time import time as t
from typing import Any

import psycopg

import perdure
from perdure import AsyncConnection, step, transaction, workflow

seen: list[str] = []
dice = random.Random(7)
pool = ThreadPoolExecutor
stamp_of = functools.partial(time.time)
FOLDER = Path("orders")


@step
async def look(place: str) -> int:
    """Steps may do what they like."""
    seen.append(place)
    await asyncio.sleep(random.random())
    return len(place) + int(time.time())


@step
def measure(place: str) -> float:
    """So may blocking ones."""
    time.sleep(0.1)
    return Path(place).stat().st_mtime


@transaction
async def store(conn: AsyncConnection, place: str) -> None:
    """And transactions."""
    await conn.execute("select %s", (datetime.now(),))


# -- clocks -----------------------------------------------------------------------------------------


@workflow
async def clocks() -> None:
    """By module, by name, by another name, by a local name, and handed over."""
    time.time()  # finds: clock
    t()  # finds: clock
    dt.datetime.now(dt.UTC)  # finds: clock
    datetime.utcnow()  # finds: clock
    datetime.today() - timedelta(days=1)  # finds: clock
    date.today()  # finds: clock
    now = time.monotonic
    now()  # finds: clock
    time.gmtime()  # finds: clock
    time.strftime("%Y")  # finds: clock
    if (late := time.perf_counter_ns()) > 7 or late:  # finds: clock
        print(f"{time.time_ns()} is late")  # finds: clock
    sorted([1, 2], key=lambda _: time.process_time())  # finds: clock
    stamp_of()  # finds: clock
    list(iter(time.time, 0.0))  # finds: clock
    import time as watch

    watch.thread_time()  # finds: clock
    time.sleep(1)  # finds: clock


@workflow
async def no_clocks(time: Callable[[], float], hours: timedelta) -> datetime:
    """Arguments of this name, times that are made of others, and perdure's own."""
    time()
    dt.datetime(2026, 11, 22) + hours
    datetime.fromisoformat("2026-11-22")
    dt.time(7)
    now = perdure.now
    now().strftime("%Y")
    return perdure.now() + hours


@workflow
def pauses() -> None:
    """The pauses of a blocking workflow."""
    time.sleep(1)  # finds: clock
    perdure.sync.sleep(1)


def sleep(seconds: float) -> None:
    """The user's own, which does nothing."""


@workflow
def no_pauses() -> None:
    """A function that is only called so."""
    sleep(1)


# -- chance -----------------------------------------------------------------------------------------


@workflow
async def chances(names: list[str]) -> None:
    """All that is drawn."""
    random.choice(names)  # finds: random
    choice(names)  # finds: random
    random.shuffle(names)  # finds: random
    random.Random().random()  # finds: random
    random.SystemRandom()  # finds: random
    dice.random()  # finds: random
    secrets.token_hex()  # finds: random
    str(uuid.uuid4())  # finds: random
    uuid.uuid1().hex  # finds: random
    os.urandom(8)  # finds: random
    import numpy.random as numbers

    numbers.default_rng().normal(0, 1)  # finds: random
    numbers.normal(0, 1)  # finds: random


@workflow
async def no_chances(names: list[str], rolls: random.Random) -> uuid.UUID:
    """Chance with a seed, and perdure's own."""
    perdure.random().choice(names)
    generator = perdure.random()
    generator.shuffle(names)
    rolls.random()
    random.Random(len(names)).shuffle(names)
    seeded = random.Random("seed")
    seeded.random()
    uuid.uuid5(uuid.NAMESPACE_DNS, "perdure")
    secrets.compare_digest("a", "b")
    import numpy.random

    numpy.random.default_rng(7).normal()
    return perdure.uuid4()


@workflow
async def identities(id: int, names: list[str]) -> None:
    """Addresses and hashes; an argument may be called so."""
    hash(names[0])  # finds: hash
    sorted(names, key=hash)  # finds: hash
    print(id, builtins.id(names))  # finds: hash


# -- input and output -------------------------------------------------------------------------------


@workflow
async def outside(folder: Path, name: str) -> None:
    """Files, settings, sockets, processes, databases."""
    with open(name) as file:  # finds: io
        file.read()
    input()  # finds: io
    Path(name).read_text()  # finds: io
    (Path(name) / "a").exists()  # finds: io
    (FOLDER / "a").joinpath("b").write_text("")  # finds: io
    FOLDER.mkdir()  # finds: io
    folder.parent.iterdir()  # finds: io
    pathlib.Path.cwd()  # finds: io
    target = Path(name)
    target.unlink()  # finds: io
    os.listdir()  # finds: io
    os.path.exists(name)  # finds: io
    os.environ["SHOP"]  # finds: io
    "SHOP" in environ  # finds: io
    os.getenv("SHOP")  # finds: io
    getenv("SHOP")  # finds: io
    sys.argv[1:]  # finds: io
    sys.stdin.read()  # finds: io
    socket.create_connection(("shop", 80))  # finds: io
    subprocess.run(["ls"], check=True)  # finds: io
    urllib.request.urlopen("https://shop")  # finds: io
    psycopg.connect("")  # finds: io
    await psycopg.AsyncConnection.connect("")  # finds: io
    import httpx
    import requests

    requests.get("https://shop")  # finds: io
    requests.Session().get("https://shop")  # finds: io
    async with httpx.AsyncClient(timeout=httpx.Timeout(5)) as client:  # finds: io
        await client.get("https://shop")
    list(map(open, [name]))  # finds: io


@workflow
async def remote(
    client: Any, connection: psycopg.Connection[Any], other: psycopg.AsyncConnection | None
) -> None:
    """What an annotation tells of an argument."""
    client.get("https://shop")
    connection.execute("select 1")  # finds: io
    if other:
        await other.execute("select 1")  # finds: io


@workflow
async def nothing_outside(name: str, open: Callable[[str], str]) -> str:
    """Prints, paths that nobody follows, names of settings and errors, steps."""
    print(name, open(name))
    os.path.join(name, "a")
    path = Path(name).with_suffix(".txt") / name
    path.name
    Path(name).parent.as_posix()
    from requests import RequestException

    try:
        await perdure.run_step(measure, name)
    except (OSError, RequestException, subprocess.CalledProcessError, socket.gaierror) as error:
        raise psycopg.OperationalError from error
    return os.sep


# -- threads and loops ------------------------------------------------------------------------------


@workflow
async def threads() -> None:
    """Each way to another thread or process."""
    threading.Thread(target=print).start()  # finds: thread
    threading.Timer(1, print)  # finds: thread
    with ThreadPoolExecutor() as executor:  # finds: thread
        executor.submit(print)
    with pool() as executor:  # finds: thread
        pass
    concurrent.futures.ProcessPoolExecutor()  # finds: thread
    multiprocessing.Process(target=print)  # finds: thread
    await asyncio.to_thread(time.sleep, 1)  # finds: thread
    await asyncio.get_running_loop().run_in_executor(None, measure, "a")  # finds: thread


@workflow
async def timers(loop: asyncio.AbstractEventLoop) -> None:
    """What the loop's clock decides, and what comes from outside through the loop."""
    async with asyncio.timeout(5):  # finds: asyncio
        await look("a")
    async with asyncio.timeout_at(5):  # finds: asyncio
        pass
    await asyncio.wait_for(look("a"), 5)  # finds: asyncio
    await asyncio.wait_for(look("a"), timeout=5)  # finds: asyncio
    await asyncio.sleep(5)  # finds: asyncio
    running = asyncio.get_event_loop()
    running.time()  # finds: asyncio
    asyncio.get_running_loop().call_later(5, print)  # finds: asyncio
    loop.call_at(5, print)  # finds: asyncio
    await asyncio.open_connection("shop", 80)  # finds: asyncio
    await asyncio.create_subprocess_exec("ls")  # finds: asyncio
    tasks = [asyncio.create_task(look(place)) for place in "abc"]
    await asyncio.wait(tasks, timeout=5)  # finds: asyncio
    for first in asyncio.as_completed(tasks, timeout=5):  # finds: asyncio
        await first
    for first in asyncio.as_completed([look("a"), look("b")]):  # finds: asyncio
        await first
    coroutines = [look(place) for place in "abc"]
    for first in asyncio.as_completed(coroutines):  # finds: asyncio
        await first
    import anyio

    with anyio.move_on_after(5):  # finds: asyncio
        await anyio.sleep(5)  # finds: asyncio


@workflow
def a_loop_of_its_own() -> None:
    """A loop that perdure knows nothing of."""
    asyncio.run(look("a"))  # finds: asyncio


@workflow
async def together(places: list[str]) -> list[int]:
    """Concurrency that only reacts to results."""
    limit, queue, ready = asyncio.Semaphore(2), asyncio.Queue[str](), asyncio.Event()

    async def one(place: str) -> int:
        async with limit:
            await queue.put(place)
            return await look(place)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(place)) for place in places]
    await asyncio.gather(*[one(place) for place in places], look("a"))
    waiting = {asyncio.create_task(one(place)) for place in places}
    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for first in asyncio.as_completed([asyncio.create_task(one("a"))], timeout=None):
        await first
    await asyncio.wait_for(ready.wait(), None)
    async with asyncio.timeout(None):
        await asyncio.sleep(0)
    await asyncio.shield(tasks[0])
    return sorted(task.result() for task in done)
