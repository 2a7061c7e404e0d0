"""The arguments of a call as JSON, each by its own annotation.

`{"args": [...], "kwargs": {...}}`, either left out when empty, as the caller gave them: other languages write
it by hand, so the form is the obvious one. Defaults are not stored; a run that starts on newer code takes
the newer default. Arguments are checked against the signature by the caller, so a wrong call fails where it
is written.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec

from perdure.errors import SerializationError
from perdure.serial.hints import class_hints, function_hints
from perdure.serial.payload import Payload
from perdure.serial.shapes import Annotation

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_encode: Final = msgspec.json.Encoder().encode


class _Envelope(msgspec.Struct):
    """A stored call, its arguments still undecoded."""

    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}
    receiver: str | None = msgspec.field(default=None, name="self")


_read_envelope: Final = msgspec.json.Decoder(_Envelope | list[msgspec.Raw] | None).decode


class Signature:
    """The parameters and the result of a workflow or step function.

    Args:
        function: the undecorated function; annotations are resolved at the first use, when forward references
            exist.
        skip: leading parameters that no caller gives (`self`, `cls`, the connection of a transaction).
    """

    def __init__(self, function: Callable[..., object], skip: int = 0) -> None:
        self.function = function
        self.skip = skip
        self.name: str = getattr(function, "__qualname__", None) or type(function).__name__

    @cached_property
    def result(self) -> Payload:
        """The payload of the declared result; untyped if none is declared."""
        return Payload.of(self._hints.get("return", Any))

    @cached_property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The parameters that callers give."""
        return tuple(self._signature.parameters.values())

    @cached_property
    def _signature(self) -> inspect.Signature:
        whole = inspect.signature(self.function)
        kept, left = [], self.skip
        for parameter in whole.parameters.values():
            if left and parameter.kind in _POSITIONAL:
                left -= 1
            else:
                kept.append(parameter)
        return whole.replace(parameters=kept)

    @cached_property
    def _hints(self) -> dict[str, Annotation]:
        return function_hints(self.function)

    @cached_property
    def _positional(self) -> tuple[tuple[str, ...], tuple[Payload, ...]]:
        names = tuple(p.name for p in self.parameters if p.kind in _POSITIONAL)
        return names, tuple(map(self._payload, names))

    @cached_property
    def _named(self) -> dict[str, Payload]:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = {p.name: self._payload(p.name) for p in self.parameters if p.kind in kinds}
        rest = self._rest(inspect.Parameter.VAR_KEYWORD)
        if rest is not None and "Unpack" in str(typing.get_origin(self._hints.get(rest))):
            (options,) = typing.get_args(self._hints[rest])
            hints = class_hints(typing.get_origin(options) or options, typing.get_args(options))
            named |= {name: Payload.of(hint) for name, hint in hints.items()}
        return named

    @cached_property
    def _more_positional(self) -> tuple[str, Payload] | None:
        name = self._rest(inspect.Parameter.VAR_POSITIONAL)
        return None if name is None else (f"*{name}", self._payload(name))

    @cached_property
    def _more_named(self) -> Payload | None:
        name = self._rest(inspect.Parameter.VAR_KEYWORD)
        return None if name is None else self._payload(name)

    @cached_property
    def _plain_range(self) -> tuple[int, int]:
        """How many positional arguments, without keywords, are surely right."""
        most = len(self._positional[0])
        least = sum(p.default is p.empty for p in self.parameters if p.kind in _POSITIONAL)
        needs_names = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in self.parameters)
        return (least, -1 if needs_names else most)

    def _rest(self, kind: object) -> str | None:
        return next((p.name for p in self.parameters if p.kind is kind), None)

    def _payload(self, name: str) -> Payload:
        return Payload.of(self._hints.get(name, Any))

    def bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Check that the function could be called so.

        Raises:
            TypeError: it could not; the text is the one of Python.
        """
        least, most = self._plain_range
        if not kwargs and least <= len(args) <= most:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {self._objection(args, kwargs) or error}") from None

    def _objection(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """Say what is wrong in Python's words."""
        names = [p.name for p in self.parameters if p.kind in _POSITIONAL]
        keyable = {p.name for p in self.parameters if p.kind is not p.POSITIONAL_ONLY}
        twice = [name for name in names[: len(args)] if name in kwargs and name in keyable]
        if twice:
            return f"got multiple values for argument {twice[0]!r}"
        unknown = [name for name in kwargs if name not in self._named]
        if unknown and self._more_named is None:
            return f"got an unexpected keyword argument {unknown[0]!r}"
        if len(args) > len(names) and self._more_positional is None:
            given = f"{len(args)} {'was' if len(args) == 1 else 'were'} given"
            least = self._plain_range[0]
            most = _count(len(names), "positional argument")
            if least < len(names):
                most = f"from {least} to {len(names)} positional arguments"
            return f"takes {most} but {given}"
        for kind, kinds, start in (("positional", _POSITIONAL, len(args)), ("keyword-only", (), 0)):
            of_kind = [p for p in self.parameters if (p.kind in kinds if kinds else p.kind is p.KEYWORD_ONLY)]
            lacking = [p.name for p in of_kind[start:] if p.default is p.empty and p.name not in kwargs]
            if lacking:
                return f"missing {_count(len(lacking), f'required {kind} argument')}: {_and(lacking)}"
        return ""

    def encode_call(
        self, args: Sequence[object], kwargs: Mapping[str, object], receiver: str | None = None
    ) -> bytes:
        """Write the arguments of a call that `bind` has passed, and the name of the instance it is called on.

        Raises:
            SerializationError: an argument does not fit its annotation; the text names it.
        """
        positional, named = self._each(Payload.encode, args, kwargs)
        return _envelope(positional, named, receiver)

    def record_call(
        self, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> tuple[bytes, tuple[Any, ...], dict[str, Any]]:  # of the parameters' own annotations
        """Write the arguments, and return with them what the code is to be called with.

        Raises:
            SerializationError: as in `encode_call`.
        """
        positional, named = self._each(Payload.record, args, kwargs)
        stored = _envelope([one for one, _ in positional], {name: one for name, (one, _) in named.items()})
        return (
            stored,
            tuple(seen for _, seen in positional),
            {name: seen for name, (_, seen) in named.items()},
        )

    def decode_call(self, stored: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:  # the same
        """Read the arguments of a call, by this code or by hand in another language.

        A bare array counts as `args`, null as no arguments.

        Raises:
            SerializationError: it is no such JSON, an argument does not fit its annotation, or the function
                cannot be called with these.
        """
        try:
            found = _read_envelope(stored)
        except Exception as error:
            what = f'the arguments of {self.name}(), as {{"args": [...], "kwargs": {{...}}}}'
            raise SerializationError(f"cannot read {what}: {error}") from error
        if not isinstance(found, _Envelope):
            found = _Envelope(found or [])
        try:
            self.bind(found.args, found.kwargs)
        except TypeError as error:
            raise SerializationError(f"the stored arguments do not fit: {error}") from None
        positional, named = self._each(Payload.decode, found.args, found.kwargs)
        return tuple(positional), named

    def _each(
        self,
        work: Callable[[Payload, Any], Any],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> tuple[list[Any], dict[str, Any]]:
        """Write or read every argument by the payload of its parameter."""
        names, payloads = self._positional
        if len(args) > len(payloads) and self._more_positional is not None:
            name, payload = self._more_positional
            more = len(args) - len(payloads)
            names, payloads = (*names, *[name] * more), (*payloads, *[payload] * more)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        wrong: str | None = None
        try:
            positional.extend(map(work, payloads, args))  # after an error it has those before
            for wrong, value in kwargs.items():
                by_name: Any = self._named.get(wrong, self._more_named)  # `bind` has seen that there is one
                named[wrong] = work(by_name, value)
        except SerializationError as error:
            wrong = names[len(positional)] if wrong is None else wrong
            raise SerializationError(f"argument {wrong!r} of {self.name}(): {error}") from error.__cause__
        return positional, named


def receiver_of(stored: bytes) -> str | None:
    """The name of the instance on which a stored call is made, which `decode_call` can read."""
    found = _read_envelope(stored)
    return found.receiver if isinstance(found, _Envelope) else None


def _envelope(args: list[bytes], kwargs: Mapping[str, bytes], receiver: str | None = None) -> bytes:
    parts = [] if receiver is None else [b'"self":' + _encode(receiver)]
    if args:
        parts.append(b'"args":[' + b",".join(args) + b"]")
    if kwargs:
        parts.append(
            b'"kwargs":{' + b",".join(_encode(name) + b":" + one for name, one in kwargs.items()) + b"}"
        )
    return b"{" + b",".join(parts) + b"}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _and(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
