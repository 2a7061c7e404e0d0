"""Workflows that the lint is tried on: order, state, what a body calls, and what is excused.

Marked as in `lint_programs`.
"""
# ruff: noqa: B018, DTZ005, DTZ011, PLC0208
# mypy: disable-error-code="unused-coroutine, no-untyped-call, var-annotated"

from __future__ import annotations

import asyncio
import functools
import os
import random
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pydantic

import perdure
from perdure import step, workflow
from tests.lint_programs import look, measure, store, together

counter = 0
seen: list[str] = []
totals: dict[str, int] = {}
COLOURS = {"red", "green"}


class State:
    """What lives as long as the process."""

    count = 0


# -- awaits and orders ------------------------------------------------------------------------------


@workflow
async def dropped(place: str) -> None:
    """Coroutines that are made and dropped, and calls that are none."""
    look(place)  # finds: await
    store(place)  # finds: await
    together([place])  # finds: await
    together.options(id=place)([place])  # finds: await
    together.start([place])  # finds: await
    perdure.sleep(5)  # finds: await

    async def inner() -> None: ...

    inner()  # finds: await
    await look(place)
    print(place)
    perdure.now()


@workflow
def not_dropped(place: str) -> None:
    """Blocking calls are done when they return."""
    measure(place)
    perdure.sync.sleep(5)


@workflow
async def orders(names: set[str], tags: frozenset[str], pages: list[str]) -> None:
    """Sets whose order decides that of durable calls."""
    for name in {"a", "b"}:  # finds: order
        await look(name)
    for name in set(pages):  # finds: order
        async with asyncio.TaskGroup() as group:
            group.create_task(look(name))
    for _, name in enumerate(names):  # finds: order
        await look(name)
    for name in COLOURS - tags:  # finds: order
        if name != "red":
            await look(name)
    await asyncio.gather(*[look(name) for name in names])  # finds: order
    tasks = [asyncio.create_task(look(page)) for page in pages]
    done, _ = await asyncio.wait(tasks)
    for task in done:  # finds: order
        await look(str(task.result()))


@workflow
def blocking_orders(names: set[str]) -> None:
    """The same without await."""
    for name in names:  # finds: order
        measure(name)


@workflow
async def no_orders(names: set[str], counts: dict[str, int]) -> int:
    """Sorted sets, loops without durable calls, and what keeps its order."""
    for name in sorted(names):
        await look(name)
    for name in counts:
        await look(name)
    for name in names:
        counts[name] = len(name)
    return sum(len(name) for name in names)


# -- state ------------------------------------------------------------------------------------------


@workflow
async def states(name: str, order: State) -> None:
    """Each way to change what outlives the run."""
    global counter  # finds: global
    counter += 1
    totals[name] = 1  # finds: global
    totals[name] += 1  # finds: global
    del totals[name]  # finds: global
    seen.append(name)  # finds: global
    State.count = 1  # finds: global
    mine = seen
    mine.clear()  # finds: global
    sys.path.insert(0, name)  # finds: global


@workflow
async def no_states(name: str, order: State) -> list[str]:
    """What belongs to the run."""
    seen: list[str] = []
    seen.append(name)
    totals = {name: counter}
    totals[name] += 1
    order.count = 2
    found = 0

    def count() -> None:
        nonlocal found
        found += 1

    count()
    return seen


def made_by_a_function() -> Any:
    """A workflow with a closure."""
    calls = 0

    @workflow
    async def counted() -> int:
        nonlocal calls  # finds: global
        calls += 1
        return calls

    return counted


made = made_by_a_function()


# -- what a body calls ------------------------------------------------------------------------------


def stamp() -> str:
    """A function that a workflow calls, which calls another one."""
    return f"{deeper()} {datetime.now()}"  # finds: clock


def deeper() -> float:
    """Calls who calls it, to see that this ends."""
    stamp()
    return random.random()  # finds: random


def not_called() -> float:
    """Nobody calls it."""
    return time.time()


def logged(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator of the user's."""

    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        print(time.time())  # finds: clock
        return await function(*args)

    return wrapper


@logged
async def report(place: str) -> None:
    """What is decorated is looked at too."""
    uuid.uuid4()  # finds: random


@functools.cache
def cached() -> str | None:
    """What is decorated by a library is looked at too."""
    return os.getenv("SHOP")  # finds: io


def ranked(place: str) -> float:
    """What is handed over is looked at too."""
    return random.random()  # finds: random


@dataclass
class Basket:
    """An object of the user's, with methods, a property and fields that make themselves."""

    place: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    made: str = field(default_factory=lambda: str(date.today()))  # finds: clock

    def __post_init__(self) -> None:
        self.key = secrets.token_hex()  # finds: random
        seen.append(self.place)  # finds: global

    def total(self) -> float:
        """Calls another method."""
        return self.price()

    def price(self) -> float:
        """Is called by it."""
        return time.time()  # finds: clock

    def never(self) -> float:
        """Is not called."""
        return time.time()

    @property
    def age(self) -> float:
        """Is called by being looked at."""
        return time.time()  # finds: clock

    @classmethod
    def empty(cls) -> Basket:
        """Makes one."""
        return cls(*[])

    @staticmethod
    def free() -> bool:
        """Needs none."""
        return Path("free").exists()  # finds: io


class Parcel(pydantic.BaseModel):
    """A model, with a field that makes itself."""

    id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)
    born: float = pydantic.Field(alias="birth", default_factory=time.time)


@workflow
async def calls(places: list[str], given: Basket) -> None:
    """Functions, methods and classes of the user's."""
    stamp()
    await report("a")
    cached()
    sorted(places, key=ranked)
    given.total()
    given.age
    Basket.empty()
    Basket.free()
    await asyncio.gather(*map(look, places))
    Basket("a")  # finds: random
    Parcel()  # finds: random, clock
    Parcel(id=perdure.uuid4(), birth=0.0)
    Basket("a", perdure.uuid4(), "")
    Basket(place="a", id=perdure.uuid4(), made="")

    @step
    async def own() -> float:
        return time.time()

    await own()


# -- what is excused --------------------------------------------------------------------------------


@workflow
async def excused() -> None:
    """A comment excuses a line, all of it or what it names."""
    time.time()  # perdure: allow
    time.time()  # perdure: allow[clock]
    time.time()  # perdure: allow[random]  # finds: clock
    time.time()  # once more  # perdure: allow[random, clock]
    not_called()  # perdure: allow
    print(
        "perdure: allow",
        time.time(),  # perdure: allow[clock]
        "# perdure: allow", random.random(),  # finds: random
    )  # fmt: skip
    socket.create_connection(
        ("shop", 80),
    )  # perdure: allow[io]
    time.time()  # perdure: allow [clock]
    time.time()  # perdure: allow [random]  # finds: clock
    time.time()  # perdure: allowed  # finds: clock
    time.time()  # perdure: allow[clock  # finds: clock
