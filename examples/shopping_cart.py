"""A shopping cart is a durable object; its checkout is a workflow that takes the cart's goods exactly once.

Shows `Entity`, whose commands change an object one at a time for each key: a hundred clicks at once lose nothing. The
checkout empties the cart by a command, so what it took is its record: kill the program while it pays, run it again,
and it goes on with the same goods, although the cart is empty by then. A second checkout finds nothing to sell.

Run: `python examples/shopping_cart.py`
"""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

from perdure import Entity, Perdure, command, step, workflow

PRICES = {"record": Decimal("19.90"), "needle": Decimal("45.00"), "cloth": Decimal("4.50")}


class NotInCart(Exception):
    """There are not so many of it in the cart."""


class CartEmpty(Exception):
    """There is nothing to buy."""


@dataclass
class Cart(Entity, name="shop.cart"):
    """What a customer is about to buy: an ordinary dataclass, each kept in the database under its key."""

    items: dict[str, int] = field(default_factory=dict)
    orders: int = 0

    @property
    def total(self) -> Decimal:
        """What the goods cost; ordinary methods only read."""
        return sum((PRICES[sku] * count for sku, count in self.items.items()), Decimal(0))

    @command
    def add(self, sku: str, count: int = 1) -> int:
        """Put something in; return how many there are now."""
        self.items[sku] = self.items.get(sku, 0) + count
        return self.items[sku]

    @command
    def remove(self, sku: str, count: int = 1) -> None:
        """Take something out again; where it raises, the cart stays as it was."""
        if self.items.get(sku, 0) < count:
            raise NotInCart(f"there are only {self.items.get(sku, 0)} of {sku!r} in the cart")
        self.items[sku] -= count
        if not self.items[sku]:
            del self.items[sku]

    @command
    def empty(self) -> dict[str, int]:
        """Hand everything over to an order."""
        if not self.items:
            raise CartEmpty("there is nothing in the cart")
        taken, self.items = self.items, {}
        self.orders += 1
        return taken


@step
async def pay(customer: str, amount: Decimal) -> str:
    """Stands for a payment provider."""
    print(f"{customer} pays {amount} ...", flush=True)
    await asyncio.sleep(0.5)
    return f"payment of {amount}"


@workflow
async def checkout(customer: str) -> str:
    """Sell what is in the cart; returns the receipt."""
    goods = await Cart.empty(customer)  # exactly once, together with the record that says so
    total = sum((PRICES[sku] * count for sku, count in goods.items()), Decimal(0))
    payment = await pay(customer, total)
    return f"{sum(goods.values())} things, {payment}"


async def main() -> None:
    """Fill a cart by many hands, and check it out twice."""
    assert Cart({"cloth": 2}).total == Decimal("9.00")  # without a database it is a plain object
    async with Perdure(lease=2, grace=0):
        # An id says which click it was: given twice, also by a program that was killed in between, it counts once.
        await Cart.add.options(id="click-1")("anna", "needle")
        await Cart.add.options(id="click-1")("anna", "needle")
        await asyncio.gather(*(Cart.add.options(id=f"more-{n}")("anna", "record") for n in range(101)))
        await Cart.remove.options(id="click-2")("anna", "record")
        try:
            await Cart.remove("anna", "cloth")
        except NotInCart as error:
            print(f"refused: {error}")

        receipt = await checkout.options(id="checkout-1")("anna")
        print(f"first checkout: {receipt}")
        assert receipt == "101 things, payment of 2035.00"
        try:
            await checkout.options(id="checkout-2")("anna")
        except CartEmpty as error:
            print(f"second checkout: {error}")

        cart = await Cart.get("anna")
        print(f"the cart: {cart}; its last command was {(await Cart.history('anna', limit=1))[0].command}")
        assert cart == Cart(items={}, orders=1)
    print("every click counted once, and the goods were sold once")


if __name__ == "__main__":
    asyncio.run(main())
