"""Finding the app that `module:app` names.

Modules are looked for from the working folder first, as web servers do, so that the same words start both.
The user's own error while their module is imported is theirs to see: its traceback is shown, without the
frames of perdure and of the import machinery.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from perdure import Perdure, sync
from perdure.cli.exits import Exit, Failure

App = Perdure | sync.Perdure


def load(target: str) -> App:
    """Import a module and return its app.

    Args:
        target: `module:attribute`; without the attribute, the module's only app.

    Raises:
        Failure: there is no such module or attribute, it is no app, or the module cannot be imported.
    """
    name, colon, attribute = target.partition(":")
    if not name or (colon and not attribute):
        what = "module" if not name else "app"
        raise Failure(
            Exit.USAGE, f"{target!r} names no {what}: write MODULE:APP, or MODULE if it has just one app"
        )
    if name.endswith(".py") or "/" in name:
        likely = ".".join(Path(name).with_suffix("").parts)
        raise Failure(
            Exit.USAGE,
            f"{name!r} is a file: name the module, as in `perdure worker {likely}{colon}{attribute}`",
        )
    module = _import(name)
    found = _attribute(module, attribute) if colon else _only_app(module)
    if not isinstance(found, App):
        what = f"a class, {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise Failure(Exit.USAGE, f"{target!r} is {what}, not an app: `{attribute} = Perdure(...)` makes one")
    return found


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(
                Exit.USAGE, f"there is no module {error.name!r} in {here} or among what is installed"
            ) from None
        raise _broken(name, error) from None
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from None


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            apps = ", ".join(f"{module.__name__}:{app}" for app in _apps(module))
            there = f"; it has {apps}" if apps else ""
            raise Failure(Exit.USAGE, f"module {module.__name__!r} has no {path!r}{there}") from None
    return found


def _only_app(module: ModuleType) -> App:
    apps = _apps(module)
    different = {id(app) for app in apps.values()}
    if len(different) == 1:
        return next(iter(apps.values()))
    if apps:
        names = ", ".join(f"{module.__name__}:{name}" for name in apps)
        raise Failure(Exit.USAGE, f"module {module.__name__!r} has several apps: say which of {names}")
    raise Failure(Exit.USAGE, f"module {module.__name__!r} has no app: `app = Perdure(...)` makes one")


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _broken(name: str, error: BaseException) -> Failure:
    """Show the user's traceback, and say in one line what it means."""
    ours = str(Path(__file__).parent)
    told = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in told.stack if not frame.filename.startswith((ours, "<frozen importlib"))]
    frames = [frame for frame in frames if frame.filename != importlib.__file__]
    told.stack = traceback.StackSummary.from_list(frames)
    click.echo("".join(told.format(chain=True)), err=True, nl=False)
    if isinstance(error, SystemExit):
        return Failure(
            Exit.FAILED, f"importing {name!r} ends the program: put that under `if __name__ == '__main__':`"
        )
    return Failure(Exit.FAILED, f"importing {name!r} failed: {type(error).__name__}: {error}")
