"""The shop's front: starts a workflow for each order, day by day, and then leaves.

It runs nothing itself. Whoever runs it again, or twice at a time, starts nothing twice: the number of the
order is the id of its run. Run: `python client.py FILE [LIMIT]`.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import groupby
from pathlib import Path

import shop
from orders import Order, read_orders

from perdure import Perdure

AT_ONCE = 200


async def enqueue(orders: list[Order]) -> None:
    """Start every order, and the close of each month after its last order."""
    for month, orders_of_month in groupby(
        sorted(orders, key=lambda order: order.day), lambda order: order.month
    ):
        batch = list(orders_of_month)
        for first in range(0, len(batch), AT_ONCE):
            await asyncio.gather(*map(start, batch[first : first + AT_ONCE]))
        await shop.close_month.options(id=f"close-{month:%Y-%m}").start(month)


async def start(order: Order) -> None:
    """Start one order; it is durable when this returns."""
    await shop.sell.options(id=f"order-{order.number}").start(order)


async def main() -> None:
    """Read the file and enqueue it."""
    orders = read_orders(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
    async with Perdure(name="client", worker=False):
        await enqueue(orders)


if __name__ == "__main__":
    asyncio.run(main())
