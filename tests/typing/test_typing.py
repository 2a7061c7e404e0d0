"""What a user's type checker says about the public API: right calls pass, wrong ones are refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.typing.checkers import ROOT, Errors, differences, run_mypy, run_pyright

HERE = Path(__file__).parent

both = pytest.mark.parametrize("check", [run_mypy, run_pyright], ids=["mypy", "pyright"])
arrived = pytest.mark.skipif(
    not (ROOT / "src" / "perdure" / "__init__.py").exists(), reason="the package has no public face yet"
)

TOY = """
    # pyright: strict
    from collections.abc import Callable
    from typing import Generic, ParamSpec, TypeVar, assert_type

    P = ParamSpec("P")
    R = TypeVar("R")

    class Workflow(Generic[P, R]):
        def __init__(self, function: Callable[P, R]) -> None:
            self.function = function

        def start(self, *args: P.args, **kwargs: P.kwargs) -> R:
            return self.function(*args, **kwargs)

    @Workflow
    def double(number: int) -> int:
        return 2 * number

    assert_type(double.start(1), int)
    double.start("1"){mark}
    assert_type(double.start(2), str){mark}
    double.start(3){extra}
"""


def toy(folder: Path, *, mark: str = "  # E", extra: str = "") -> Path:
    path = folder / "toy.py"
    path.write_text(textwrap.dedent(TOY).strip().format(mark=mark, extra=extra) + "\n")
    return path


@both
def test_the_harness_agrees_with_right_marks(check: Callable[[Path], Errors], tmp_path: Path) -> None:
    """Errors exactly on the marked lines are no difference."""
    path = toy(tmp_path)
    assert differences(path, check(path)) == []


@both
def test_the_harness_finds_missing_marks(check: Callable[[Path], Errors], tmp_path: Path) -> None:
    """An error on a line without a mark is a difference."""
    path = toy(tmp_path, mark="")
    found = differences(path, check(path))
    assert [text.split(":")[1].strip() for text in found] == ["refused", "refused"]


@both
def test_the_harness_finds_marks_too_many(check: Callable[[Path], Errors], tmp_path: Path) -> None:
    """A marked line that a checker accepts is a difference."""
    path = toy(tmp_path, extra="  # E")
    assert [text.split(":")[1].strip() for text in differences(path, check(path))] == ["accepted"]


@arrived
@both
def test_right_calls_are_accepted_with_their_types(check: Callable[[Path], Errors]) -> None:
    """Every promise of `public_api.py` holds, async and blocking."""
    path = HERE / "public_api.py"
    assert differences(path, check(path)) == []


@arrived
@both
def test_wrong_calls_are_refused(check: Callable[[Path], Errors]) -> None:
    """Every line of `wrong_calls.py` marked as an error is one, and no other line is."""
    path = HERE / "wrong_calls.py"
    assert differences(path, check(path)) == []
