"""What a first user gets wrong: each mistake gets an error at once that names it, and none hangs."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from typing import Any

import pytest

import perdure
from perdure import DefinitionError, Perdure, SerializationError, WrongColour, step, workflow
from tests.api_tools import on_loop


@step
async def charge(number: int) -> int:
    return number


@workflow
async def checkout(number: int) -> int:
    return await charge(number)


@workflow
async def forgets_to_await(number: int) -> int:
    charge(number)  # type: ignore[unused-coroutine]
    return number


@workflow
async def runs_what_is_no_step(which: str) -> str:
    no_steps: dict[str, Any] = {"function": len, "workflow": checkout, "none": None}
    try:
        await perdure.run_step(no_steps[which], 1)
    except TypeError as error:
        return str(error)
    return "went through"


@workflow
async def takes_anything(value: object) -> None: ...


@on_loop
async def test_a_wait_that_would_stop_its_own_run_is_refused(database_url: str) -> None:
    """Blocking on the app's own loop for a run that needs that loop raises WrongColour instead of hanging."""
    async with Perdure(database_url):
        with pytest.raises(WrongColour, match=r"to_thread[\s\S]*result\(timeout=2\)"):
            perdure.sync.start(checkout, 1).result(timeout=2)
        handle = await asyncio.to_thread(lambda: perdure.sync.start(checkout, 2))
        assert await asyncio.to_thread(handle.result, 20) == 2


@pytest.mark.parametrize("what", [None, charge, print, checkout.definition.function])
def test_starting_what_is_no_workflow_says_so(what: Any, database_url: str) -> None:
    """`start(...)` of a step, a plain function or nothing is a TypeError that says what it takes."""
    with perdure.sync.Perdure(database_url), pytest.raises(TypeError, match="workflow"):
        perdure.sync.start(what, 1)


@pytest.mark.parametrize("which", ["function", "workflow", "none"])
def test_running_what_is_no_step_says_so(which: str, database_url: str) -> None:
    """`run_step(...)` of anything else is a TypeError that says what it takes."""
    with perdure.sync.Perdure(database_url):
        assert "step" in perdure.sync.start(runs_what_is_no_step, which).result(timeout=20)


def test_a_forgotten_await_names_the_step(database_url: str) -> None:
    """Python's warning about a coroutine that nobody awaited has the name of the user's function."""
    with warnings.catch_warnings(record=True) as caught, perdure.sync.Perdure(database_url):
        warnings.simplefilter("always")
        assert perdure.sync.start(forgets_to_await, 1).result(timeout=20) == 1
        gc.collect()
    assert any("charge' was never awaited" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("value", [print, functools.partial(print), asyncio.Lock, object()])
def test_what_never_can_be_a_payload_gets_no_wrong_advice(value: object, database_url: str) -> None:
    """For a function or an open resource the error does not say that an annotation would help."""
    with perdure.sync.Perdure(database_url):
        with pytest.raises(SerializationError, match="value") as raised:
            perdure.sync.start(takes_anything, value)
        assert "comes back as one" not in str(raised.value)


@pytest.mark.parametrize("decorated", [len, functools.partial(print), object, 3])
def test_only_functions_are_decorated(decorated: Any) -> None:
    """A builtin, a partial, a class or a value is a DefinitionError that names the decorator."""
    for name, decorator in (("@step", step), ("@workflow", workflow)):
        with pytest.raises(DefinitionError, match=name):
            decorator(decorated)


def test_the_wrong_with_says_which_is_right(database_url: str) -> None:
    """`with` on an async app and `async with` on a blocking one are TypeErrors, and open nothing."""

    async def wrong() -> None:
        async with perdure.sync.Perdure(database_url):  # type: ignore[attr-defined]
            pass

    with pytest.raises(TypeError):
        asyncio.run(wrong())
    with pytest.raises(TypeError), Perdure(database_url):  # type: ignore[attr-defined]
        pass
    with pytest.raises(perdure.NoCurrentApp):
        perdure.sync.start(checkout, 1)
