"""An error comes back as what the program knows it as, or as the fallback; a row never does more."""

from __future__ import annotations

import asyncio
import enum
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

import pytest

from perdure.errors import Cancelled, StepFailed, WorkflowFailed
from perdure.serial import decode_failure, encode_failure, record_failure

ran: list[str] = []


class CardDeclined(Exception):
    """An ordinary error of a user, whose `__init__` takes other arguments than it passes on."""

    def __init__(self, card: str, limit: Decimal) -> None:
        ran.append("init")
        super().__init__(f"{card} declined")
        self.card, self.limit = card, limit
        self.connection = object()


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Outer:
    class Inner(Exception):
        pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Level(enum.IntEnum):
    LOW = 1


def raised(error: BaseException) -> BaseException:
    """Give the error a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


def test_a_users_error_comes_back_as_its_class() -> None:
    """Class, text, args and attributes return; `__init__` does not run, what JSON cannot carry is left out."""
    error = raised(CardDeclined("visa", Decimal("2.50")))
    ran.clear()
    _, seen = record_failure(error)
    assert type(seen) is CardDeclined
    assert str(seen) == "visa declined"
    assert (seen.card, seen.limit) == ("visa", Decimal("2.50"))
    assert not hasattr(seen, "connection")
    assert seen.__traceback__ is None
    assert ran == []


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("text", 1, 2.5, None, True),
        (Decimal("1.0"), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), b"\xff"),
        ((1, (2,)), [1, {"a": 2}], {"$type": "Decimal", "$value": "1"}),
        ({1, 2}, frozenset({"a"}), {"nested": {"deep": [Decimal(1)]}}),
        (10**30, "\0", "é"),
    ],
)
def test_arguments_of_standard_classes_come_back(args: tuple[Any, ...]) -> None:
    """An error's args need no annotation, as long as they are plain or of the standard library."""
    seen = record_failure(ValueError(*args))[1]
    assert seen.args == args
    assert repr(seen) == repr(ValueError(*args))


def test_other_arguments_come_back_as_text() -> None:
    """An argument of any other class is kept as its repr, so that the error itself is not lost."""
    seen = record_failure(ValueError(types.SimpleNamespace(a=1), Level.LOW, {1: 2}))[1]
    assert seen.args == ("namespace(a=1)", 1, "{1: 2}")


def test_a_number_that_is_none_is_carried() -> None:
    """NaN in an error's args does not stop the error."""
    assert repr(record_failure(ValueError(float("nan"), float("-inf")))[1]) == "ValueError(nan, -inf)"


@pytest.mark.parametrize(
    "provoke",
    [
        lambda: open("/nonexistent/file"),  # noqa: PTH123, SIM115
        b"\xff".decode,
        "\ud800".encode,
        lambda: dict[str, int]()["key"],
        lambda: 1 / 0,
        [].pop,
        lambda: int("x"),
        lambda: compile("a b", "file", "exec"),
        lambda: __import__("no_such_module_here"),
        lambda: object().nothing,  # type: ignore[attr-defined]
        lambda: next(iter(())),
        lambda: subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True),
    ],
)
def test_errors_of_the_standard_library_keep_their_text(provoke: Callable[[], object]) -> None:
    """What Python itself raises comes back with its class and text, and with the attributes it shows."""
    try:
        provoke()
    except Exception as caught:
        error = caught
    else:
        pytest.fail("nothing was raised")
    seen: Any = record_failure(error)[1]
    assert type(seen) is type(error)
    if not isinstance(error, UnicodeEncodeError):  # a surrogate in its args comes back as an escape
        assert str(seen) == str(error)
    for name in ("errno", "filename", "returncode", "lineno"):
        assert getattr(seen, name, None) == getattr(error, name, None)


def test_slots_come_back() -> None:
    """Attributes outside `__dict__` are attributes too."""
    assert record_failure(Slotted(7))[1].code == 7  # type: ignore[attr-defined]


def test_nested_classes_are_found() -> None:
    """A class inside a class is known by its qualified name."""
    assert type(record_failure(Outer.Inner("a"))[1]) is Outer.Inner


def test_notes_the_traceback_and_the_cause_come_back() -> None:
    """Notes return as they were, the remote traceback after them, the cause as an error of its own."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as caught:
        error = caught
    error.add_note("attempt 5 of 5")
    seen = record_failure(error)[1]
    note, remote = seen.__notes__
    assert note == "attempt 5 of 5"
    assert remote.startswith("Remote traceback:\n")
    assert 'raise KeyError("inner")' in remote
    assert 'raise ValueError("outer") from inner' in remote
    assert "attempt 5 of 5" not in remote
    assert type(seen.__cause__) is KeyError


def test_notes_can_be_left_out() -> None:
    """`notes=False` keeps the notes out of the row."""
    error = ValueError("a")
    error.add_note("a remark")
    assert b"a remark" not in encode_failure(error, notes=False)


def test_recording_twice_changes_nothing() -> None:
    """An error restored and stored again gives the same row: notes and tracebacks do not pile up."""
    group = raised(ExceptionGroup("several", [ValueError(1), CardDeclined("a", Decimal(1))]))
    unknown = raised(type("Unknown", (Exception,), {})("a"))
    chained = raised(ValueError("a"))
    chained.__cause__ = raised(unknown)
    for error in (raised(CardDeclined("a", Decimal(1))), group, unknown, chained, raised(SystemExit(3))):
        error.add_note("a remark")
        seen = record_failure(error)[1]
        stored, again = record_failure(seen)
        assert record_failure(again)[0] == stored
        assert again.__notes__ == seen.__notes__
        assert repr(again) == repr(seen)


def test_an_error_raised_again_keeps_both_tracebacks() -> None:
    """The place where it first happened is not lost when the workflow lets it through."""
    seen = record_failure(raised(ValueError("a")))[1]

    def let_through() -> NoReturn:
        raise seen

    try:
        let_through()
    except ValueError as caught:
        (remote,) = record_failure(caught)[1].__notes__
    assert "in raised" in remote
    assert "in let_through" in remote
    assert remote.count("Remote traceback") == 1


def test_groups_come_back_with_their_members() -> None:
    """What a TaskGroup raises is restored with every error in it."""
    group = ExceptionGroup(
        "several", [CardDeclined("a", Decimal(1)), ExceptionGroup("more", [KeyError("b")])]
    )
    seen = record_failure(group)[1]
    assert isinstance(seen, ExceptionGroup)
    assert str(seen) == str(group)
    assert vars(seen.exceptions[0])["card"] == "a"
    assert repr(seen.exceptions[1]) == repr(group.exceptions[1])


def test_a_class_that_is_not_known_becomes_the_fallback() -> None:
    """The fallback carries the class's name, its text and the traceback."""
    local = type("Local", (Exception,), {"__qualname__": "work.<locals>.Local"})
    error = raised(local("it broke"))
    for fallback in (StepFailed, WorkflowFailed):
        seen: Any = decode_failure(encode_failure(error), fallback=fallback)
        assert type(seen) is fallback
        assert str(seen) == seen.message == "it broke"
        assert seen.type == f"{__name__}.work.<locals>.Local"
        assert "it broke" in seen.traceback


def test_a_local_class_is_restored_if_the_app_names_it() -> None:
    """`exceptions=` opens what cannot be found by name, BaseExceptions too."""

    class Local(Exception):
        pass

    class Stop(BaseException):
        pass

    assert type(record_failure(Local("a"), (Local,))[1]) is Local
    assert type(record_failure(Stop("a"), (Stop,))[1]) is Stop
    assert type(record_failure(Stop("a"))[1]) is StepFailed


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), Cancelled()])
def test_control_flow_is_never_restored(error: BaseException) -> None:
    """What would end the process or cancel the task comes back as a failure."""
    assert type(record_failure(error)[1]) is StepFailed


def test_storing_never_fails() -> None:
    """An error without text, with odd notes, a cycle of causes or enormous content is stored all the same."""
    odd = ValueError("a")
    odd.__notes__ = [1, "fine", b"x"]  # type: ignore[list-item]
    cycle = ValueError("a")
    other = KeyError("b")
    cycle.__cause__, other.__cause__ = other, cycle
    holder: list[Any] = []
    holder.append(holder)
    surrogate = ValueError("\ud800\0")
    for error in (Mute(), odd, cycle, ValueError(holder), surrogate, ValueError(10**5000)):
        seen = record_failure(raised(error))[1]
        assert type(seen) is type(error)
    huge = raised(ValueError("x" * 1_000_000, ["y"] * 100_000))
    stored = encode_failure(huge)
    assert len(stored) < 100_000


def test_a_long_traceback_keeps_both_ends() -> None:
    """The stored traceback is bounded, and still tells where it began and how it ended."""

    def dig(depth: int) -> NoReturn:
        if depth:
            exec("dig(depth - 1)", {"dig": dig, "depth": depth})  # a frame of another kind, so not folded
        raise ValueError("the end")

    try:
        dig(200)
    except ValueError as caught:
        (remote,) = record_failure(caught)[1].__notes__
    assert len(remote) < 16_100
    assert "characters left out" in remote
    assert remote.rstrip().endswith("ValueError: the end")
    assert "in test_a_long_traceback_keeps_both_ends" in remote


def test_errors_of_the_main_module_are_known_by_its_import_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's own errors are stored under the name by which another process imports it."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", "shop.py", raising=False)
    error_class = type("MainError", (Exception,), {"__module__": "__main__"})
    main.MainError = error_class  # type: ignore[attr-defined]
    try:
        stored, seen = record_failure(error_class("a"))
    finally:
        del main.MainError
    assert json.loads(stored)["module"] == "shop"
    assert type(seen) is error_class
