"""Methods of classes as workflows and steps: an instance is found again, on any worker, by the name the app gives it."""

from __future__ import annotations

import pytest

import perdure
from perdure import AsyncConnection, DefinitionError, Perdure, WorkflowParked, step, transaction, workflow
from tests.api_tools import on_loop

undone: list[tuple[str, str, int]] = []


class Shop:
    """A shop of one region, whose methods are durable."""

    def __init__(self, region: str) -> None:
        self.region = region

    def unbook(self, result: str, number: int) -> None:
        undone.append((self.region, result, number))

    @step(compensate=unbook)
    async def book(self, number: int) -> str:
        return f"{self.region} {number}"

    @transaction
    async def double(self, conn: AsyncConnection, number: int) -> int:
        row = await (await conn.execute("select %s::integer * 2", (number,))).fetchone()
        assert row is not None
        return int(row[0])

    @staticmethod
    @step
    async def negative(number: int) -> int:
        return -number

    @workflow
    async def checkout(self, number: int) -> list[object]:
        """Call a method of each kind, and fail for thirteen."""
        seen = [await self.book(number), await self.double(number), await Shop.negative(number)]
        if number == 13:
            raise LookupError("unlucky")
        return seen

    @workflow
    @classmethod
    async def made_by(cls, number: int) -> str:
        return f"{cls.__name__} {number}"

    @workflow
    def blocking(self, number: int) -> str:
        return f"{self.region} {number}"


SHOPS = {"eu": Shop("eu"), "us": Shop("us")}


@on_loop
async def test_methods_run_on_their_own_instance(database_url: str) -> None:
    """Two instances of a class, called directly, by their handles, and from a queue."""
    async with Perdure(database_url, instances=SHOPS):
        assert await SHOPS["eu"].checkout(3) == ["eu 3", 6, -3]
        handle = await SHOPS["us"].checkout.options(queue="default").start(4)
        assert await handle.result(timeout=20) == ["us 4", 8, -4]
        assert await Shop.made_by(5) == "Shop 5"  # type: ignore[call-arg, arg-type]  # mypy does not see the class method
        assert await (await perdure.start(SHOPS["us"].blocking, 6)).result(timeout=20) == "us 6"


@on_loop
async def test_what_undoes_a_method_is_called_on_its_instance(database_url: str) -> None:
    """`compensate=` of a method is a method: with the instance, the result and the arguments."""
    undone.clear()
    async with Perdure(database_url, instances=SHOPS):
        with pytest.raises(LookupError):
            await SHOPS["us"].checkout(13)
    assert undone == [("us", "us 13", 13)]


@on_loop
async def test_a_missing_instance_loses_nothing(database_url: str) -> None:
    """A worker that has no such instance parks the run and says so; one that has it goes on."""
    async with Perdure(database_url, instances=SHOPS, worker=False):
        handle = await SHOPS["eu"].checkout.options(id="eu-1", queue="default").start(1)
    async with Perdure(database_url) as app:
        with pytest.raises(WorkflowParked, match=r"called 'eu', which is not given.*instances="):
            await app.handle(handle.id).result(timeout=20)
    async with Perdure(database_url, instances=SHOPS) as app:
        await app.runs.resume("eu-1")
        assert await app.handle("eu-1").result(timeout=20) == ["eu 1", 2, -1]


@on_loop
async def test_an_instance_without_a_name_is_refused_in_the_caller(database_url: str) -> None:
    """Nobody else could find it, so nothing is started; a method of no instance is a TypeError."""
    async with Perdure(database_url, instances=SHOPS) as app:
        with pytest.raises(DefinitionError, match="has no name by which another process could find it"):
            await Shop("nowhere").checkout(1)
        with pytest.raises(TypeError, match=r"Shop.checkout is a method: call it on an instance"):
            await Shop.checkout(1)  # type: ignore[call-arg, arg-type]
        assert await app.runs.count() == 0


def test_a_class_method_is_decorated_outside() -> None:
    """The other order cannot work, and says how to write it."""
    with pytest.raises(DefinitionError, match="write @step above @classmethod"):

        class Wrong:
            @classmethod
            @step
            async def method(cls) -> None: ...
