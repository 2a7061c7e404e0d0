"""What the code of a run is called with: its recorded arguments, and of a method the instance or the class."""

from __future__ import annotations

from typing import Any

from perdure.core.run import Run
from perdure.errors import PerdureError, SerializationError
from perdure.serial import receiver_of


def arguments(run: Run) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read the arguments; a run whose arguments, or whose instance, are not to be had here is given up."""
    definition = run.definition
    try:
        args, kwargs = definition.signature.decode_call(run.input)
    except (SerializationError, TypeError) as error:
        raise run.give_up(SerializationError(f"the recorded arguments cannot be read: {error}")) from error
    if definition.method == "class":
        return (definition.owner, *args), kwargs
    if definition.method == "instance":
        name = receiver_of(run.input)
        if name is None or name not in run.runtime.instances:
            raise run.give_up(
                PerdureError(
                    f"{definition.name} is a method of an instance called {name!r}, which is not given to this worker: "
                    f"name it in Perdure(instances={{{name!r}: ...}}), then resume the run"
                )
            )
        return (run.runtime.instances[name], *args), kwargs
    return args, kwargs
