"""What text and bytes must be to be stored: ids and names that Postgres takes, and the seam for codecs.

Text is checked at the edge, where the caller sees the error: inside a batch one bad id would fail the others.
"""

from __future__ import annotations

from typing import Final, Protocol

LONGEST_TEXT: Final = 512


class Codec(Protocol):
    """Wraps stored payloads, to encrypt or compress them: `decode(encode(x)) == x`, also of older keys."""

    def encode(self, plain: bytes) -> bytes:
        """Return what is stored for `plain`."""
        ...

    def decode(self, stored: bytes) -> bytes:
        """Return the plain bytes of what `encode` returned, now or in an earlier version."""
        ...


def check_text(value: str, what: str, *, longest: int = LONGEST_TEXT) -> str:
    """Return an id or a name if Postgres and every client can carry it.

    Args:
        value: the text.
        what: how the message calls it, for example "workflow id".
        longest: in characters, 512 by default, which fits an index entry whatever the characters.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty, too long, or has a NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise TypeError(f"the {what} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"the {what} must not be empty")
    if len(value) > longest:
        raise ValueError(f"the {what} has {len(value):,} characters, the most is {longest:,}")
    if "\0" in value:
        place = value.index("\0")
        raise ValueError(f"the {what} has a NUL character at {place}, which Postgres does not take")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {what} has a lone surrogate at {error.start}, which is no text") from None
    return value


def storable_text(value: str) -> str:
    """Return text with what Postgres does not take (NUL, lone surrogates) spelt as escapes."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
