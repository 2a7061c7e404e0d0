"""Errors on their way: restored as the user's own class, with where it came from; else as WorkflowFailed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import Perdure, StepFailed, WorkflowFailed, step, workflow
from tests.api_tools import on_loop, rows, until_true

entered = threading.Event()
door = threading.Event()
caught: list[BaseException] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    entered.clear()
    door.clear()
    caught.clear()


class CardDeclined(Exception):
    """Its constructor wants what args do not have, as users' errors often do."""

    def __init__(self, card: str, *, code: int) -> None:
        super().__init__(f"card {card} declined with {code}")
        self.card, self.code = card, code


@dataclass
class OutOfStock(Exception):
    sku: str
    left: int


@step
async def pay(how: str) -> None:
    if how == "declined":
        raise CardDeclined("4711", code=51)
    if how == "stock":
        raise OutOfStock("a-1", 3)
    if how == "os":
        raise FileNotFoundError(2, "No such file", "/nowhere")
    if how == "group":
        raise ExceptionGroup("several", [ValueError("one"), CardDeclined("1", code=2)])
    if how == "cause":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    if how == "local":

        class Hidden(Exception):
            pass

        raise Hidden("nobody can find this class")


@step
def leaves(how: str) -> None:
    left.append(how)
    if how == "exit":
        sys.exit(3)
    if how == "argparse":
        argparse.ArgumentParser(exit_on_error=True).parse_args(["--nonsense"])
    if how == "abort":
        raise Abort("a library's own")


class Abort(BaseException):
    """What some libraries raise to get past `except Exception`."""


left: list[str] = []


@workflow
def leaving(how: str) -> str:
    leaves(how)
    return how


@step
def wait_for_door() -> None:
    entered.set()
    door.wait(30)


@workflow
async def buys(how: str) -> str:
    await pay(how)
    return "bought"


@workflow
async def fails_hidden() -> None:
    class Hidden(Exception):
        pass

    raise Hidden("nobody can find this class")


@workflow
async def notes(how: str) -> str:
    try:
        await pay(how)
    except Exception as error:
        caught.append(error)
    await perdure.run_step(wait_for_door)
    return repr(caught[-1])


@workflow
async def fails_itself() -> None:
    raise CardDeclined("itself", code=1)


@workflow
def def_fails_itself() -> None:
    raise CardDeclined("itself", code=1)


@on_loop
async def test_an_error_comes_back_as_its_own_class(database_url: str) -> None:
    """Class, text and attributes are restored, whatever the constructor wants."""
    async with Perdure(database_url):
        with pytest.raises(CardDeclined, match=r"4711.*51") as declined:
            await buys("declined")
        assert (declined.value.card, declined.value.code) == ("4711", 51)
        with pytest.raises(OutOfStock) as stock:
            await buys("stock")
        assert (stock.value.sku, stock.value.left) == ("a-1", 3)
        with pytest.raises(FileNotFoundError, match="nowhere") as missing:
            await buys("os")
        assert missing.value.errno == 2


@on_loop
async def test_groups_and_causes_come_back(database_url: str) -> None:
    """An exception group has its members, an error its cause."""
    async with Perdure(database_url):
        with pytest.raises(ExceptionGroup) as group:
            await buys("group")
        assert [type(error) for error in group.value.exceptions] == [ValueError, CardDeclined]
        with pytest.raises(RuntimeError) as outer:
            await buys("cause")
        assert isinstance(outer.value.__cause__, KeyError)


@pytest.mark.parametrize("colour", ["async", "blocking"])
def test_the_remote_traceback_is_a_note(colour: str, database_url: str) -> None:
    """A note shows the line that raised, also to a process that only waits."""
    with perdure.sync.Perdure(database_url, name="worker") as app, app.bind():
        target: Any = fails_itself if colour == "async" else def_fails_itself
        with pytest.raises(CardDeclined) as raised:
            perdure.sync.start(target).result(timeout=20)
        [note] = [note for note in raised.value.__notes__ if note.startswith("Remote traceback")]
        assert 'raise CardDeclined("itself", code=1)' in note
        assert note.count("Remote traceback") == 1


@on_loop
async def test_the_note_has_no_frames_of_the_engine(database_url: str) -> None:
    """What the user reads is the user's own code: the lines of the step and of the workflow that called it."""
    async with Perdure(database_url):
        with pytest.raises(CardDeclined) as raised:
            await buys("declined")
        text = "\n".join(raised.value.__notes__)
        assert 'raise CardDeclined("4711", code=51)' in text
        assert "await pay(how)" in text
        assert "perdure/core" not in text


@on_loop
async def test_a_class_that_cannot_be_found_is_workflow_failed(database_url: str) -> None:
    """WorkflowFailed has the original type, message and traceback text."""
    async with Perdure(database_url):
        with pytest.raises(WorkflowFailed, match="nobody can find this class") as failed:
            await fails_hidden()
        assert failed.value.type.endswith("Hidden")
        assert failed.value.message == "nobody can find this class"
        assert "raise Hidden" in failed.value.traceback


@on_loop
async def test_a_steps_unknown_error_keeps_its_type_to_the_end(database_url: str) -> None:
    """A run that lets StepFailed out fails with it: who waits still reads the original type and traceback."""
    async with Perdure(database_url):
        with pytest.raises(StepFailed, match="nobody can find this class") as failed:
            await buys("local")
        assert failed.value.type.endswith("Hidden")
        assert "raise Hidden" in failed.value.traceback


@on_loop
async def test_a_steps_class_that_cannot_be_found_is_step_failed(database_url: str) -> None:
    """Inside the workflow it is StepFailed, from the first run on: what a replay will raise."""
    door.set()
    async with Perdure(database_url):
        assert "StepFailed" in await notes("local")
        [error] = caught
        assert isinstance(error, StepFailed)
        assert error.type.endswith("Hidden")


@on_loop
async def test_exceptions_gives_classes_that_are_found_nowhere(database_url: str) -> None:
    """`Perdure(exceptions=...)` restores local classes too."""

    class Local(Exception):
        pass

    @step(name="raises local")
    async def raises() -> None:
        raise Local("mine")

    @workflow(name="workflow of a local error")
    async def local() -> None:
        await raises()

    async with Perdure(database_url, exceptions=[Local]):
        with pytest.raises(Local, match="mine"):
            await local()


@on_loop
async def test_the_first_run_raises_what_a_replay_raises(database_url: str) -> None:
    """The error caught in the first life and the one caught in the second are equal in class, text and attributes."""
    async with Perdure(database_url, grace=0):
        await notes.options(id="moved").start("declined")
        await until_true(lambda: asyncio.to_thread(entered.wait, 0.1))
    async with Perdure(database_url):
        door.set()
        await notes.handle("moved").result(timeout=20)
    first, second = caught
    assert isinstance(first, CardDeclined)
    assert isinstance(second, CardDeclined)
    assert (str(first), first.card, first.code, first.args) == (
        str(second), second.card, second.code, second.args,
    )  # fmt: skip
    assert first.__notes__ == second.__notes__


@pytest.mark.parametrize("how", ["exit", "argparse", "abort"])
def test_a_step_that_exits_ends_its_run(how: str, database_url: str) -> None:
    """A BaseException in a step (`sys.exit`, a library's own) is no endless loop: whoever waits is told, others go on."""
    left.clear()
    with perdure.sync.Perdure(database_url, grace=0) as app:
        handle = leaving.start(how)
        with pytest.raises(perdure.PerdureError) as raised:
            handle.result(timeout=5)
        assert not isinstance(raised.value, perdure.WaitTimeout)
        assert leaving.start("well").result(timeout=20) == "well"
        assert app.runs.count(status=["running", "queued"]) == 0
    assert left.count(how) <= 21


@on_loop
async def test_errors_hold_no_secrets_of_the_connection(database_url: str) -> None:
    """What is stored of an error is its class, args and attributes as JSON that psql can read."""
    async with Perdure(database_url):
        with pytest.raises(CardDeclined):
            await buys("declined")
    [(value,)] = await asyncio.to_thread(
        rows, database_url, "select convert_from(value, 'UTF8')::json ->> 'name' from perdure.ends"
    )
    assert value == "CardDeclined"
