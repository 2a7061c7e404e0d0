"""Errors as JSON, and back: what the code catches live is what a replay would raise.

A class is only ever looked up among those already imported, walking plain dictionaries so that no lazy
import runs, and must derive from `Exception`; an instance is made by the built-in `__new__` beneath it, so no
code of the class runs either. Anything else becomes the fallback, which names the class and carries its
text. A row can thus choose among the errors a program knows, and do nothing with the choice.
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure.errors import StepFailed, WorkflowFailed
from perdure.serial.loose import loosen, tighten
from perdure.serial.text import storable_text

LONGEST_TRACEBACK: Final = 16_000
_LONGEST_MESSAGE: Final = 16_000
_LARGEST_STATE: Final = 256_000
_DEEPEST: Final = 4
_ENGINE: Final = str(Path(__file__).resolve().parent.parent)
_MOST_NOTES: Final = 20
_MOST_MEMBERS: Final = 50
_REMOTE: Final = "Remote traceback:\n"
_BUILT_IN_STATE: Final[tuple[tuple[type[BaseException], tuple[str, ...]], ...]] = (
    (OSError, ("errno", "strerror", "filename", "filename2")),
    (ImportError, ("msg", "name", "path")),
    (NameError, ("name",)),
    (AttributeError, ("name",)),
    (StopIteration, ("value",)),
    (SyntaxError, ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")),
)
_NOT_CARRIED: Final = object()
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement


class _Stored(msgspec.Struct, omit_defaults=True):
    """The stored form of an error.

    Attributes:
        module: of the class; the import name, if it is the program's main module.
        name: the class's qualified name.
        message: the error's text.
        args: as in the exception.
        attributes: of the instance, those that can come back.
        notes: added by `add_note`.
        traceback: as text.
        cause: of `raise ... from`.
        group: the errors of an exception group.
    """

    module: str = ""
    name: str = ""
    message: str = ""
    args: list[Any] = []  # loose JSON
    attributes: dict[str, Any] = {}
    notes: list[str] = []
    traceback: str = ""
    cause: _Stored | None = None
    group: list[_Stored] = []


_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(_Stored)


def encode_failure(error: BaseException, *, notes: bool = True) -> bytes:
    """Write an error as JSON; this never fails, whatever the error holds.

    Args:
        error: any exception.
        notes: whether its notes are kept.
    """
    try:
        return _encode(_stored(error, 0, notes))
    except Exception:  # a class whose attributes are traps; its name and text are still worth keeping
        cls = type(error)
        bare = _Stored(module=import_name(cls.__module__), name=cls.__qualname__, message=_message(error))
        bare.message = _shorten(bare.message, _LONGEST_MESSAGE)
        return _encode(bare)


def decode_failure(
    stored: bytes,
    *,
    exceptions: Sequence[type[BaseException]] = (),
    fallback: type[BaseException] = StepFailed,
) -> BaseException:
    """Make the error that `encode_failure` wrote; it is returned, not raised.

    Args:
        stored: the row.
        exceptions: classes to restore besides those found in imported modules (such as local classes).
        fallback: `StepFailed` or `WorkflowFailed`, for a class that is unknown here.
    """
    try:
        row = _decoder.decode(stored)
    except Exception as error:  # a damaged row must still end the wait for it
        return _fall_back(_Stored(message=f"the stored error cannot be read: {error}"), fallback)
    return _restore(row, exceptions, fallback)


def record_failure(
    error: BaseException,
    exceptions: Sequence[type[BaseException]] = (),
    fallback: type[BaseException] = StepFailed,
) -> tuple[bytes, BaseException]:
    """Write an error, and return with it the one that the code is to see, now as on a replay."""
    stored = encode_failure(error)
    return stored, decode_failure(stored, exceptions=exceptions, fallback=fallback)


def import_name(module: str) -> str:
    """Return the name under which other processes import a module, if it is this one's `__main__`."""
    if module != "__main__":
        return module
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return file.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".py") if isinstance(file, str) else module


def _stored(error: BaseException, depth: int, keep_notes: bool) -> _Stored:
    cls = type(error)
    plain, remote = _split_notes(error)
    group = error if isinstance(error, BaseExceptionGroup) else None
    row = _Stored(
        module=storable_text(import_name(cls.__module__)),
        name=storable_text(cls.__qualname__),
        message=_shorten(_message(error) if group is None else group.message, _LONGEST_MESSAGE),
        notes=plain if keep_notes else [],
        traceback=_traceback(error, remote) if depth == 0 else remote,
    )
    members: tuple[BaseException, ...] = () if group is None else group.exceptions
    row.args = [] if members else [_carry(argument) for argument in error.args]
    row.attributes = _attributes(error)
    if _too_large([row.args, row.attributes]):
        row.args, row.attributes = [row.message], {}
    if depth < _DEEPEST:
        if error.__cause__ is not None:
            row.cause = _stored(error.__cause__, depth + 1, keep_notes)
        row.group = [_stored(member, depth + 1, keep_notes) for member in members[:_MOST_MEMBERS]]
    return row


def _split_notes(error: BaseException) -> tuple[list[str], str]:
    """Part the notes from the remote traceback, which is a note too once an error was restored."""
    notes = getattr(error, "__notes__", ())
    plain, remote = [], ""
    for note in list(notes)[:_MOST_NOTES] if isinstance(notes, list | tuple) else ():
        if isinstance(note, str) and note.startswith(_REMOTE):
            remote = note.removeprefix(_REMOTE)
        elif isinstance(note, str):
            plain.append(_shorten(note, _LONGEST_MESSAGE))
    return plain, storable_text(remote)


def _traceback(error: BaseException, remote: str) -> str:
    if error.__traceback__ is None and (remote or error.__cause__ is None):
        return remote  # never raised here: there is nothing to tell
    try:
        summary = traceback.TracebackException.from_exception(error)
        # Notes are kept apart; the remote traceback among them would be in here twice.
        summary.__notes__ = None
        _leave_out_own_frames(summary)
        local = "".join(summary.format())
    except Exception as failure:  # a class whose text or source cannot be had
        local = f"{type(error).__qualname__}: no traceback: {type(failure).__qualname__}\n"
    joined = f"{remote}\nIt was raised again here:\n{local}" if remote else local
    return _shorten(joined, LONGEST_TRACEBACK)


def _leave_out_own_frames(summary: traceback.TracebackException | None, depth: int = 0) -> None:
    """Readers want their own lines: the engine's frames between them tell nothing, unless there are no others."""
    if summary is None or depth > _DEEPEST:
        return
    theirs = [frame for frame in summary.stack if not frame.filename.startswith(_ENGINE)]
    if theirs:
        summary.stack[:] = theirs
    _leave_out_own_frames(summary.__cause__, depth + 1)
    _leave_out_own_frames(summary.__context__, depth + 1)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a `__str__` of the user's
        return f"<{type(error).__qualname__} without text>"


def _shorten(text: str, longest: int) -> str:
    text = storable_text(text)
    if len(text) <= longest:
        return text
    head, tail = longest // 4, longest - longest // 4 - 60
    return f"{text[:head]}\n... {len(text) - head - tail} characters left out ...\n{text[-tail:]}"


def _carry(value: object) -> object:
    plain = loosen(value)
    return plain if _encodes(plain) else storable_text(repr(type(value)))


def _attributes(error: BaseException) -> dict[str, Any]:  # loose JSON
    found: dict[str, Any] = {}
    for name, value in [*_built_in_state(error), *list(vars(error).items()), *_slots(error)]:
        if not isinstance(name, str) or (name.startswith("__") and name.endswith("__")):
            continue
        plain = _try_to_carry(value)
        if plain is not _NOT_CARRIED and storable_text(name) == name:
            found[name] = plain
    return found


def _try_to_carry(value: object) -> object:
    try:
        plain = loosen(value, strict=True)
    except Exception:  # of no class that can come back
        return _NOT_CARRIED
    return plain if _encodes(plain) else _NOT_CARRIED


def _built_in_state(error: BaseException) -> Iterable[tuple[str, object]]:
    for cls, names in _BUILT_IN_STATE:
        if isinstance(error, cls):
            for name in names:
                value = getattr(error, name, None)
                if value is not None:
                    yield name, value


def _slots(error: BaseException) -> Iterable[tuple[str, object]]:
    for cls in type(error).__mro__:
        if not cls.__flags__ & _HEAP_TYPE:
            continue
        for name, descriptor in vars(cls).items():
            if isinstance(descriptor, types.MemberDescriptorType):
                try:
                    yield name, descriptor.__get__(error, cls)
                except AttributeError:
                    continue


def _encodes(plain: object) -> bool:
    try:
        _encode(plain)
    except Exception:  # an int of more digits than Python writes
        return False
    return True


def _too_large(plain: object) -> bool:
    return len(_encode(plain)) > _LARGEST_STATE


def _restore(
    row: _Stored, exceptions: Sequence[type[BaseException]], fallback: type[BaseException]
) -> BaseException:
    try:
        cls = _find_class(row, exceptions)
        error = None if cls is None else _make(cls, row, exceptions, fallback)
    except Exception:  # a row that fits no such class
        error = None
    if error is None:
        error = _fall_back(row, fallback)
    if row.cause is not None:
        _assign(error, "__cause__", _restore(row.cause, exceptions, fallback))
    notes = [*row.notes, _REMOTE + row.traceback] if row.traceback else list(row.notes)
    if notes:
        _assign(error, "__notes__", notes)
    return error


def _find_class(row: _Stored, exceptions: Sequence[type[BaseException]]) -> type[BaseException] | None:
    for cls in exceptions:
        if cls.__qualname__ == row.name and import_name(cls.__module__) == row.module:
            return cls
    in_main = row.module == import_name("__main__")
    module = sys.modules.get("__main__" if in_main else row.module)
    if not isinstance(module, types.ModuleType):
        return None
    # Dictionaries only: a lazy module's attributes, or its `__getattr__`, would import.
    found: object = object.__getattribute__(module, "__dict__")
    for index, part in enumerate(row.name.split(".")):
        names = found if index == 0 else vars(found) if isinstance(found, type) else {}
        found = names.get(part)  # type: ignore[attr-defined]  # a dictionary of names at every turn
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _make(
    cls: type[BaseException],
    row: _Stored,
    exceptions: Sequence[type[BaseException]],
    fallback: type[BaseException],
) -> BaseException:
    built_in: Any = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    if issubclass(cls, BaseExceptionGroup):
        members = [_restore(member, exceptions, fallback) for member in row.group]
        error: BaseException = built_in.__new__(cls, row.message, members)
    else:
        args = [tighten(argument) for argument in row.args]
        error = built_in.__new__(cls, *args)
        _assign(error, "args", tuple(args))
        if issubclass(built_in, UnicodeDecodeError | UnicodeEncodeError) and _is_unicode_state(args):
            # Its text is made in C of fields that only this checks; it is built in, and no class's own.
            initialise: Any = vars(built_in)["__init__"]
            initialise(error, *args)
    for name, plain in row.attributes.items():
        _set(error, name, tighten(plain))
    return error


def _is_unicode_state(args: list[Any]) -> bool:  # loose values
    if len(args) != 5 or type(args[2]) is not int or type(args[3]) is not int:
        return False
    return isinstance(args[1], str | bytes) and 0 <= args[2] <= args[3] <= len(args[1])


def _set(error: BaseException, name: str, value: object) -> None:
    if name.startswith("__") and name.endswith("__"):
        return
    for cls in type(error).__mro__:
        descriptor = vars(cls).get(name)
        if isinstance(descriptor, types.MemberDescriptorType | types.GetSetDescriptorType):
            descriptor.__set__(error, value)
            return
    object.__getattribute__(error, "__dict__")[name] = value


def _assign(error: BaseException, name: str, value: object) -> None:
    # Past a `__setattr__` of the class, as past all its code.
    BaseException.__setattr__(error, name, value)


def _fall_back(row: _Stored, fallback: type[BaseException]) -> BaseException:
    name = f"{row.module}.{row.name}" if row.module not in ("", "builtins") else row.name
    if issubclass(fallback, StepFailed | WorkflowFailed):
        return fallback(row.message, type=name, traceback=row.traceback)
    return fallback(row.message)
