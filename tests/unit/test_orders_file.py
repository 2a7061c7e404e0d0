"""The reader of the demo's orders: both forms of the file, and the sample as it was published."""

from __future__ import annotations

import importlib.util
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

ORDERS = Path(__file__).resolve().parents[2] / "examples" / "orders"


def load() -> ModuleType:
    """Load the example's module, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("examples_orders_file", ORDERS / "orders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


example = load()


def written(folder: Path, text: str) -> Path:
    """Return a file with this text, with the line ends that it has."""
    file = folder / "orders.txt"
    file.write_bytes(text.encode())
    return file


def test_the_sample_comes_to_what_was_published() -> None:
    """The sample has 6,919 orders of 16,479 CDs for 244,091.94 US dollars, to the cent."""
    orders = example.read_orders(example.SAMPLE)
    assert example.totals(orders) == example.SAMPLE_TOTALS == (6_919, 16_479, Decimal("244091.94"))
    assert len({order.customer for order in orders}) == 2_357


def test_equal_lines_are_different_orders() -> None:
    """Nineteen lines occur more than once, and each time they are another order."""
    orders = example.read_orders(example.SAMPLE)
    facts = [(order.customer, order.day, order.cds, order.amount) for order in orders]
    assert len({fact for fact in facts if facts.count(fact) > 1}) == 19
    assert [order.number for order in orders] == list(range(1, 6_920))


def test_orders_that_cost_nothing_are_orders() -> None:
    """Eight orders of the sample cost 0.00."""
    assert [order.amount for order in example.read_orders(example.SAMPLE)].count(Decimal("0.00")) == 8


def test_the_form_of_the_sample_is_read(tmp_path: Path) -> None:
    """Five columns: customer, number in the sample, day, CDs, dollars."""
    file = written(tmp_path, " 00004 0001 19970101  2   29.33\r\n 00021 0002 19970113  1   11.77\r\n")
    assert example.read_orders(file) == [
        example.Order(1, 4, date(1997, 1, 1), 2, Decimal("29.33")),
        example.Order(2, 21, date(1997, 1, 13), 1, Decimal("11.77")),
    ]


def test_the_form_of_the_full_set_is_read(tmp_path: Path) -> None:
    """A header line, then four columns; a number is still that of the line, the header counted."""
    file = written(
        tmp_path,
        "customer_id     date   number_of_cds   dollar_value\n"
        " 00001 19970101  1   11.77\n"
        " 00002 19970112  5   77.00\n",
    )
    assert example.read_orders(file) == [
        example.Order(2, 1, date(1997, 1, 1), 1, Decimal("11.77")),
        example.Order(3, 2, date(1997, 1, 12), 5, Decimal("77.00")),
    ]


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    """The sample without its second column, below a header, is read as the same orders."""
    lines = example.SAMPLE.read_text().splitlines()
    full = ["ID DATE CDS DOLLARS"] + [" ".join((words := line.split())[:1] + words[2:]) for line in lines]
    sample = example.read_orders(example.SAMPLE)
    read = example.read_orders(written(tmp_path, "\n".join(full)))
    assert [(o.number - 1, o.customer, o.day, o.cds, o.amount) for o in read] == [
        (o.number, o.customer, o.day, o.cds, o.amount) for o in sample
    ]


def test_only_the_first_are_read() -> None:
    """A limit stops after so many orders of the file."""
    assert example.read_orders(example.SAMPLE, 3) == example.read_orders(example.SAMPLE)[:3]


@pytest.mark.parametrize(
    "line",
    [
        "00021 0002 19970113  1",
        "00021 19970113  1 11.77",
        "00021 0002 19971313  1 11.77",
        "00021 0002 19970113  one 11.77",
        "00021 0002 19970113  1 eleven",
        "00021 0002 19970113  1 NaN",
        "customer sample date cds dollars",
        "00021 0002 19970113  1 11.77 and more",
    ],
    ids=[
        "a column short",
        "the other form",
        "no day",
        "no number",
        "no amount",
        "no amount of money",
        "a late header",
        "a long line",
    ],
)
def test_a_line_that_is_no_order_is_named(tmp_path: Path, line: str) -> None:
    """What cannot be read stops the reading with the number and the text of the line."""
    file = written(tmp_path, f" 00004 0001 19970101  2   29.33\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 is no order") as raised:
        example.read_orders(file)
    assert line in str(raised.value)


def test_the_month_is_the_first_of_its_days() -> None:
    """An order's month is named by its first day, which the books are closed by."""
    assert example.Order(1, 4, date(1997, 1, 31), 2, Decimal(0)).month == date(1997, 1, 1)
