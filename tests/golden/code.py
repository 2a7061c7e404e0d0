"""The code behind the histories in this folder. It is never changed: a change would be the divergence.

What is new gets a workflow of its own at the end, and is recorded by `python -m tests.golden.record NAME`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import perdure
from perdure import (
    AsyncConnection,
    Connection,
    Entity,
    Retry,
    Topic,
    command,
    saga,
    step,
    sync,
    transaction,
    workflow,
)


@dataclass
class Line:
    """Part of an order, to have payloads that are no plain values."""

    sku: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


words = Topic("words", str)


@step(name="golden.price", retry=Retry(max_attempts=2, delay=0))
async def price(line: Line) -> Decimal:
    """A plain step."""
    return line.price * 2


@step(name="golden.refuse")
async def refuse(text: str) -> str:
    """One that fails."""
    raise LookupError(text)


@step(name="golden.undo")
async def undo(what: str) -> None:
    """What undoes."""


@step(name="golden.once", at_most_once=True)
async def once(number: int) -> int:
    """One with an intent."""
    return number + 1


@step(name="golden.booked", compensate=lambda result, text: None)
async def booked(text: str) -> str:
    """One that is undone."""
    return text


@transaction(name="golden.write")
async def write(connection: AsyncConnection, number: int) -> int:
    """A transaction step."""
    await connection.execute("select 1")
    return number


@transaction(name="golden.write_blocking")
def write_blocking(connection: Connection, number: int) -> int:
    """The same, blocking."""
    connection.execute("select 1")
    return number


@step(name="golden.shout")
def shout(text: str) -> str:
    """A blocking step."""
    return text.upper()


@dataclass
class Counter(Entity):
    """A durable object."""

    total: int = 0

    @command
    def add(self, number: int) -> int:
        """Count."""
        self.total += number
        return self.total


@workflow(name="golden.sequence")
async def sequence(line: Line) -> Decimal:
    """Steps, transactions, clock and chance, one after the other."""
    perdure.now()
    total = await price(line)
    total += perdure.random().choice([Decimal(1), Decimal(2), Decimal(3)])
    await write(int(total))
    try:
        await refuse(str(perdure.uuid4()))
    except LookupError as error:
        total += len(str(error))
    return total + await once(1)


@workflow(name="golden.branches")
async def branches(count: int) -> list[str]:
    """Many things at a time."""
    lines = [Line(f"sku-{number}", Decimal(number)) for number in range(count)]
    await asyncio.gather(*(price(line) for line in lines))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(perdure.sleep(0.001 * (count - number)))
            group.create_task(write(number))
    mapped = await perdure.map_steps(price, lines, limit=2)
    won = await perdure.race(perdure.sleep(0.01), perdure.sleep(60))
    try:
        await perdure.send("nobody", words, "hello")
    except perdure.WorkflowNotFound:
        return [str(len(mapped.results)), str(won.which)]
    return []


@workflow(name="golden.child")
async def child(text: str) -> str:
    """A child."""
    await perdure.set_event("said", text)
    return text


@workflow(name="golden.talking")
async def talking(name: str) -> list[str]:
    """Children, messages, events, updates, streams, objects; waits at the end."""
    heard = [await child("direct")]
    handle = await child.options(id=f"{name}-child").start("started")
    heard.append(await handle.result())
    heard.append(await perdure.get_event(f"{name}-child", "said", type=str))
    await perdure.write_stream("log", "line")
    heard.append(str(await Counter.add(name, 2)))
    heard.append(await perdure.receive(words))
    try:
        await perdure.receive("nothing", timeout=0.01)
    except perdure.WaitTimeout:
        heard.append("nothing")
    async for request in perdure.updates("ask", type=str):
        await request.reply(request.payload.upper())
        break
    if perdure.patched("loud"):
        heard.append(await perdure.run_step(shout, "loud"))
    heard.append(await perdure.receive(words))
    return heard


@workflow(name="golden.undone")
async def undone(text: str) -> None:
    """Fails, and undoes."""
    async with saga() as undoing:
        await booked(text)
        undoing(undo, text)
        await refuse(text)


@workflow(name="golden.cancelled")
async def cancelled(text: str) -> None:
    """Is told to stop."""
    try:
        await booked(text)
        await perdure.sleep(3600)
    finally:
        async with perdure.shield():
            await undo(text)


@workflow(name="golden.onward")
async def onward(left: int) -> str:
    """Goes on as new."""
    await once(left)
    if left:
        await perdure.continue_as_new(left - 1)
    return "done"


@workflow(name="golden.blocking")
def blocking(text: str) -> list[Any]:
    """The same in blocking code."""
    sync.now()
    told: list[Any] = [shout(text), write_blocking(1), sync.random().randrange(10)]
    told += sync.gather(lambda: shout("left"), lambda: sync.sleep(0.01), lambda: write_blocking(2))
    sync.set_event("so far", told)
    told.append(sync.receive(words))
    return told


@workflow(name="golden.tagging")
async def tagging(text: str) -> str:
    """Changes its tags."""
    await perdure.set_tags({"state": text})
    return text
