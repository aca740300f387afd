"""A Python file that is given by its path: one module, under the name that the files beside it import it by.

The name is the file's stem, or in a package the dotted one. Where another module has that name already, or would be imported
by it, the file has a name of its own, which shadows nothing; the files beside it import it by its stem all the same.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from equivcheck.errors import UsageError
from equivcheck.runtime.folder_imports import FileLoader, join
from equivcheck.runtime.module_files import made_of

__all__ = ["imported_as", "module_of"]


def module_of(path: Path) -> ModuleType:
    """The module of a file, which is loaded where no module is made of it yet.

    Args:
        path: The file; a link counts as the file that it leads to, and has the name that it is given.

    Raises:
        UsageError: There is no such file, or two modules are made of it already.
        BaseException: Whatever the file raises while it runs.
    """
    path = path.expanduser()
    path = Path(os.path.realpath(path.parent), path.name)
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}: give the path of a Python file before the colon")
    known = made_of(str(path))
    if len(known) > 1:
        names = " and as ".join(module.__name__ for module in known)
        raise UsageError(f"{path} is loaded twice, as {names}: import it everywhere by one of these names")
    if known:
        return known[0]
    root, parts = _tree(path)
    folder = join(root)
    for other in {path.parent, path.resolve().parent} - {root}:
        join(other, watched=False)
    if any("." in part for part in parts):  # no `import` names such a file
        return importlib.import_module(folder.private(parts[0], str(path)))
    return importlib.import_module(".".join((folder.actual(parts[0]), *parts[1:])))


def imported_as(name: str, importer: ModuleType) -> ModuleType | None:
    """The module that `importer` has imported by `name`; None where it is not loaded."""
    loader = getattr(getattr(importer, "__spec__", None), "loader", None)
    if isinstance(loader, FileLoader):
        top, dot, rest = name.partition(".")
        private = sys.modules.get(loader.folder.private_name(top) + dot + rest)
        if private is not None:
            return private
    return sys.modules.get(name)


def _tree(path: Path) -> tuple[Path, list[str]]:
    """The folder around the outermost package that a file lies in, and the parts of its name from there."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts, folder = [folder.name, *parts], folder.parent
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return folder, parts
