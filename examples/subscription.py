"""A subscription is billed every month, for years, until the customer cancels; here the years pass in a second.

Shows `race` between a message and a date, and `continue_as_new`, which ends a year and begins the next one with an
empty record, so that the run can go on for ever. `perdure.testing.Clock` owns the time: it passes when the program
says so. The same code bills real customers by the real clock.

Run: `python examples/subscription.py`
"""

import queue
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from perdure import RunFilter, Topic, step, workflow
from perdure.sync import Handle, Perdure, continue_as_new, race, receive, sleep_until
from perdure.testing import Clock


@dataclass
class Subscription:
    """Who pays what, and the year that is being billed."""

    customer: str
    price: Decimal
    year: int
    invoices: int = 0


cancellation = Topic("cancellation", str)


@workflow
def subscription(plan: Subscription) -> str:
    """Bill one year, month by month, and go on with the next; returns how it ended."""
    for month in range(1, 13):
        due = datetime(plan.year, month, 1, tzinfo=UTC)
        reason = cancelled_before(due)
        if reason is not None:
            return f"{plan.customer} cancelled after {plan.invoices} invoices: {reason}"
        plan.invoices += 1
        bill(plan, due)
    return continue_as_new(replace(plan, year=plan.year + 1))


def cancelled_before(due: datetime) -> str | None:
    """Wait for a cancellation until a date; returns its reason, or None if there was none."""
    first, reason = race(lambda: receive(cancellation), lambda: sleep_until(due))
    return reason if first == 0 else None


@step
def bill(plan: Subscription, month: datetime) -> None:
    """Send an invoice; a real one would carry `perdure.info().idempotency_key`."""
    mailbox.put(f"{month:%B %Y}: invoice {plan.invoices} for {plan.customer}, {plan.price}")


mailbox: "queue.Queue[str]" = queue.Queue()  # stands for the customer's


def main() -> None:
    """Let a year and a quarter pass."""
    # A schema of its own, since its clock is not everybody's.
    with Perdure(schema="subscription", grace=0) as app, Clock(app.database.url, app.schema) as clock:
        app.runs.cancel(RunFilter(workflow="subscription.subscription"))  # what an interrupted try left
        clock.set(datetime(2029, 12, 24, tzinfo=UTC))
        last = ""
        handle = subscription.start(Subscription("ada", Decimal("9.90"), year=2030))

        for year, month, invoices in [(2030, 1, 1), (2030, 2, 1), (2031, 3, 13)]:
            until_it_waits(handle)
            print(f"it is {year}-{month:02}-01")
            clock.set(datetime(year, month, 1, tzinfo=UTC))
            for _ in range(invoices):
                last = mailbox.get(timeout=20)
                print(f"  {last}")

        handle.send(cancellation, "I have read everything")
        end = handle.result(timeout=20)
        entries = len(handle.steps())
    print(f"{end} ({entries} entries of the second year in the record)")
    assert last == "March 2031: invoice 15 for ada, 9.90"
    assert end == "ada cancelled after 15 invoices: I have read everything"
    assert mailbox.empty()


def until_it_waits(handle: Handle[str]) -> None:
    """Return when the run has left memory: then it is woken by Postgres's clock, which is ours here."""
    while handle.status() != "waiting":
        time.sleep(0.02)


if __name__ == "__main__":
    main()
