"""A row that stands for an error can name what it likes: it gives an error, and does nothing else."""

from __future__ import annotations

import json
import sys
import types
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import StepFailed
from perdure.serial import decode_failure, encode_failure
from tests.serial_types import patient

ran: list[str] = []


class Trapped(Exception):
    """Every part of its own that could run, tells."""

    def __new__(cls, *args: object) -> Self:
        ran.append("new")
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        ran.append("init")

    def __setattr__(self, name: str, value: object) -> None:
        ran.append("setattr")
        super().__setattr__(name, value)

    @property
    def danger(self) -> object:
        return 1

    @danger.setter
    def danger(self, value: object) -> None:
        ran.append("property")


def row(module: str = "builtins", name: str = "ValueError", **more: object) -> bytes:
    return json.dumps({"module": module, "name": name, "message": "text", **more}).encode()


def raised(error: BaseException) -> BaseException:
    """Give the error a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("os", "path"),
        ("builtins", "eval"),
        ("builtins", "object"),
        ("builtins", "SystemExit"),
        ("builtins", "BaseException"),
        ("builtins", "int"),
        ("builtins", "ValueError.__init__"),
        ("builtins", "ValueError.__class__"),
        ("builtins", "ValueError.with_traceback.__self__"),
        ("subprocess", "Popen"),
        ("sys", "modules"),
        ("sys", ""),
        ("", ""),
        ("", "ValueError"),
        ("antigravity", "Error"),
        ("perdure.errors", "Cancelled"),
        (__name__, "test_any_row_gives_an_error.<locals>.X"),
        (__name__, "raised.__globals__"),
    ],
)
def test_hostile_names_become_the_fallback(module: str, name: str) -> None:
    """A row that names no exception class gives a failure; nothing is imported or called."""
    before = set(sys.modules)
    for more in ({}, {"args": ["echo owned"]}, {"attributes": {"__class__": 1}}):
        seen = decode_failure(row(module, name, **more))
        assert type(seen) is StepFailed
        assert str(seen) == "text"
    assert set(sys.modules) == before


def test_a_lazy_module_is_not_made_to_import() -> None:
    """A module's own `__getattr__` is not asked."""
    module = types.ModuleType("lazy_module_of_this_test")
    asked: list[str] = []
    module.__getattr__ = asked.append  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
    try:
        assert type(decode_failure(row(module.__name__, "Error"))) is StepFailed
    finally:
        del sys.modules[module.__name__]
    assert asked == []


def test_no_code_of_the_class_runs() -> None:
    """Not `__new__`, `__init__`, `__setattr__` or a property's setter."""
    seen = decode_failure(row(__name__, "Trapped", args=["a"], attributes={"danger": 5, "plain": 6}))
    assert type(seen) is Trapped
    assert seen.args == ("a",)
    assert vars(seen)["plain"] == 6
    assert ran == []


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"nonsense",
        b"\xff\xfe",
        row(args=7),
        row(args=[{"$type": "os.system", "$value": "a"}]),
        row(args=[{"$type": "Decimal", "$value": "x"}]),
        row(args=[{"$type": "datetime", "$value": 1}]),
        row(args=[{"$type": "set", "$value": [[1]]}]),
        row(args=[{"$type": ["list"]}]),
        row(name="UnicodeDecodeError", args=["utf-8", 5, -7, 3, "a"]),
        row(name="UnicodeDecodeError", args=["utf-8", {"$type": "bytes", "$value": ""}, -9, -8, "a"]),
        row(name="UnicodeDecodeError", attributes={"object": 5, "start": -1, "encoding": 1}),
        row(name="UnicodeEncodeError", args=["utf-8", 5, 0, 1, "a"], attributes={"object": 5}),
        row(name="OSError", args=[1, 2, 3, 4, 5, 6], attributes={"errno": "x", "filename": [1]}),
        row(
            name="SyntaxError", args=["a", 5], attributes={"lineno": "x", "text": 5, "msg": 1, "filename": 7}
        ),
        row(name="StopIteration", attributes={"value": [1], "args": 5}),
        row(name="ExceptionGroup"),
        row(name="ExceptionGroup", group=[{}]),
        row(name="BaseExceptionGroup", group=[{"module": "builtins", "name": "SystemExit"}]),
        row(attributes={"__notes__": 5, "__cause__": 1, "__dict__": {}, "__traceback__": 3, "args": 4}),
        row(cause={"module": "os", "name": "system", "cause": {"message": 1}}),
        row(message=5),
    ],
)
def test_hostile_rows_give_an_error_that_can_be_shown(stored: bytes) -> None:
    """Whatever the row holds, an Exception results whose text and stored form can be made."""
    seen = decode_failure(stored)
    assert isinstance(seen, Exception)
    str(seen), repr(seen)
    encode_failure(raised(seen))


@patient
@given(st.binary() | st.dictionaries(st.sampled_from(["module", "name", "args", "group", "cause"]), st.none()
       | st.sampled_from(["builtins", "OSError", "UnicodeDecodeError"]) | st.lists(st.text() | st.integers()))
       .map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_row_gives_an_error(stored: bytes) -> None:
    """Any bytes give an Exception, never a crash."""
    assert isinstance(decode_failure(stored), Exception)
