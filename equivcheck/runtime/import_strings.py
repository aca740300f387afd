"""Import strings, and typing mistakes in them that show without an import of the module or of torch."""

import ast
import importlib.util
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.runtime.file_modules import existing

__all__ = ["parts_of", "refuse_misspelt", "refuse_misspelt_pair"]

_MOST_NAMES = 12
_DYNAMIC = ("globals", "vars", "setattr", "exec", "__dict__", "__getattr__", "modules")
"""A module whose source has one of these may have names that its source does not bind."""


def parts_of(spec: str) -> tuple[str, str]:
    """The place and the name of an import string.

    Args:
        spec: `package.module:name` or `path/to/file.py:name`.

    Raises:
        UsageError: It has another form.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"{spec!r} is no import string: write 'package.module:name' or 'path/to/file.py:name', "
            "with a colon before the name"
        )
    return place, name


def refuse_misspelt(*specs: str) -> None:
    """Refuse import strings whose module or name is certainly not there; whatever is not certain is left to the import.

    Args:
        specs: Import strings, with modules as `sys.path` has them and files from the current folder.

    Raises:
        UsageError: The form is another one, there is no such file or module, or its source has no such name.
    """
    for spec in specs:
        place, name = parts_of(spec)
        file = existing(Path(place)) if place.endswith(".py") else _file_of(place)
        if file is None or not file.is_file():
            continue
        names = _names_in(file)
        if names is not None and name.partition(".")[0] not in names[0]:
            raise UsageError(f"{place!r} has no {name!r}: it has {', '.join(names[1][:_MOST_NAMES])}")


def refuse_misspelt_pair(reference: Any, candidate: Any, functions: Mapping[str, Any], setup: str | None) -> None:
    """Refuse those import strings of a pair that name nothing for certain; objects are passed over.

    Args:
        reference: The original.
        candidate: The candidate.
        functions: The user's functions, by name.
        setup: The import string of a function that each process calls first.

    Raises:
        UsageError: As by `refuse_misspelt`.
    """
    given = (value for name, value in functions.items() if (name, value) != ("transfer", "auto"))
    refuse_misspelt(*(spec for spec in (reference, candidate, *given, setup) if isinstance(spec, str)))


def _file_of(module: str) -> Path | None:
    """The source of a module; None if that is not certain without an import.

    Raises:
        UsageError: There is no package of its first name.
    """
    top, *rest = module.split(".")
    spec: ModuleSpec | None = None
    with suppress(ValueError, ImportError, AttributeError):
        spec = importlib.util.find_spec(top)
        if spec is None:
            raise UsageError(f"cannot import {module!r}: ModuleNotFoundError: No module named {top!r}")
    path = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        path, folders = f"{path}.{part}", list(spec.submodule_search_locations)
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((one for finder in finders if (one := finder.find_spec(path, folders, None))), None)
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _names_in(file: Path) -> tuple[set[str], list[str]] | None:
    """The names in a source, bound or used, and the callables among those of its first level.

    None if that is not certain, or if it has no callable: then its import says more.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in _DYNAMIC:
            return None
        elif isinstance(node, ast.alias):
            if node.name == "*":
                return None
            names.add((node.asname or node.name).partition(".")[0])
    callables = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    certain = callables and not names & set(_DYNAMIC)
    return (names, sorted(callables)) if certain else None
