"""Reads the orders of a file: what is to be done, and what the proof compares with.

An order is a line of the file, and its number is the number of that line. Nothing else could be its number:
nineteen lines of the sample occur twice or three times, and all of them are real orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

SAMPLE = Path(__file__).with_name("cdnow_sample.txt")
SAMPLE_TOTALS = (6_919, 16_479, Decimal("244091.94"))
"""Orders, CDs and US dollars of the sample, as those who published it say."""


@dataclass(frozen=True)
class Order:
    """One purchase: so many CDs for so many US dollars; some cost nothing."""

    number: int
    customer: int
    day: date
    cds: int
    amount: Decimal

    @property
    def month(self) -> date:
        """The first day of the order's month."""
        return self.day.replace(day=1)


def read_orders(path: Path, limit: int | None = None) -> list[Order]:
    """Read the orders of a file, in the order of its lines.

    Args:
        path: a file in the form of the sample (customer, number in the sample, day, CDs, dollars), or in the
            form of the full set (a header line, then customer, day, CDs, dollars).
        limit: stop after so many orders; all by default.

    Raises:
        ValueError: a line is no order; the text says which.
    """
    orders: list[Order] = []
    fields = 0
    for number, line in enumerate(path.read_text("ascii").splitlines(), 1):
        words = line.split()
        if not words or (number == 1 and not words[0].isdigit()):  # an empty line, or the header
            continue
        fields = fields or len(words)
        try:
            if len(words) != fields:
                raise ValueError("another number of columns than before")
            orders.append(_order(number, words))
        except (ValueError, InvalidOperation) as error:
            raise ValueError(f"{path}, line {number} is no order: {line.strip()!r} ({error})") from error
        if len(orders) == limit:
            break
    return orders


def totals(orders: list[Order]) -> tuple[int, int, Decimal]:
    """Return the number of orders, of CDs, and the US dollars."""
    return (
        len(orders),
        sum(order.cds for order in orders),
        sum((order.amount for order in orders), Decimal(0)),
    )


def _order(number: int, words: list[str]) -> Order:
    match words:
        case [customer, _, day, cds, dollars] | [customer, day, cds, dollars]:
            amount = Decimal(dollars)
        case _:
            raise ValueError("4 or 5 columns are expected")
    if not amount.is_finite():
        raise ValueError("no amount of money")
    return Order(number, int(customer), date.fromisoformat(day), int(cds), amount)
