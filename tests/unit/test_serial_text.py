"""Ids and names are refused at the edge if Postgres could not store them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.serial import check_text, storable_text
from tests.serial_types import patient


@pytest.mark.parametrize("text", ["order-1", "é", "a b", "\U0001f600" * 512, "-", " "])
def test_ordinary_text_passes(text: str) -> None:
    """Text comes back as it is."""
    assert check_text(text, "id") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the workflow id must not be empty"),
        ("a\0b", "has a NUL character at 1"),
        ("ab\ud800", "has a lone surrogate at 2"),
        ("x" * 513, "has 513 characters, the most is 512"),
    ],
)
def test_what_cannot_be_stored_raises(text: str, words: str) -> None:
    """The message says what is wrong, and with which text."""
    with pytest.raises(ValueError, match=words):
        check_text(text, "workflow id")


@pytest.mark.parametrize("value", [None, 1, b"a"])
def test_what_is_no_text_raises(value: Any) -> None:
    """Another type is a mistake of the caller, and is named."""
    with pytest.raises(TypeError, match="must be a str"):
        check_text(value, "workflow id")


@patient
@given(st.text(st.characters()))
def test_storable_text_is_storable(text: str) -> None:
    """Whatever text comes in, what comes out is taken; ordinary text is left alone."""
    found = storable_text(text)
    found.encode()
    assert "\0" not in found
    assert found == text or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)
