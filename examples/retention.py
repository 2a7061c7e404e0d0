"""A year of history, kept as short as the rules say: prices for an hour, orders for a month, failures for a quarter.

Run it again whenever you like; nobody waits a year for it, because its clock is a `testing.Clock`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from perdure import DoNotRetry, PerdureError, Retention, step, workflow
from perdure.sync import Handle, Perdure
from perdure.testing import Clock

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
KEEP = Retention(
    succeeded=timedelta(days=30),
    failed=timedelta(days=90),
    workflows={"retention.poll_prices": timedelta(hours=1), "retention.invoice": None},
)


@step
def carry(parcel: int) -> None:
    """Bring a parcel; nobody carries number 13."""
    if parcel == 13:
        raise DoNotRetry("nobody carries that")


@workflow
def parcel(number: int) -> None:
    """Is part of an order, and goes together with it."""
    carry(number)


@workflow
def order(number: int) -> None:
    """An order with one parcel, which is a run that it starts."""
    parcel.start(number).result()


@workflow
def invoice(number: int) -> str:
    """Must never be deleted: the tax office may ask for it."""
    return f"invoice {number}"


@workflow
def poll_prices() -> int:
    """Comes all the time, and interests nobody an hour later."""
    return 4711


def history(app: Perdure) -> dict[str, int]:
    """How many runs of each workflow there are."""
    runs = app.runs.list(limit=1000)
    return dict(sorted(Counter(run.workflow.removeprefix("retention.") for run in runs).items()))


def main() -> None:
    """Let a year pass."""
    # A schema of its own, since its clock is not everybody's.
    with Perdure(schema="retention", grace=0) as app, Clock(app.database.url, app.schema) as clock:
        app.runs.delete(status=["succeeded", "failed"])  # what an earlier try left
        clock.set(NEW_YEAR)
        handles: list[Handle[object]] = []
        for number in range(10, 15):
            handles += [order.start(number), invoice.start(number)]
        handles += [poll_prices.start() for _ in range(100)]
        for handle in handles:
            with suppress(PerdureError):
                handle.result(timeout=60)
        print(f"on the first day: {history(app)}")

        clock.advance(timedelta(days=1))
        would = app.runs.prune(KEEP, dry_run=True)
        print(f"on the second {would.runs} runs would go, all of them {', '.join(would.workflows)}")
        left = []
        for days in (1, 31, 91, 366):
            clock.set(NEW_YEAR + timedelta(days=days))
            gone = app.runs.prune(KEEP)
            left.append(history(app))
            print(f"after {days} days {gone.runs} went: {left[-1]}")
    assert left == [
        {"order": 5, "parcel": 5, "invoice": 5},
        {"order": 1, "parcel": 1, "invoice": 5},
        {"invoice": 5},
        {"invoice": 5},
    ]


if __name__ == "__main__":
    main()
