"""Payloads: what goes in comes out as itself, on the first run as on a replay; what cannot is refused at once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import perdure
from perdure import Perdure, SerializationError, step, workflow
from tests.api_tools import on_loop, rows, until_true

seen: list[object] = []
bodies: list[str] = []
entered = threading.Event()
door = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()
    bodies.clear()
    entered.clear()
    door.clear()


class Colour(Enum):
    RED = "red"


@dataclass
class Line:
    sku: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass
class Order:
    id: UUID
    lines: list[Line]
    colour: Colour
    at: datetime
    day: date
    wait: timedelta
    raw: bytes
    pair: tuple[int, str]
    note: str | None = None


ORDER = Order(
    UUID(int=7), [Line("a", Decimal("1.10"), {"x", "y"})], Colour.RED, datetime(2024, 2, 29, 12, tzinfo=UTC),
    date(2024, 2, 29), timedelta(seconds=1.5), b"\x00\xff", (1, "one"),
)  # fmt: skip


@step
async def reprice(order: Order, factor: Decimal) -> Order:
    order.lines[0].price *= factor
    return order


@step
def wait_for_door() -> None:
    entered.set()
    door.wait(30)


@step
async def keep(value: list[int]) -> list[int]:
    kept.append(value)
    return value


@step
async def returns(what: str) -> float:
    bodies.append(what)
    return {"nan": float("nan"), "infinity": float("inf"), "number": 1.5}[what]


@step
async def returns_unannotated(what: str):  # type: ignore[no-untyped-def]
    bodies.append(what)
    return {
        "datetime": ORDER.at,
        "tuple": (1, 2),
        "set": {1},
        "object": object(),
        "lambda": len,
        "list": [1],
    }[what]


kept: list[list[int]] = []


@workflow
async def process(order: Order, factor: Decimal = Decimal(2)) -> Order:
    return await reprice(order, factor)


@workflow
async def mutates(numbers: list[int]) -> list[int]:
    numbers.append(1)
    result = await keep(numbers)
    result.append(2)
    again = await keep(result)
    seen.append((list(numbers), list(result), list(again), again is result))
    await perdure.run_step(wait_for_door)
    return again


@workflow
async def takes(value: float) -> float:
    return value


@workflow
async def takes_anything(value: Any) -> Any:
    return value


@workflow
async def refuses(what: str) -> str:
    try:
        await returns(what)
    except SerializationError as error:
        return f"refused: {error}"
    return "went through"


@workflow
async def refuses_unannotated(what: str) -> str:
    try:
        await returns_unannotated(what)
    except SerializationError as error:
        return f"refused: {error}"
    return "went through"


@workflow
async def returns_nan() -> float:
    return float("nan")


@workflow
async def text(value: str) -> str:
    return value


@on_loop
async def test_typed_values_come_back_as_themselves(database_url: str) -> None:
    """Dataclasses with decimals, sets, enums, dates, bytes and tuples go through start, step and result."""
    async with Perdure(database_url):
        result = await process(ORDER)
    assert result.lines == [Line("a", Decimal("2.20"), {"x", "y"})]
    assert ORDER.lines[0].price == Decimal("1.10")
    result.lines = ORDER.lines
    assert result == ORDER


@on_loop
async def test_code_sees_decoded_copies(database_url: str) -> None:
    """A result is a copy of the record, from the first run on: changing what was passed or returned changes nothing."""
    async with Perdure(database_url, grace=0):
        await mutates.options(id="moved").start([0])
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
    async with Perdure(database_url):
        door.set()
        assert await mutates.handle("moved").result(timeout=20) == [0, 1, 2]
    first, second = seen
    assert first == second == ([0, 1], [0, 1, 2], [0, 1, 2], False)


@on_loop
async def test_the_caller_keeps_its_own_list(database_url: str) -> None:
    """What a workflow does to its arguments does not reach the caller's objects, though it runs in the same process."""
    mine = [0]
    door.set()
    async with Perdure(database_url):
        result = await mutates(mine)
    assert mine == [0]
    assert result == [0, 1, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "text", object(), [1.0]])
def test_wrong_arguments_are_refused_in_the_caller(value: Any, database_url: str) -> None:
    """An argument that its annotation cannot carry is a SerializationError at the call; no run is born."""

    async def main() -> int:
        async with Perdure(database_url) as app:
            with pytest.raises(SerializationError, match="value"):
                await takes(value)
            with pytest.raises(SerializationError, match="value"):
                await takes.start(value)
            return await app.runs.count()

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("value", [ORDER.at, (1, 2), {1}, object(), {1: 2}, float("nan"), Decimal(1), b"x"])
def test_without_an_annotation_only_json_goes(value: Any, database_url: str) -> None:
    """What JSON cannot carry without an annotation is refused in the caller, saying what to annotate."""

    async def main() -> None:
        async with Perdure(database_url) as app:
            with pytest.raises(SerializationError):
                await takes_anything(value)
            with pytest.raises(SerializationError):
                await app.start("unknown here", [value])

    asyncio.run(main())


@pytest.mark.parametrize("what", ["nan", "infinity"])
def test_a_result_that_cannot_be_written_is_the_steps_error(what: str, database_url: str) -> None:
    """The body has run; the workflow gets SerializationError, which is recorded, and may go on."""

    async def main() -> None:
        async with Perdure(database_url):
            handle = await refuses.start(what)
            assert "refused" in await handle.result(timeout=20)
            [told] = await handle.steps()
            assert told.failed

    asyncio.run(main())
    assert bodies == [what]


@pytest.mark.parametrize("what", ["datetime", "tuple", "set", "object", "lambda"])
def test_an_unannotated_result_that_would_change_is_refused(what: str, database_url: str) -> None:
    """A value that would come back from a replay as something else is an error at the first call already."""

    async def main() -> str:
        async with Perdure(database_url):
            assert await refuses_unannotated("list") == "went through"
            return await refuses_unannotated(what)

    assert "annotat" in asyncio.run(main())


@on_loop
async def test_a_workflows_result_that_cannot_be_written_fails_it(database_url: str) -> None:
    """The run ends failed with SerializationError; it does not hang or loop."""
    async with Perdure(database_url):
        with pytest.raises(SerializationError, match="nan"):
            await returns_nan()


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "emoji 🎺 and \u2028"])
def test_strange_text_is_refused_or_comes_back(value: str, database_url: str) -> None:
    """Text with NUL or a lone surrogate is refused in the caller; any other text comes back as it was."""

    async def main() -> None:
        async with Perdure(database_url):
            try:
                assert await text(value) == value
            except SerializationError:
                assert value in ("a\0b", "\ud800")
            assert await text("next") == "next"

    asyncio.run(main())


@on_loop
async def test_a_megabyte_goes_through(database_url: str) -> None:
    """Large texts are payloads like others."""
    async with Perdure(database_url):
        assert await text("x" * 1_000_000) == "x" * 1_000_000


@on_loop
async def test_payloads_are_json_that_psql_reads(database_url: str) -> None:
    """Inputs, results and steps are plain JSON in the tables."""
    async with Perdure(database_url):
        await process(ORDER)
    statement = """select convert_from(value, 'UTF8')::json #>> '{lines,0,price}' from perdure.steps"""
    assert await asyncio.to_thread(rows, database_url, statement) == [("2.20",)]
