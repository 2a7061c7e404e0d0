"""Topics: typed names, under which messages are sent, events set, streams written and updates asked for."""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, TypeVar, cast, overload

from perdure.serial import Payload, check_size, check_text

T = TypeVar("T")
ANYTHING: Final = cast("type[Any]", Any)


class Topic(Generic[T]):
    """A name with the type of what goes under it, so that both sides agree, for type checkers too.

    Args:
        name: what is stored.
        type: of the payloads, such as a dataclass, `list[int]` or `Decimal`; anything that JSON has, by default.

    Raises:
        ValueError: the name is empty, begins with `!`, or is no text that the database takes.

    Example:
        approval = Topic("approval", Approval)
        await handle.send(approval, Approval(ok=True))
    """

    __slots__ = ("name", "payload")

    @overload
    def __init__(self: Topic[Any], name: str) -> None: ...
    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...
    def __init__(self, name: str, type: type[Any] = ANYTHING) -> None:
        self.name = check_name(name)
        self.payload = Payload.of(type)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.payload.name})"


class Named(NamedTuple):
    """A topic, or a name with a type, as the operations want it."""

    name: str
    payload: Payload


def check_name(name: str) -> str:
    """Refuse a name that cannot be one.

    Raises:
        ValueError: it is empty, or is kept for perdure's own.
    """
    check_text(name, "name of a topic, event, stream or update")
    if not name or name.startswith("!"):
        raise ValueError(
            f"a topic, event, stream or update needs a name that does not begin with '!', not {name!r}"
        )
    return name


def named(topic: Topic[Any] | str, type: Any = None) -> Named:
    """The name and the payload of what is read: of the topic's type, of `type`, or whatever JSON has."""
    if isinstance(topic, Topic):
        return Named(topic.name, topic.payload if type is None else Payload.of(type))
    return Named(check_name(topic), Payload.of(Any if type is None else type))


def written(topic: Topic[Any] | str, value: Any) -> tuple[str, bytes]:
    """The name and the stored form of what is written: of the topic's type, or of the value's own."""
    if isinstance(topic, Topic):
        name, payload = topic.name, topic.payload
    else:
        plain = value is None or isinstance(value, bool | int | float | str | list | dict)
        name, payload = check_name(topic), Payload.of(Any if plain else value.__class__)
    return name, check_size(payload.encode(value), what=f"what is sent as {name!r}")
