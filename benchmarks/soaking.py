"""What `soak.py` has its workers do: a mixture of all that makes rows, for as long as it takes.

Run as a program it is one of the workers: `python -m benchmarks.soaking URL`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Final

import perdure
from benchmarks.protocol import wait_for_parent
from perdure import AsyncConnection, Perdure, Queue, Retention, scheduled, step, transaction, workflow

TABLE: Final = "create table orders (number bigint primary key, worker integer not null)"
QUEUE: Final = "soak"
LIMITED: Final = Queue("limited", concurrency=50, key_concurrency=10)
KEPT_SECONDS: Final = 60.0
"""Ended runs are deleted after so long, so that deleting is part of the load, and the tables could stay small."""


@step
async def priced(number: int) -> int:
    """Stands for a call of a service."""
    return number * 100


@transaction
async def record(connection: AsyncConnection, number: int) -> None:
    """Write an order down, exactly once: a second time would fail."""
    await connection.execute("insert into orders (number, worker) values (%s, pg_backend_pid())", (number,))


@workflow
async def order(number: int) -> int:
    """The plain one, six of ten: a step and a transaction step."""
    price = await priced(number)
    await record(number)
    return price


@workflow
async def nap(number: int) -> int:
    """Is put away for two seconds: one of ten."""
    price = await priced(number)
    await perdure.sleep(2)
    await record(number)
    return price


@workflow
async def listen(number: int) -> str:
    """Waits for a message: one of ten."""
    await record(number)
    return await perdure.receive("news", type=str, timeout=60, default="none")


@workflow
async def parcel(number: int) -> int:
    """The child of a `family`."""
    return await priced(number)


@workflow
async def family(number: int) -> int:
    """Has a child on the queue: one of ten."""
    handle = await parcel.options(queue=QUEUE).start(number)
    price = await handle.result()
    await record(number)
    return price


@workflow
async def hurried(number: int) -> int:
    """Has a deadline that it keeps, an event, and a queue with limits: one of ten."""
    await perdure.set_event("state", "begun")
    await record(number)
    return number


@scheduled(every=1, name="soak.tick", overlap="allow")
@workflow(name="soak.tick")
async def tick() -> None:
    """Comes every second."""
    await priced(0)


def app(url: str, *, worker: bool = True) -> Perdure:
    """The app of one process."""
    return Perdure(
        url,
        worker=worker,
        queues=[LIMITED],
        listen=["default", QUEUE, LIMITED.name],
        lease=5,
        retention=Retention(succeeded=KEPT_SECONDS),
    )


async def serve(url: str) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app(url):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    wait_for_parent()
    asyncio.run(serve(sys.argv[1]))
