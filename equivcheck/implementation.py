"""Which files an implementation is made of: where it is defined, and what that imports from the same tree."""

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from equivcheck.file_modules import imported_as

__all__ = ["defined_at", "digest_of", "files_of", "find", "hash_of"]

_INSTALLED = tuple(
    Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_OWN = Path(__file__).parent.resolve()


def files_of(given: Any, root: Path | None = None) -> dict[str, str]:
    """SHA-256 of each file that `given` (a class, a function, a factory) is made of, by its name as `find` understands it.

    These are the files that define it and its base classes, and from there on every module that is imported and lies in
    somebody's own tree: not in the standard library, not installed, and not in equivcheck, whose rooms have a hash of their own.
    A name is relative to `root` (the current folder) where the file lies below it, and else to an entry of `sys.path`.
    """
    root = (root or Path.cwd()).resolve()
    todo = list(_definitions(given))
    found = {Path(file): module for module in todo if (file := _file(module))}
    while todo:
        for module in _imported(todo.pop()):
            file = _file(module)
            if file and Path(file) not in found and not _elsewhere(Path(file)):
                found[Path(file)] = module
                todo.append(module)
    return dict(sorted((_name(file, root), hash_of(file)) for file in found))


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 of names and hashes of files, whatever their order."""
    digest = hashlib.sha256()
    for name, sha in sorted(files):
        digest.update(f"{name}\0{sha}\0".encode())
    return digest.hexdigest()


def hash_of(file: Path) -> str:
    """SHA-256 of a file's bytes, with the line ends of a checkout on any system."""
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def find(name: str, root: Path) -> Path | None:
    """The file that `files_of` called `name`, in this tree or where Python imports from; None where there is none."""
    for folder in (root, *map(Path, filter(None, sys.path))):
        if (folder / name).is_file():
            return folder / name
    return None


def defined_at(given: Any, root: Path | None = None) -> tuple[str, int] | None:
    """The file, named as in `files_of`, and the line where `given` is defined; None where Python does not know."""
    with suppress(TypeError, OSError):
        target = _unwrapped(given)
        file = inspect.getsourcefile(target)
        if file:
            return _name(Path(file).resolve(), (root or Path.cwd()).resolve()), inspect.getsourcelines(target)[1]
    return None


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


def _definitions(given: Any) -> Iterator[ModuleType]:
    """The modules that define `given` and what is bound into it: for a class, its bases too, down to what is installed."""
    for part in _bound(given, set()):
        target = _unwrapped(part)
        for one in target.__mro__ if inspect.isclass(target) else (target,):
            module = sys.modules.get(getattr(one, "__module__", None) or "")
            file = _file(module)
            if module is not None and file and (one is target or not _installed(Path(file))):
                yield module


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


def _imported(module: ModuleType) -> Iterator[ModuleType]:
    """The modules that the source of `module` imports anywhere in it, with the packages that they lie in."""
    file = _file(module)
    if not file or not file.endswith(".py"):
        return
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            with suppress(ImportError):
                base = importlib.util.resolve_name(base, module.__package__ or None)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                imported = imported_as(".".join(parts[:length]), module)
                if imported is not None:
                    yield imported


def _file(module: ModuleType | None) -> str | None:
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if isinstance(file, str) and Path(file).is_file() else None


def _installed(file: Path) -> bool:
    return any(file.is_relative_to(folder) for folder in _INSTALLED) or "site-packages" in file.parts


def _elsewhere(file: Path) -> bool:
    return _installed(file) or file.is_relative_to(_OWN)


def _name(file: Path, root: Path) -> str:
    folders = [Path(entry).resolve() for entry in sys.path if entry]
    if file.is_relative_to(root) and not _installed(file):
        return file.relative_to(root).as_posix()
    around = [folder for folder in folders if folder != Path(folder.anchor) and file.is_relative_to(folder)]
    if around:
        return file.relative_to(max(around, key=lambda folder: len(folder.parts))).as_posix()
    return Path(os.path.relpath(file, root)).as_posix()
