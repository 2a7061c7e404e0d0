"""An order is reserved, paid and shipped, or none of it: the saga of `money_transfer.py`, in blocking code.

Shows `perdure.sync`, a `def` workflow, and a saga with steps of different kinds: transactions in the program's own
tables and calls of others. What was done is undone newest first, whether the block was left by an error or because the
run was cancelled.

Run: `python examples/order_saga_blocking.py`
"""

from dataclasses import dataclass

import perdure
from perdure import Connection, Retry, WorkflowCancelled, step, transaction, workflow
from perdure.sync import Perdure, saga, set_event, sleep


class NotPossible(Exception):
    """The order cannot be fulfilled."""


@dataclass
class Order:
    """So many of one thing, for somebody somewhere."""

    id: str
    thing: str
    quantity: int
    country: str


@workflow
def fulfil(order: Order, handling: float) -> str:
    """Fulfil an order, or undo what was done for it; returns the number of the parcel."""
    with saga() as undo:
        reserve(order.thing, order.quantity)
        undo(release, order.thing, order.quantity)
        payment = charge(order)
        undo(refund, payment)
        set_event("packing", order.id)
        sleep(handling)
        return ship(order)


@transaction
def reserve(conn: Connection, thing: str, quantity: int) -> None:
    """Take things out of the stock."""
    print(f"  reserve {quantity} of {thing}", flush=True)
    changed = conn.execute(
        "update saga_stock set quantity = quantity - %(quantity)s where thing = %(thing)s and quantity >= %(quantity)s",
        {"thing": thing, "quantity": quantity},
    )
    if changed.rowcount == 0:
        raise NotPossible(f"there are no {quantity} of {thing}")


@transaction
def release(conn: Connection, thing: str, quantity: int) -> None:
    """Put things back into the stock."""
    print(f"  release {quantity} of {thing}", flush=True)
    conn.execute("update saga_stock set quantity = quantity + %s where thing = %s", (quantity, thing))


@step(retry=Retry(max_attempts=5, delay=0.1))
def charge(order: Order) -> str:
    """Have a provider charge the customer; the key makes it one payment, however often it is tried."""
    print(f"  charge for {order.id}", flush=True)
    return f"payment-{perdure.info().idempotency_key}"


@step(retry=Retry(max_attempts=100, delay=0.1))
def refund(payment: str) -> None:
    """Have the provider pay it back."""
    print(f"  refund {payment.partition('-')[0]}", flush=True)


@step
def ship(order: Order) -> str:
    """Hand a parcel to the carrier."""
    if order.country == "Atlantis":
        raise NotPossible(f"no carrier goes to {order.country}")
    print(f"  ship {order.id} to {order.country}", flush=True)
    return f"parcel-{order.id}"


@transaction
def fill_stock(conn: Connection) -> None:
    """Begin with ten of everything there is."""
    conn.execute("create table if not exists saga_stock (thing text primary key, quantity integer not null)")
    conn.execute("truncate saga_stock")
    conn.execute("insert into saga_stock values ('globe', 10)")


@transaction
def stock(conn: Connection) -> int:
    """Return how many globes are left."""
    row = conn.execute("select quantity from saga_stock").fetchone()
    assert row
    return int(row[0])


def main() -> None:
    """Place an order that works, one that fails at the end, and one that is cancelled."""
    with Perdure(grace=0):
        fill_stock()

        print("an order")
        print(f"  done: {fulfil(Order('one', 'globe', 2, 'Portugal'), 0)}")

        print("an order that cannot be shipped")
        try:
            fulfil(Order("two", "globe", 3, "Atlantis"), 0)
        except NotPossible as error:
            print(f"  failed: {error}")

        print("an order that is cancelled while it is packed")
        handle = fulfil.start(Order("three", "globe", 4, "Norway"), 3600)
        print(f"  packing {handle.get_event('packing', type=str, timeout=20)}")
        handle.cancel()
        try:
            handle.result(timeout=20)
        except WorkflowCancelled:
            print("  cancelled")

        left = stock()
    print(f"{left} globes are left")
    assert left == 8


if __name__ == "__main__":
    main()
