"""The modules of an implementation: those that define it, and those that they import from the same project."""

import ast
import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from equivcheck.runtime.file_modules import imported_as
from equivcheck.runtime.source_files import file_of, hash_of, is_equivcheck, is_installed, name_of

__all__ = ["closure", "defined_at", "definitions", "files_of", "imported_names", "modules_of"]

_IMPORTING = ("import_module", "__import__")


def files_of(given: Any, root: Path | None = None) -> dict[str, str]:
    """SHA-256 of each file of `modules_of(given)`, by the name of the file.

    Args:
        given: A class, a function or a factory.
        root: The folder that names are relative to; the current one by default. The name of a file outside of it is
            relative to an entry of `sys.path`.
    """
    root = (root or Path.cwd()).resolve()
    return dict(sorted((name_of(file, root), hash_of(file)) for file in modules_of(given)))


def modules_of(given: Any) -> dict[Path, ModuleType]:
    """The modules that `given` is made of, by their files.

    They are the modules that define it and its base classes, and every module that these import, directly or through
    others, from a project. Left out are the standard library, installed packages, and equivcheck, which has a separate
    hash.
    """
    return closure(definitions(given))


def closure(modules: Iterable[ModuleType]) -> dict[Path, ModuleType]:
    """These modules, and all that they import from a project, directly or through others, by their files."""
    todo = list(modules)
    reached = {file: module for module in todo if (file := file_of(module))}
    while todo:
        for module in _imported(todo.pop()):
            file = file_of(module)
            if file and file not in reached and not is_installed(str(file)) and not is_equivcheck(str(file)):
                reached[file] = module
                todo.append(module)
    return reached


def defined_at(given: Any, root: Path | None = None) -> tuple[str, int] | None:
    """The file, named as in `files_of`, and the line where `given` is defined; None where Python does not know."""
    with suppress(TypeError, OSError):
        target = _unwrapped(given)
        file = inspect.getsourcefile(target)
        if file:
            return name_of(Path(file).resolve(), (root or Path.cwd()).resolve()), inspect.getsourcelines(target)[1]
    return None


def definitions(given: Any) -> Iterator[ModuleType]:
    """The modules that define `given` and the callables bound into it, and for a class its bases in a project."""
    for part in _bound(given, set()):
        target = _unwrapped(part)
        for one in target.__mro__ if inspect.isclass(target) else (target,):
            module = sys.modules.get(getattr(one, "__module__", None) or "")
            file = file_of(module)
            if module is not None and file and (one is target or not is_installed(str(file))):
                yield module


def imported_names(file: Path, package: str | None = None) -> tuple[str, ...]:
    """The dotted names that a source file imports anywhere, those of `import_module("…")` included.

    `package` is the one that relative imports start from; without it they are left out.
    """
    with suppress(OSError):
        status = os.stat(file)
        return _imported_names(file, package, status.st_mtime_ns, status.st_size)
    return ()


@functools.lru_cache(maxsize=4096)
def _imported_names(file: Path, package: str | None, _changed_ns: int, _size: int) -> tuple[str, ...]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        names.update(dict.fromkeys(_names_in(node, package)))
    return tuple(names)


def _names_in(node: ast.AST, package: str | None) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        with suppress(ImportError):
            base = importlib.util.resolve_name(base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = node.args[0].value
        if called in _IMPORTING and isinstance(named, str) and named.strip("."):
            with suppress(ImportError):
                yield importlib.util.resolve_name(named, package)


def _imported(module: ModuleType) -> Iterator[ModuleType]:
    """The modules that `module` imports in its source, with their packages, and those that its namespace refers to."""
    file = file_of(module)
    if not file or file.suffix != ".py":
        return
    for name in imported_names(file, module.__package__ or None):
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            imported = imported_as(".".join(parts[:length]), module)
            if imported is not None:
                yield imported
    for name, value in list(vars(module).items()):
        if isinstance(value, ModuleType):
            # any import of a submodule sets it in its package: the package itself need not have imported it
            if value.__name__ != f"{module.__name__}.{name}":
                yield value
        elif isinstance(value, type | FunctionType | BuiltinFunctionType):
            defining = sys.modules.get(getattr(value, "__module__", None) or "")
            if defining is not None:
                yield defining


def _unwrapped(given: Any) -> Any:
    while True:
        if isinstance(given, functools.partial):
            given = given.func
        elif hasattr(given, "__wrapped__"):
            given = given.__wrapped__
        elif inspect.ismethod(given):
            given = given.__func__
        elif inspect.isclass(given) or inspect.isroutine(given):
            return given
        else:
            return type(given)


def _bound(given: Any, seen: set[int]) -> Iterator[Any]:
    """`given`, and the callables that a partial, a method, a decorator or a closure has bound into it."""
    if id(given) in seen or not callable(given):
        return
    seen.add(id(given))
    yield given
    inner = [getattr(given, name, None) for name in ("__wrapped__", "__self__")]
    if isinstance(given, functools.partial):
        inner += [given.func, *given.args, *given.keywords.values()]
    for cell in getattr(given, "__closure__", None) or ():
        with suppress(ValueError):  # a cell that is still empty
            inner.append(cell.cell_contents)
    for one in inner:
        yield from _bound(one, seen)
