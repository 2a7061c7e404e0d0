"""A payload: the codec of one annotation, between values and JSON.

What workflow code sees is always what a replay would read: `record` returns the stored bytes together with
their decoded form, so a value that would come back otherwise shows itself on the first run. Whatever is
not a plain immutable value is decoded once as it is encoded; that is also the proof that it can be.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from perdure.errors import PayloadTooLarge, SerializationError
from perdure.serial.annotations import shape_of, within_reach
from perdure.serial.compare import difference, find_surrogate
from perdure.serial.shapes import Annotation, Misfit, describe

DEFAULT_LIMIT: Final = 16 * 1024 * 1024
_encode: Final = msgspec.json.Encoder().encode
_decode_untyped: Final = msgspec.json.Decoder().decode
_payloads: Final[dict[Annotation, Payload]] = {}
_MOST_PAYLOADS: Final = 20_000


class Payload:
    """Writes and reads the values of one annotation; get it by `Payload.of`.

    Attributes:
        annotation: the type as it was declared.
        name: how messages call it.
    """

    __slots__ = ("_check", "_decoder", "_native", "_passes", "_shape", "_verify", "annotation", "name")

    def __init__(self, annotation: Annotation) -> None:
        self.annotation = annotation
        self.name = describe(annotation)
        self._shape = shape_of(annotation)
        self._check = self._shape.check
        self._native = self._shape.native
        self._passes = self._shape.passes
        self._verify = any(shape.verify for shape in within_reach(self._shape))
        typed = msgspec.json.Decoder(self._shape.annotation).decode if self._native else None
        self._decoder = typed or _decode_untyped

    @classmethod
    def of(cls, annotation: Annotation) -> Payload:
        """Return the payload of an annotation, made once for all callers.

        Args:
            annotation: any type; `Any` and `object` mean untyped, which carries only None, bool, int,
                finite float, str, lists and dicts with str keys.
        """
        try:
            found = _payloads.get(annotation)
        except TypeError:  # unhashable metadata in `Annotated`
            return cls(annotation)
        if found is None:
            if len(_payloads) > _MOST_PAYLOADS:
                _payloads.clear()
            found = _payloads.setdefault(annotation, cls(annotation))
        return found

    def encode(self, value: object) -> bytes:
        """Write a value as JSON.

        Raises:
            SerializationError: it does not fit the annotation, or would not come back as itself.
        """
        if type(value) in self._passes:
            return self._write(value)
        return self.record(value)[0]

    def decode(self, stored: bytes | msgspec.Raw) -> Any:  # of the payload's own annotation
        """Read what `encode` wrote, or JSON of the same form by another hand.

        Unknown fields are ignored, missing ones take their defaults.

        Raises:
            SerializationError: it is no JSON, or no value of the annotation.
        """
        try:
            decoded = self._decoder(stored)
            return decoded if self._native else self._shape.read(decoded)
        except Misfit as misfit:
            where = _place("".join(misfit.path))
            raise SerializationError(f"cannot read {self.name}{where}: {misfit.text}") from misfit.__cause__
        except Exception as error:  # validators and after-init hooks of the user's classes may raise anything
            raise SerializationError(f"cannot read {self.name}: {error}") from error

    def record(self, value: object) -> tuple[bytes, Any]:  # the same
        """Write a value, and return with it what reading it gives, which is what the code is to see.

        Raises:
            SerializationError: as in `encode`.
        """
        stored = self._write(value)
        if type(value) in self._passes:
            return stored, value
        try:
            decoded = self.decode(stored)
        except SerializationError as error:
            reason = f"it would not come back: {error}"
            raise SerializationError(f"cannot write {self.name}: {reason}") from error.__cause__
        if self._verify and (place := difference(value, decoded)) is not None:
            raise SerializationError(
                f"cannot write {self.name}{_place(place)}: it comes back as another value."
                " Its class drops or changes it when it is read: make its after-init hook and its validators"
                " give the same again, and annotate the classes that it really holds"
            )
        return stored, decoded

    def _write(self, value: object) -> bytes:
        try:
            self._check(value)
            return _encode(value if self._native else self._shape.write(value))
        except Misfit as misfit:
            where = _place("".join(misfit.path))
            raise SerializationError(f"cannot write {self.name}{where}: {misfit.text}") from misfit.__cause__
        except UnicodeEncodeError:
            where = _place(find_surrogate(value) or "")
            reason = "text with a lone surrogate, which UTF-8 cannot carry: clean it with `errors='replace'`"
            raise SerializationError(f"cannot write {self.name}{where}: {reason}") from None
        except RecursionError:
            reason = "it contains itself, or is nested too deeply"
            raise SerializationError(f"cannot write {self.name}: {reason}") from None
        except Exception as error:  # properties and serializers of the user's classes may raise anything
            raise SerializationError(f"cannot write {self.name}: {error}") from error

    def __repr__(self) -> str:
        return f"Payload.of({self.name})"


def check_size(stored: bytes, limit: int = DEFAULT_LIMIT, what: str = "the payload") -> bytes:
    """Return `stored` if it is not larger than `limit` bytes.

    Args:
        stored: the encoded form, after any `Codec`.
        limit: in bytes, 16 MiB by default.
        what: how the message calls it.

    Raises:
        PayloadTooLarge: it is larger.
    """
    if len(stored) > limit:
        raise PayloadTooLarge(
            f"{what} has {len(stored):,} bytes, the limit is {limit:,}:"
            " store the bulk elsewhere and pass a reference"
        )
    return stored


def _place(path: str) -> str:
    return f" at {path}" if path else ""
