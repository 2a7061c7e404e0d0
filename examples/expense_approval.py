"""A person has to say yes: the run waits for a message, reminds, and in the end decides by itself.

Shows `perdure.receive` with a time limit. The limit is durable, so it could be days: meanwhile the run is only rows
in Postgres, and any worker goes on with it when the message or the time has come. `Topic` gives the message a type,
which both sides check.

Run: `python examples/expense_approval.py`
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import perdure
from perdure import Perdure, Topic, step, workflow


@dataclass
class Expense:
    """What somebody wants to be paid back."""

    employee: str
    what: str
    amount: Decimal


@dataclass
class Decision:
    """What a person, or the clock, has decided."""

    approved: bool
    by: str
    comment: str = ""


decisions = Topic("decision", Decision)


@workflow
async def approval(expense: Expense, remind_after: timedelta, reject_after: timedelta) -> Decision:
    """Ask for a decision; remind once, then reject."""
    await notify("manager", f"{expense.employee} asks for {expense.amount} for {expense.what}")
    decision = await perdure.receive(decisions, timeout=remind_after, default=None)
    if decision is None:
        await notify("manager", f"{expense.employee} still waits for an answer")
        await perdure.set_event("reminded", perdure.now())
        decision = await perdure.receive(decisions, timeout=reject_after, default=None)
    if decision is None:
        decision = Decision(approved=False, by="the clock", comment="nobody answered in time")
    answer = "approved" if decision.approved else "rejected"
    await notify(expense.employee, f"{expense.what} is {answer} by {decision.by}: {decision.comment}")
    return decision


@step
async def notify(person: str, text: str) -> None:
    """Write to somebody: here it is only printed."""
    print(f"to {person}: {text}", flush=True)


async def main() -> None:
    """Hand in three expenses: one is decided at once, one after the reminder, one by nobody."""
    soon, days = timedelta(seconds=0.5), timedelta(days=2)
    async with Perdure(grace=0):
        ticket = await approval.start(Expense("ada", "a train ticket", Decimal("49.90")), days, days)
        await ticket.send(decisions, Decision(approved=True, by="grace", comment="have a good trip"))
        decided = await ticket.result()
        assert decided.approved

        chair = await approval.start(Expense("bob", "a chair", Decimal(310)), soon, days)
        await chair.get_event("reminded")
        await chair.send(decisions, Decision(approved=False, by="grace", comment="take one from the cellar"))
        decided = await chair.result()
        assert not decided.approved
        assert decided.by == "grace"

        lunch = await approval.start(Expense("carol", "a lunch", Decimal(180)), soon, soon)
        decided = await lunch.result()
        assert decided == Decision(approved=False, by="the clock", comment="nobody answered in time")
    print("three expenses, three decisions")


if __name__ == "__main__":
    asyncio.run(main())
