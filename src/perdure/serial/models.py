"""The shape of a pydantic model, or of a pydantic dataclass: pydantic writes it and reads it.

Reading validates, lax as usual, and takes aliases; what is written has the names of the fields, as an alias
may differ between reading and writing. What comes back is compared with what was given: pydantic writes a
subclass of a field's model as that model, and a secret as stars, without a word. What a model excludes or
computes on purpose is its own affair.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import msgspec

from perdure.serial.shapes import EVERY_KIND, OBJECT, Annotation, Misfit, Shape, Untyped


class Model(Shape):
    """A pydantic model or dataclass, or one of its generics filled in."""

    native = False
    inline = True
    verify = True
    kinds = frozenset((OBJECT,))

    def __init__(self, annotation: Annotation, cls: type) -> None:
        super().__init__(annotation)
        self.type = cls
        self.types = (cls,)
        own = getattr(getattr(cls, "__pydantic_decorators__", None), "model_serializers", ())
        if own or getattr(cls, "__pydantic_root_model__", False):
            self.kinds = EVERY_KIND  # it is written as whatever it likes
        self._adapter: Any = None  # pydantic is optional, so its classes cannot be named here
        self._by_name: dict[str, bool] = {}
        self._plain = Untyped(Any)

    @property
    def adapter(self) -> Any:  # the same reason
        """The model's `TypeAdapter`, made at the first use, when forward references exist."""
        if self._adapter is None:
            adapter = sys.modules["pydantic"].TypeAdapter(self.annotation)
            known = inspect.signature(adapter.validate_json).parameters
            # pydantic before 2.11 reads either aliases or names, as the model says; then aliases it is.
            self._by_name = {"by_alias": True, "by_name": True} if "by_name" in known else {}
            self._adapter = adapter  # last: another thread may be looking
        return self._adapter

    def check(self, value: object) -> None:
        if type(value) is not self.type:
            raise self.misfit(value)

    def write(self, value: object) -> object:
        adapter = self.adapter
        try:
            plain: object = adapter.dump_python(
                value, mode="json", by_alias=not self._by_name, round_trip=True, warnings="error"
            )
        except Exception as error:
            raise Misfit(f"pydantic cannot write it: {error}") from error
        self._plain.check(plain)
        return plain

    def lift(self, plain: object) -> object:
        adapter = self.adapter
        try:
            # As JSON, not as Python: what a strict field takes differs between the two.
            return adapter.validate_json(msgspec.json.encode(plain), **self._by_name)
        except Exception as error:
            raise Misfit(f"pydantic refuses it: {error}") from error

    def accepts(self, plain: dict[str, object]) -> bool:
        fields: Any = getattr(self.type, "__pydantic_fields__", {})
        names = {alias for name, field in fields.items() for alias in (name, field.alias) if alias}
        needed = {field.alias or name for name, field in fields.items() if field.is_required()}
        return plain.keys() <= names and len(needed - plain.keys()) == 0


def is_model(cls: type) -> bool:
    """Tell whether a class is pydantic's, without importing pydantic."""
    return "pydantic" in sys.modules and hasattr(cls, "__pydantic_validator__")
