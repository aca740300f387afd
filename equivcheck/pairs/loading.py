"""Objects behind import strings, names of objects, and messages of errors in one line."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.runtime import global_state
from equivcheck.runtime.file_modules import module_of
from equivcheck.runtime.import_strings import parts_of

__all__ = ["line_of", "load", "load_candidate", "name_of"]

_SWITCHED: dict[str, tuple[str, ...]] = {}  # by module: only the first import of a module switches settings


def load_candidate(spec: str, root: Path | None = None) -> tuple[Any, tuple[str, ...]]:
    """The object behind an import string, and the settings of the process that its import switched.

    The settings are put back.
    """
    before = global_state.now()
    try:
        candidate = load(spec, root)
    finally:
        switched = tuple(global_state.put_back(before))
    place = spec.rpartition(":")[0]
    _SWITCHED.setdefault(place, switched)
    return candidate, _SWITCHED[place]


def load(spec: str, root: Path | None = None) -> Any:
    """The object behind `"package.module:name"` or `"path/to/file.py:name"`.

    Args:
        spec: The import string.
        root: The folder from which a path starts, by default the current one, which code under test may have changed.

    Raises:
        UsageError: The import string has another form, or there is no such object.
    """
    place, name = parts_of(spec)
    try:
        module = (
            module_of((root or Path()) / Path(place).expanduser())
            if place.endswith(".py")
            else importlib.import_module(place)
        )
    except UsageError:
        raise
    except BaseException as error:  # a foreign module may raise anything at import, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"cannot import {place!r}: {type(error).__name__}: {line_of(error)}") from error
    target: Any = module
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise UsageError(
                f"{place!r} has no {name!r}: it has {', '.join(_public(module)[:12]) or 'nothing to call'}"
            ) from None
    return target


def _public(module: ModuleType) -> list[str]:
    """The callables that a module defines; if it defines none, those that it imports."""
    names = sorted(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
    defined = [n for n in names if getattr(getattr(module, n), "__module__", None) == module.__name__]
    return defined or names


def line_of(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split()) or "no message"


def name_of(given: Any) -> str:
    """The object as the command line takes it: its import string, or its repr if it has none."""
    if isinstance(given, str):
        return given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name else repr(given)
