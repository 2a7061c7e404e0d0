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
from typing import Any, assert_type
from uuid import UUID

import perdure
from perdure import AsyncConnection, Connection, Perdure, Retry, Topic, step, transaction, workflow


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


@dataclass(frozen=True)
class Approval:
    by: str


approval = Topic("approval", Approval)
total_so_far = Topic("total so far", Decimal)
anything: Topic[Any] = Topic("anything")


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


# ------------------------------------------------------------------------------------ messages, events, updates


@workflow
async def talking(id: str) -> None:
    assert_type(approval, Topic[Approval])
    assert_type(await perdure.receive(approval), Approval)
    assert_type(await perdure.receive(approval, timeout=5), Approval)
    assert_type(await perdure.receive(approval, timeout=timedelta(days=2), default=None), Approval | None)
    assert_type(await perdure.receive("line", type=str), str)
    assert_type(await perdure.receive("line", type=str, timeout=0, default=5), str | int)
    await perdure.receive("whatever", default=None, timeout=1)
    await perdure.receive(anything)
    assert_type(await perdure.send(id, approval, Approval("anna")), None)
    await perdure.send(id, "line", "text", key="line-1")
    await perdure.send(id, anything, [1, "two"])
    await perdure.send_many([(id, approval, Approval("anna")), (id, approval, Approval("ben"))])
    await perdure.send_many((other, "line", 1) for other in (id, id))
    assert_type(await perdure.set_event(total_so_far, Decimal(5)), None)
    await perdure.set_event("state", {"any": "thing"})
    assert_type(await perdure.set_tags({"state": "paid", "hold": None}), None)
    assert_type(await perdure.get_event(id, total_so_far), Decimal)
    assert_type(await perdure.get_event(id, total_so_far, timeout=5, default=None), Decimal | None)
    assert_type(await perdure.get_event(id, "state", type=dict[str, int]), dict[str, int])
    assert_type(await perdure.get_event(id, "state", type=str, timeout=0, default=False), str | bool)
    async for request in perdure.updates(approval):
        assert_type(request, perdure.Request[Approval])
        assert_type(request.payload.by, str)
        assert_type(request.id, str)
        assert_type(await request.reply(5), None)
        await request.reject(CardDeclined("no"))
    async for named in perdure.updates("limit", type=int):
        assert_type(named.payload, int)
        await named.reply()


@workflow
def talking_blocking(id: str) -> None:
    assert_type(perdure.sync.receive(approval, timeout=5), Approval)
    assert_type(perdure.sync.receive(approval, timeout=5, default=None), Approval | None)
    assert_type(perdure.sync.receive("line", type=str), str)
    assert_type(perdure.sync.send(id, approval, Approval("anna"), key="k"), None)
    perdure.sync.send_many([(id, approval, Approval("anna"))])
    assert_type(perdure.sync.set_event(total_so_far, Decimal(5)), None)
    assert_type(perdure.sync.set_tags({"state": "paid"}), None)
    assert_type(perdure.sync.get_event(id, total_so_far), Decimal)
    assert_type(perdure.sync.get_event(id, "state", type=str, timeout=1, default=None), str | None)
    for request in perdure.sync.updates(approval):
        assert_type(request.payload.by, str)
        assert_type(request.reply("yes"), None)
        request.reject(CardDeclined("no"))


async def starting_in_a_transaction(order: Order, conn: AsyncConnection, blocking: Connection) -> None:
    assert_type(await (await checkout.options(connection=conn, id="o").start(order)).result(), Receipt)
    assert_type(await (await perdure.start(importing.options(connection=conn), "line")).result(), UUID)
    assert_type(importing.options(connection=blocking).start("line").result(), UUID)


async def talking_to_runs(order: Order) -> None:
    handle = await checkout.options(id="order-1", send=(approval, Approval("anna"))).start(order)
    await checkout.options(send=("line", "text")).start(order)
    assert_type(await handle.send(approval, Approval("ben"), key="b"), None)
    await handle.send("line", 5)
    assert_type(await handle.update(approval, Approval("anna"), type=int), int)
    assert_type(await handle.update("limit", 5, type=Decimal, id="u-1", timeout=60), Decimal)
    await handle.update("limit", 5)
    asking = checkout.options(id="order-1").start_with_update(approval, Approval("anna"), update_id="u-2")
    with_update = await asking(order, note="x")
    assert_type(await with_update.answer(int), int)
    assert_type(await with_update.answer(type=Decimal, timeout=timedelta(seconds=5)), Decimal)
    await with_update.answer(timeout=5)
    assert_type(await with_update.result(), Receipt)
    assert_type(await (await checkout.start_with_update("limit", [5])(order)).result(), Receipt)
    other = await perdure.start(importing.start_with_update(approval, Approval("anna")), "line", retries=1)
    assert_type(await other.result(), UUID)
    assert_type(await handle.get_event(total_so_far, timeout=5), Decimal)
    assert_type(await handle.get_event("state", type=str, timeout=5, default=None), str | None)
    for event in await handle.events():
        assert_type(event.key, str)
        assert_type(event.recorded, datetime)


def talking_to_runs_blocking() -> None:
    handle = importing.options(send=(approval, Approval("anna"))).start("line")
    assert_type(handle.send(approval, Approval("ben")), None)
    assert_type(handle.update(approval, Approval("anna"), type=int), int)
    with_update = importing.options(id="i").start_with_update(approval, Approval("anna"))("line", retries=1)
    assert_type(with_update.answer(int, timeout=5), int)
    with_update.answer()
    assert_type(with_update.result(), UUID)
    other = perdure.sync.start(checkout.start_with_update("limit", 5), Order(1, "sku", Decimal(1)))
    assert_type(other.answer(int), int)
    assert_type(other.result(), Receipt)
    assert_type(handle.get_event(total_so_far), Decimal)
    assert_type(handle.get_event(total_so_far, timeout=5, default=0), Decimal | int)
    for event in handle.events():
        assert_type(event.json(), str)


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


async def first_of_several(order: Order) -> None:
    winner = await perdure.race(checkout(order), checkout(order))
    assert_type(winner.which, int)
    assert_type(winner.value, Receipt)
    which, _ = winner
    assert_type(which, int)
    handles = [await checkout.start(order), await checkout.start(order)]
    assert_type(await (await perdure.wait_any(handles)).result(), Receipt)
    mapped = await perdure.map_steps(checkout, [order], limit=3, tolerate=0.5)
    assert_type(mapped.failures[0].item, Order)
    assert_type(mapped.failures[0].error, Exception)
    async with perdure.timeout(timedelta(minutes=1)):
        with perdure.shield():
            pass


def first_of_several_blocking() -> None:
    winner = perdure.sync.race(lambda: importing("line"), lambda: importing("other"))
    assert_type(winner.value, UUID)
    handles = [importing.start("line"), importing.start("other")]
    assert_type(perdure.sync.wait_any(handles).result(), UUID)
    mapped = perdure.sync.map_steps(importing, ["line"], limit=3, tolerate=2)
    assert_type(mapped.results, list[UUID])
    assert_type(mapped.failures[0].item, str)


# ------------------------------------------------------------------------------------ undo, streams, change


def give_back(receipt: Receipt | perdure.OutcomeUnknown, order: Order) -> None: ...


@step(compensate=give_back)
async def paid(order: Order) -> Receipt:
    return Receipt(order.id, "paid")


@workflow
async def changing(order: Order, rounds: int = 0) -> Receipt:
    receipt = await paid(order)
    async with perdure.saga() as undo:
        undo(paid, order)
        undo(reserve, "sku", 1)
        await undo.all()
    assert_type(await perdure.write_stream(approval, Approval("anna")), None)
    await perdure.write_stream("lines", 5)
    await perdure.close_stream(approval)
    async for item in perdure.read_stream("order-1", approval, offset=2):
        assert_type(item, perdure.Item[Approval] | perdure.Discarded)
    async for typed in perdure.read_stream("order-1", "lines", type=int):
        assert_type(typed, perdure.Item[int] | perdure.Discarded)
    assert_type(perdure.patched("fraud check"), bool)
    perdure.deprecate_patch("fraud check")
    if rounds:
        await perdure.continue_as_new(order, rounds - 1)
    return receipt


@step
def beats() -> None:
    perdure.sync.heartbeat({"line": 5})
    perdure.sync.write_stream(approval, Approval("ben"))


@workflow
def changing_blocking(line: str) -> str:
    with perdure.sync.saga() as undo:
        undo(beats)
    for item in perdure.sync.read_stream("order-1", approval):
        assert_type(item, perdure.Item[Approval] | perdure.Discarded)
    perdure.sync.continue_as_new(line)


async def streaming(order: Order) -> None:
    async for item in (await checkout.start(order)).stream(approval, offset=3):
        if isinstance(item, perdure.Item):
            assert_type(item.value, Approval)


# ------------------------------------------------------------------------------------------ durable objects


@dataclass
class Account(perdure.Entity, name="account"):
    balance: Decimal = Decimal(0)

    @perdure.command
    def deposit(self, amount: Decimal, *, note: str = "") -> Decimal:
        self.balance += amount
        return self.balance


@dataclass
class Savings(Account, name="savings"):
    """A subclass may override a command: the type of the object is no part of the command's type."""

    @perdure.command
    def deposit(self, amount: Decimal, *, note: str = "") -> Decimal:
        self.balance += amount * 2
        return self.balance


@workflow
async def pay_in(key: str) -> Decimal:
    return await Account.deposit(key, Decimal(1), note="x")


async def with_objects() -> None:
    assert_type(Account(balance=Decimal(1)).deposit(Decimal(1)), Decimal)
    assert_type(await Account.deposit("a", Decimal(1)), Decimal)
    assert_type(await Account.deposit.options(id="once")("a", amount=Decimal(1), note="x"), Decimal)
    assert_type(await Savings.deposit("a", Decimal(1)), Decimal)
    assert_type(await Account.get("a"), Account)
    assert_type(await Account.when("a", lambda account: account.balance > 0, timeout=5), Account)
    assert_type((await Account.history("a", limit=5))[0], perdure.CommandInfo)


def with_objects_blocking() -> None:
    assert_type(perdure.sync.call(Account.deposit, "a", Decimal(1), note="x"), Decimal)
    assert_type(perdure.sync.call(Account.deposit.options(id="once"), "a", Decimal(1)), Decimal)
    assert_type(perdure.sync.get(Account, "a"), Account)
    assert_type(perdure.sync.when(Account, "a", lambda account: account.balance > 0), Account)


async def with_operations(app: perdure.Perdure) -> None:
    assert_type(await app.runs.cancel(status=["failed", "parked"], reason="x", progress=print), int)
    assert_type(await app.runs.cancel(perdure.RunFilter(version="1"), compensate=False), int)
    assert_type(await app.runs.cancel(app.handle("a"), reason="no"), int)
    assert_type(await app.runs.cancel([app.handle("a"), "b"]), int)
    assert_type(await app.runs.cancel(ids="a", limit=3), int)
    assert_type(await app.runs.resume(prefix="a", version="2"), int)
    assert_type(await app.runs.fork("a", from_step="1", outputs={"1": 5}), perdure.Handle[Any])
    assert_type(list(await app.runs.fork(["a", "b"])), list[perdure.Handle[Any]])
    assert_type((await app.runs.replay(workflow="w"))[0], perdure.ReplayInfo)
    assert_type(await app.runs.export("a"), bytes)
    assert_type((await app.runs.audit("a"))[0], perdure.AuditInfo)
    Account.deposit.tell("a", Decimal(1), note="x")


@perdure.scheduled(
    "0 2 * * *", timezone="Europe/Berlin", name="nightly", args=("x",), catch_up=timedelta(days=2)
)
@workflow
async def nightly(scope: str) -> int:
    assert_type(perdure.info().scheduled_at, datetime | None)
    return len(scope)


@perdure.scheduled(
    every=timedelta(hours=1), anchor=datetime(2026, 1, 1, tzinfo=UTC), overlap="allow", jitter=5, paused=True
)
@workflow
def hourly() -> None: ...


async def with_schedules(app: perdure.Perdure) -> None:
    assert_type(await nightly("y"), int)
    assert_type(
        await app.schedules.apply(perdure.Schedule(nightly, "* * * * *", args=("y",))), tuple[str, ...]
    )
    for each in await app.schedules.list(paused=False):
        assert_type(each.next, datetime | None)
    assert_type(await app.schedules.trigger("nightly", overlap="allow"), perdure.Handle[Any] | None)
    assert_type(
        await app.schedules.backfill("nightly", datetime.now(UTC), datetime.now(UTC), progress=print), int
    )
    await app.schedules.update("nightly", cron="0 3 * * *", tags={"a": 1}, reason="x")


def with_schedules_blocking(app: perdure.sync.Perdure) -> None:
    assert_type(hourly(), None)
    assert_type(app.schedules.get("hourly"), perdure.ScheduleInfo)
    assert_type(app.schedules.trigger("hourly"), perdure.sync.Handle[Any] | None)
    app.schedules.pause("hourly", "note")
