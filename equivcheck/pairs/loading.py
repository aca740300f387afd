"""What a user wrote and what is meant: objects behind import strings, their names, and devices; what is not there is one line."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.runtime import global_state
from equivcheck.runtime.file_modules import module_of

__all__ = ["line_of", "load", "load_candidate", "name_of"]

_SWITCHED: dict[str, tuple[str, ...]] = {}  # by module: a second import of it switches nothing


def load_candidate(spec: str, root: Path | None = None) -> tuple[Any, tuple[str, ...]]:
    """The object behind an import string, and the settings of the process that importing it switched; they are put back."""
    before = global_state.now()
    try:
        found = load(spec, root)
    finally:
        switched = tuple(global_state.put_back(before))
    place = spec.rpartition(":")[0]
    _SWITCHED.setdefault(place, switched)
    return found, _SWITCHED[place]


def load(spec: str, root: Path | None = None) -> Any:
    """The object behind `"package.module:name"` or `"path/to/file.py:name"`; a UsageError says why there is none.

    A path is one from `root` (the current folder), which is named where the code under test may have changed the folder.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"{spec!r} is no import string: write 'package.module:name' or 'path/to/file.py:name', with a colon before the name"
        )
    try:
        module = (
            module_of((root or Path()) / Path(place).expanduser())
            if place.endswith(".py")
            else importlib.import_module(place)
        )
    except UsageError:
        raise
    except BaseException as error:  # whatever a stranger's module raises while it is imported, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"cannot import {place!r}: {type(error).__name__}: {line_of(error)}") from error
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageError(
                f"{place!r} has no {name!r}: it has {', '.join(_public(module)[:12]) or 'nothing to call'}"
            ) from None
    return found


def _public(module: ModuleType) -> list[str]:
    """What can be called in a module: what it defines itself, and what it imports where that is nothing."""
    names = sorted(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
    own = [n for n in names if getattr(getattr(module, n), "__module__", None) == module.__name__]
    return own or names


def line_of(error: BaseException) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()) or "no message"


def name_of(given: Any) -> str:
    """How a person would write the object on the command line: its import string where it has one."""
    if isinstance(given, str):
        return given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name else repr(given)
