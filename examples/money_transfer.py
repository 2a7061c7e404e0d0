"""Money goes from one account to another, and comes back if the second half fails.

Shows `@transaction`, which happens exactly once, and `perdure.saga`, which undoes a block that was left by an
error. Each half of a transfer commits by itself, with a check in between that may take long: between the two the
money is under way, and only the record of the run knows it. Kill the program while it checks, and run it again:
nothing is withdrawn twice, nothing is lost.

Run: `python examples/money_transfer.py`
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal

import perdure
from perdure import AsyncConnection, Perdure, step, transaction, workflow


class Refused(Exception):
    """An account does not allow what was asked of it."""


@dataclass
class Transfer:
    """So much money, from one account to another."""

    source: str
    target: str
    amount: Decimal


@workflow
async def transfer(order: Transfer) -> str:
    """Carry out a transfer; returns what is said to the customer."""
    async with perdure.saga() as undo:
        await withdraw(order.source, order.amount)
        undo(put_back, order.source, order.amount)
        await check(order)
        await deposit(order.target, order.amount)
    return f"{order.amount} went from {order.source} to {order.target}"


@transaction
async def withdraw(conn: AsyncConnection, account: str, amount: Decimal) -> None:
    """Take money off an account that has enough of it."""
    print(f"withdraw {amount} from {account}", flush=True)
    await change_balance(conn, account, -amount)


@transaction
async def deposit(conn: AsyncConnection, account: str, amount: Decimal) -> None:
    """Add money to an account that is open."""
    print(f"deposit {amount} to {account}", flush=True)
    await change_balance(conn, account, amount)


@transaction
async def put_back(conn: AsyncConnection, account: str, amount: Decimal) -> None:
    """Undo a withdrawal."""
    print(f"put {amount} back to {account}", flush=True)
    await change_balance(conn, account, amount)


@step
async def check(order: Transfer) -> None:
    """Ask whether the transfer is lawful; a second time does no harm."""
    print(f"check the transfer of {order.amount} to {order.target} ...", flush=True)
    await asyncio.sleep(1)  # stands for the call of another service


async def change_balance(conn: AsyncConnection, account: str, amount: Decimal) -> None:
    """Change the balance of an account, or refuse."""
    changed = await conn.execute(
        "update accounts set balance = balance + %(amount)s "
        "where name = %(account)s and open and balance + %(amount)s >= 0",
        {"account": account, "amount": amount},
    )
    if changed.rowcount == 0:
        raise Refused(f"account {account} is closed, or has too little money")


@transaction
async def open_accounts(conn: AsyncConnection) -> None:
    """Make the table and three accounts, if they are not there yet."""
    await conn.execute(
        "create table if not exists accounts (name text primary key, balance numeric not null, open boolean not null)"
    )
    await conn.execute(
        "insert into accounts values ('ada', 100, true), ('bob', 20, true), ('carol', 0, false) on conflict do nothing"
    )


@transaction
async def balances(conn: AsyncConnection) -> dict[str, Decimal]:
    """Return what everybody has."""
    rows = await conn.execute("select name, balance from accounts")
    return {name: balance async for name, balance in rows}


async def main() -> None:
    """Make two transfers, of which one fails half-way."""
    async with Perdure(lease=2, grace=0):  # a short lease, so that a killed program is soon replaced
        await open_accounts()
        print(await transfer.options(id="rent")(Transfer("ada", "bob", Decimal(30))))
        try:
            await transfer.options(id="gift")(Transfer("ada", "carol", Decimal(50)))
        except Refused as refused:
            print(f"refused: {refused}")
        left = await balances()
    print(", ".join(f"{name} has {balance}" for name, balance in sorted(left.items())))
    assert left == {"ada": 70, "bob": 50, "carol": 0}


if __name__ == "__main__":
    asyncio.run(main())
