# pyright: strict
"""Wrong uses of the public API: each line marked `# E` must be an error in mypy and in pyright.

Nothing here runs. A line that only one of the two refuses, or that neither does, fails the test, and so
does an error on a line without the mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import perdure
from perdure import AsyncConnection, Connection, Perdure, Retry, Topic, step, transaction, workflow


@dataclass(frozen=True)
class Order:
    id: int


approval = Topic("approval", Order)


@step
async def charge(order: Order, *, currency: str = "USD") -> str:
    return currency


@step(retry=Retry(max_attempts=2))
async def refund(order: Order) -> str:
    return str(order.id)


@transaction
async def reserve(conn: AsyncConnection, sku: str, quantity: int) -> int:
    return quantity


@workflow
async def checkout(order: Order, *, note: str = "") -> Decimal:
    return Decimal(0)


@workflow(timeout=60)
async def report(day: str) -> int:
    return 0


@step
def parse(line: str) -> Order:
    return Order(1)


@transaction(isolation="serializable")
def post(conn: Connection, order: Order) -> bool:
    return True


@workflow
def importing(line: str, retries: int = 3) -> Order:
    return Order(retries)


async def steps(order: Order) -> None:
    await charge(1)  # E
    await charge()  # E
    await charge(order, currency=1)  # E
    await charge(order, "USD")  # E
    await charge(order, unknown=1)  # E
    await refund("order")  # E
    number: int = await charge(order)  # E
    print(number)
    await perdure.run_step(charge, 1)  # E
    await perdure.run_step(parse, b"line")  # E
    await perdure.sleep("soon")  # E
    await perdure.sleep_until(5)  # E


async def transactions(conn: AsyncConnection) -> None:
    await reserve("sku")  # E
    await reserve(1, 1)  # E
    await reserve("sku", "many")  # E
    await reserve(conn, "sku", 1)  # E
    text: str = await reserve("sku", 1)  # E
    print(text)


async def workflows(order: Order) -> None:
    await checkout("order")  # E
    await checkout(order, note=1)  # E
    await checkout(order, 1)  # E
    await report(5)  # E
    text: str = await checkout(order)  # E
    print(text)


async def starts(order: Order) -> None:
    await checkout.start("order")  # E
    await checkout.start(order, note=1)  # E
    await checkout.start()  # E
    await checkout.options(id="a").start("order")  # E
    await checkout.options(id="a").start(order, nothing=1)  # E
    await checkout.options(id=5)  # E
    await checkout.options(on_conflict="ignore").start(order)  # E
    await checkout.options(delay="soon").start(order)  # E
    await checkout.options(colour="red").start(order)  # E
    await checkout.options(id="a")("order")  # E
    await perdure.start(checkout, "order")  # E
    await perdure.start(checkout.options(id="a"), "order")  # E
    await perdure.start(importing, 1)  # E
    await perdure.start(importing.options(id="a"), "line", retries="3")  # E
    await perdure.start(charge, order)  # E
    text: str = await (await checkout.start(order)).result()  # E
    print(text)
    other: int = await (await perdure.start(importing, "line")).result()  # E
    print(other)
    third: str = await checkout.handle("a").result()  # E
    print(third)


def blocking(order: Order, conn: Connection) -> None:
    parse(1)  # E
    parse("line", 1)  # E
    post(1)  # E
    post(conn, order)  # E
    importing(1)  # E
    importing("line", retries="3")  # E
    importing.start(1)  # E
    importing.start("line", retries="3")  # E
    importing.options(id="a").start(1)  # E
    importing.options(id="a")(1)  # E
    perdure.sync.start(importing, 1)  # E
    perdure.sync.start(checkout, "order")  # E
    perdure.sync.start(checkout.options(id="a"), "order")  # E
    perdure.sync.run_step(charge, 1)  # E
    perdure.sync.sleep("soon")  # E
    text: str = importing("line")  # E
    print(text)
    other: str = importing.start("line").result()  # E
    print(other)
    third: str = perdure.sync.start(checkout, order).result()  # E
    print(third)
    fourth: int = parse("line")  # E
    print(fourth)


async def messages(order: Order) -> None:
    await perdure.send("a", approval, "yes")  # E
    await perdure.send(5, approval, order)  # E
    await perdure.send("a", approval)  # E
    await perdure.send("a", approval, order, key=5)  # E
    await perdure.send_many([("a", approval)])  # E
    await perdure.send_many([(5, approval, order)])  # E
    text: str = await perdure.receive(approval)  # E
    print(text)
    given: Order = await perdure.receive(approval, timeout=5, default=None)  # E
    print(given)
    number: str = await perdure.receive("line", type=int)  # E
    print(number)
    await perdure.receive(approval, timeout="soon")  # E
    await perdure.receive()  # E
    await perdure.set_event(approval, "yes")  # E
    await perdure.set_event(approval)  # E
    await perdure.set_tags("paid")  # E
    event: str = await perdure.get_event("a", approval)  # E
    print(event)
    await perdure.get_event(approval)  # E
    async for request in perdure.updates(approval):
        request.payload.nothing  # E
        await request.reject("no")  # E
    Topic(5)  # E
    Topic("a", 5)  # E


async def messages_to_runs(order: Order) -> None:
    handle = await checkout.options(send=(approval, order)).start(order)
    await handle.send(approval, "yes")  # E
    answer: str = await handle.update(approval, order, type=int)  # E
    print(answer)
    await handle.update(approval, "yes")  # E
    await handle.update(approval, order, id=5)  # E
    await checkout.start_with_update(approval, "yes")(order)  # E
    await checkout.start_with_update(approval)(order)  # E
    await checkout.start_with_update("line", 5)  # E
    await checkout.options(id="a").start_with_update(approval, order)("order")  # E
    await checkout.options(id="a").start_with_update(approval, order)(order, nothing=1)  # E
    await checkout.options(id="a").start_with_update(approval, order, update_id=5)(order)  # E
    with_update = await checkout.start_with_update(approval, order)(order)
    other: str = await with_update.answer(int)  # E
    print(other)
    result: str = await with_update.result()  # E
    print(result)
    await with_update.answer(5)  # E
    await perdure.start(checkout.start_with_update(approval, order), "order")  # E
    event: str = await handle.get_event(approval)  # E
    print(event)
    checkout.options(send=approval)  # E
    checkout.options(connection="postgresql://")  # E
    checkout.options(send=("line",))  # E


def blocking_messages(order: Order) -> None:
    perdure.sync.send("a", approval, "yes")  # E
    text: str = perdure.sync.receive(approval)  # E
    print(text)
    perdure.sync.set_event(approval, 5)  # E
    event: str = perdure.sync.get_event("a", approval)  # E
    print(event)
    for request in perdure.sync.updates(approval):
        request.reject("no")  # E
    importing.start("line").send(approval, "yes")  # E
    importing.start_with_update(approval, "yes")("line")  # E
    importing.options(id="a").start_with_update(approval, order)(1)  # E
    answer: str = importing.start_with_update(approval, order)("line").answer(int)  # E
    print(answer)
    perdure.sync.start(importing.start_with_update(approval, order), 1)  # E


async def colours(order: Order) -> None:
    await importing("line")  # E
    await parse("line")  # E
    await importing.start("line")  # E
    checkout(order).id  # E


@step(retry=3)  # E
async def badly_retried() -> None: ...


@step(timeout="long")  # E
async def badly_timed() -> None: ...


@transaction(isolation="sloppy")  # E
async def badly_isolated(conn: AsyncConnection) -> None: ...


@transaction  # E
async def without_connection() -> None: ...


@workflow(max_recoveries="few")  # E
async def badly_limited() -> None: ...


Perdure(concurrency="many")  # E
Perdure(colour="red")  # E
Retry(max_attempts="many")  # E


async def first_of_several(order: Order) -> None:
    await perdure.race(1)  # E
    await perdure.map_steps(charge, [order], limit="few")  # E
    await perdure.map_steps(charge, [1])  # E
    perdure.timeout("long")  # E
    perdure.sync.race(charge(order))  # E
    perdure.sync.wait_any([await checkout.start(order)])  # E
    with perdure.timeout(1):  # E
        pass


async def undone(order: Order) -> None:
    async with perdure.saga() as undo:
        undo(charge)  # E
        undo(charge, 1)  # E
        undo(print, "x")  # E
    perdure.patched(1)  # E
    await perdure.close_stream(5)  # E
    perdure.read_stream("id", "s", offset="last")  # E


@step(compensate="refund")  # E
async def badly_undone() -> None: ...


@dataclass
class Account(perdure.Entity):
    balance: int = 0

    @perdure.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


async def with_objects() -> None:
    await Account.deposit("a")  # E
    await Account.deposit("a", "much")  # E
    await Account.deposit(5, 5)  # E
    await Account.deposit.options(key="x")("a", 5)  # E
    await Account(1).deposit(1)  # E
    wrong: str = await Account.deposit("a", 5)  # E
    print(wrong)
    await Account.when("a", lambda account: account.nothing)  # E


def with_objects_blocking() -> None:
    perdure.sync.call(Account.deposit, "a", "much")  # E
    other: str = perdure.sync.call(Account.deposit, "a", 5)  # E
    print(other)
    perdure.sync.get(Order, "a")  # E


async def with_operations(app: Perdure) -> None:
    await app.runs.cancel(statuss="failed")  # E
    await app.runs.cancel("a", reason=5)  # E
    await app.runs.resume("a", version=5)  # E
    await app.runs.set_timeout("a")  # E
    await app.runs.fork("a", from_stepp="1")  # E
    several: perdure.Handle[object] = await app.runs.fork(["a", "b"])  # E
    print(several)
    await app.start_many([report.bind(5)])  # E
    Account.deposit.tell("a", "much")  # E


perdure.scheduled(5)(report)  # E
perdure.scheduled("0 2 * * *", overlap="never")(report)  # E
perdure.scheduled("0 2 * * *", time_zone="UTC")(report)  # E
perdure.scheduled("0 2 * * *")(parse)  # E


async def with_schedules(app: Perdure) -> None:
    await app.schedules.apply([perdure.Schedule(report, "0 2 * * *")])  # E
    await app.schedules.trigger("nightly", overlap="sometimes")  # E
    await app.schedules.update("nightly", crown="0 2 * * *")  # E
    perdure.Schedule(charge, "0 2 * * *")  # E
