# pyright: strict
"""Right uses of the public API, with the types that a user's editor must see.

Nothing here runs: mypy and pyright read it. Each `assert_type` is a promise; a call without one only has to
be accepted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import assert_type
from uuid import UUID

import perdure
from perdure import AsyncConnection, Connection, Perdure, Retry, step, transaction, workflow


@dataclass(frozen=True)
class Order:
    id: int
    sku: str
    total: Decimal


@dataclass(frozen=True)
class Receipt:
    order: int
    payment: str


class CardDeclined(Exception):
    pass


# ------------------------------------------------------------------------------------------ declared, async


@step
async def lookup(sku: str, *, warehouse: str = "main") -> int:
    return len(sku) + len(warehouse)


@step(name="charge", retry=Retry(max_attempts=5, delay=0.5, max_delay=30, unless=(CardDeclined,)), timeout=10)
async def charge(order: Order) -> str:
    return f"payment-{order.id}"


@step(at_most_once=True, timeout=timedelta(seconds=3))
async def announce(text: str) -> None:
    print(text)


@transaction
async def reserve(conn: AsyncConnection, sku: str, quantity: int) -> int:
    await conn.execute("update stock set quantity = quantity - %s where sku = %s", (quantity, sku))
    return quantity


@transaction(name="close", isolation="serializable", lock={"ledger": "share row exclusive"}, retry=Retry())
async def close_month(conn: AsyncConnection, month: str) -> Decimal:
    await conn.execute("insert into closed values (%s)", (month,))
    return Decimal(0)


@workflow
async def checkout(order: Order, *, note: str | None = None) -> Receipt:
    payment = assert_type(await charge(order), str)
    quantity = assert_type(await reserve(order.sku, quantity=2), int)
    assert_type(await close_month("1997-01"), Decimal)
    assert_type(await announce(note or f"{quantity} sold"), None)
    # mypy finds these types only if a call is a Coroutine[object, None, R]: any Any in it makes gather's overloads
    # ambiguous, and the result Any.
    one, other = await asyncio.gather(charge(order), lookup(order.sku, warehouse="north"))
    assert_type(one, str)
    assert_type(other, int)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(charge(order))
    assert_type(task.result(), str)
    return Receipt(order.id, payment)


@workflow(name="daily-report", timeout=3600, max_recoveries=5)
async def report(day: str, limit: int = 10) -> list[Receipt]:
    return [Receipt(limit, day)]


# --------------------------------------------------------------------------------------- declared, blocking


@step
def parse(line: str) -> Order:
    return Order(1, line, Decimal(0))


@step(retry=Retry(on=(OSError,), when=lambda error: bool(error.args)), timeout=5.0)
def convert(amount: Decimal, currency: str = "USD") -> str:
    return f"{amount} {currency}"


@transaction
def post(conn: Connection, order: Order) -> UUID:
    conn.execute("insert into ledger values (%s)", (order.id,))
    return UUID(int=order.id)


@transaction(isolation="repeatable read")
def total(conn: Connection) -> Decimal:
    conn.execute("select sum(total) from ledger")
    return Decimal(0)


@workflow
def importing(line: str, retries: int = 3) -> UUID:
    order = assert_type(parse(line), Order)
    assert_type(convert(order.total, currency="EUR"), str)
    assert_type(total(), Decimal)
    perdure.sync.sleep(retries)
    perdure.sync.sleep_until(datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(perdure.sync.run_step(charge, order), str)
    return assert_type(post(order), UUID)


# ------------------------------------------------------------------------------------------ inside a workflow


@workflow
async def inside(order: Order) -> None:
    await perdure.sleep(2.5)
    await perdure.sleep(timedelta(days=3))
    await perdure.sleep_until(datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(perdure.now(), datetime)
    assert_type(perdure.random(), Random)
    assert_type(perdure.uuid4(), UUID)
    assert_type(perdure.info().run_id, str)
    assert_type(perdure.info().workflow, str)
    assert_type(perdure.info().attempt, int)
    assert_type(perdure.info().idempotency_key, str)
    assert_type(await perdure.run_step(charge, order), str)
    assert_type(await perdure.run_step(convert, order.total, currency="EUR"), str)
    assert_type(await checkout(order), Receipt)
    child = await checkout.start(order)
    assert_type(await child.result(), Receipt)
    assert_type(await (await perdure.start(importing, "line")).result(), UUID)


# ---------------------------------------------------------------------------------------------- outside, async


async def outside(order: Order) -> None:
    async with Perdure("postgresql://localhost/shop", schema="shop", concurrency=50, lease=15) as app:
        assert_type(await checkout(order, note="call first"), Receipt)

        handle = await checkout.start(order)
        assert_type(await handle.result(timeout=60), Receipt)
        assert_type(await handle.result(timeout=timedelta(minutes=1)), Receipt)
        assert_type(handle.id, str)
        assert_type(handle.created, bool)
        await handle.status()
        await handle.describe()
        await handle.steps()
        await handle.cancel()

        chosen = checkout.options(
            id="order-1", queue="orders", delay=timedelta(hours=1), timeout=3600, on_conflict="reject"
        )
        assert_type(await (await chosen.start(order, note="x")).result(), Receipt)
        assert_type(await chosen(order), Receipt)
        assert_type(await (await report.options(id="r").start("1997-01-01", limit=5)).result(), list[Receipt])

        assert_type(await (await perdure.start(checkout, order)).result(), Receipt)
        assert_type(await (await perdure.start(chosen, order, note="y")).result(), Receipt)
        assert_type(await (await perdure.start(importing, "line", retries=1)).result(), UUID)
        assert_type(await (await perdure.start(importing.options(id="i"), "line")).result(), UUID)

        by_name = await app.start("daily-report", args=["1997-01-01"], kwargs={"limit": 5}, queue="reports")
        await by_name.result()

        known = checkout.handle("order-1")
        assert_type(await known.result(), Receipt)

        assert_type(await app.runs.count(workflow="daily-report"), int)
        for run in await app.runs.list(limit=10):
            assert_type(run.id, str)
        await app.runs.get("order-1")
        await app.runs.resume("order-1")
        await app.runs.cancel("order-1")

        assert_type(await lookup("sku"), int)
        with app.bind():
            assert_type(await reserve("sku", 1), int)


# ------------------------------------------------------------------------------------------ outside, blocking


def outside_blocking(order: Order) -> None:
    with perdure.sync.Perdure(worker=True, threads=8, grace=timedelta(seconds=5)) as app:
        assert_type(importing("line"), UUID)

        handle = importing.start("line", retries=2)
        assert_type(handle.result(timeout=60), UUID)
        assert_type(handle.id, str)
        assert_type(handle.created, bool)
        handle.status()
        handle.describe()
        handle.steps()
        handle.cancel()

        chosen = importing.options(id="line-1", queue="lines", delay=5, on_conflict="attach")
        assert_type(chosen.start("line").result(), UUID)
        assert_type(chosen("line"), UUID)

        assert_type(perdure.sync.start(importing, "line").result(), UUID)
        assert_type(perdure.sync.start(chosen, "line", retries=1).result(), UUID)
        assert_type(perdure.sync.start(checkout, order).result(), Receipt)
        assert_type(perdure.sync.start(checkout.options(id="o"), order).result(), Receipt)

        app.start("daily-report", args=["1997-01-01"]).result()
        assert_type(importing.handle("line-1").result(), UUID)

        assert_type(app.runs.count(), int)
        for run in app.runs.list(limit=10):
            assert_type(run.id, str)
        app.runs.get("line-1")

        assert_type(post(order), UUID)
