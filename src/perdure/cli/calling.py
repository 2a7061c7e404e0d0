"""Arguments of a workflow, as words of the command line.

`name=text` and `name:=json` name a parameter, the first always as text. A value without a name is the next argument by
position: as JSON where it is some, else as text; `=text` and `:=json` say which. What `show -o json` writes as `input`
can be given back from a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

from perdure.cli.options import C, json_of, json_or_text

_FORM: Final = 'an array, or {"args": [...], "kwargs": {...}}'


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a workflow is called with."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def argument_options(command: C) -> C:
    """Add `--arg` and `--json-args`; `arguments_of` reads them."""
    command = click.option(
        "--json-args",
        metavar="FILE",
        type=click.File(encoding="utf-8"),
        help=f"All arguments: {_FORM}; - is stdin.",
    )(command)
    return click.option(
        "--arg",
        "-a",
        metavar="[NAME=]VALUE",
        multiple=True,
        help="An argument: name=text, name:=json, or VALUE by position, JSON if it is some; repeatable.",
    )(command)


def arguments_of(words: Sequence[str], file: Any) -> Arguments | None:
    """The arguments that were given; None if there are none.

    Args:
        words: each an argument.
        file: open for reading, or None.

    Raises:
        BadParameter: they cannot be read.
        UsageError: they are given in both ways.
    """
    if words and file is not None:
        raise click.UsageError("Give the arguments by --arg or by --json-args, not both.")
    if file is not None:
        return _read(file)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, value = _argument(word)
        if name is None:
            args.append(value)
        elif name in kwargs:
            raise click.BadParameter(f"{name!r} is given twice", param_hint="--arg")
        else:
            kwargs[name] = value
    return Arguments(args, kwargs) if words else None


def _argument(word: str) -> tuple[str | None, Any]:
    name, equals, text = word.partition("=")
    as_json = name.endswith(":")
    name = name.removesuffix(":")
    if not equals or not (name == "" or name.isidentifier()):
        return None, json_or_text(word)
    if not as_json:
        return name or None, text
    try:
        return name or None, json_of(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no JSON: {error}", param_hint="--arg") from None


def _read(file: Any) -> Arguments:
    try:
        found = json_of(file.read())
    except ValueError as error:  # also of bytes that are no UTF-8
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="--json-args") from None
    match found:
        case list():
            return Arguments(found)  # pyright: ignore[reportUnknownArgumentType]  (whatever JSON has)
        case dict() if set(found) <= {"args", "kwargs"}:  # pyright: ignore[reportUnknownArgumentType]
            args, kwargs = found.get("args", []), found.get("kwargs", {})  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            if isinstance(args, list) and isinstance(kwargs, dict):
                return Arguments(args, kwargs)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            pass
    raise click.BadParameter(f"it must be {_FORM}", param_hint="--json-args")
